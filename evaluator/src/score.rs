//! The loss of a model whose weights lie in a file, on the held-out text of a campaign: what a stack that was trained elsewhere
//! is compared by.

use std::collections::BTreeMap;
use std::path::Path;

use search::wire::{Configure, Value};

use crate::error::{Error, Result};
use crate::evaluation::{scaled_by, unit, values};
use crate::logits::{Loaded, load};
use crate::validation::{Windows, validate};
use crate::worker::{Setting, configured};

/// The values that a trained candidate has on the same text, products in fp32: `validation_loss`, the loss in bits and that of the
/// test.
///
/// # Errors
/// When the file holds no model of ours, or the text is not there or not for its vocabulary.
pub fn score(weights: &Path, configure: Configure) -> Result<BTreeMap<String, Value>> {
    let Setting { corpus, training, .. } = configured(configure)?;
    let corpus = corpus.ok_or(Error::NoData)?;
    let Loaded { model, stack, .. } = load(weights, None, None)?;
    corpus.check(training.sequence_length, stack.vocab())?;
    let on = |windows| {
        let which = (windows, 1);
        validate(&model, &corpus, &training, stack.vocab(), which, 0, &|| false)
    };
    let validation = on(Windows::Validation)?;
    let validation = validation.expect("a corpus that was checked has a window to validate on");
    let mut found = values(&validation, &corpus);
    let (name, factor) = unit(&corpus);
    if let Some(test) = on(Windows::Test)? {
        found.insert(format!("test_{name}"), scaled_by(&test, factor));
    }
    Ok(found)
}
