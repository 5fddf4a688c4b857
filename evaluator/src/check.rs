//! What could not be trained of the models of a campaign, and what only slowly: said before anything is spent.

use operators::{slow_ffn, slow_way};
use search::Architecture;
use search::config::TrainingConfig;
use search::wire::{Check, Checked, Remark};

use crate::corpus::Corpus;
use crate::error::Result;
use crate::learner;
use crate::scale::scaled;

/// Looks at each model.
///
/// # Errors
/// Where none of them could be trained, whatever its layers: the device is not there, a setting is impossible, the corpus has
/// token ids above the vocabulary.
pub(crate) fn check(
    request: &Check,
    corpus: Option<&Corpus>,
    training: &TrainingConfig,
) -> Result<Checked> {
    learner::check(training)?;
    let device = learner::device(training.device)?;
    let precision = learner::precision(training.precision, device);
    let vocab = request.architectures.iter().map(Architecture::vocab).min();
    if let (Some(corpus), Some(vocab)) = (corpus, vocab) {
        corpus.check(training.sequence_length, vocab)?;
    }
    let models = || request.architectures.iter().enumerate();
    let refused = models().filter_map(|(place, architecture)| {
        let error = scaled(architecture, training.width_scale).err()?;
        Some((place, error.to_string()))
    });
    let slow = models().flat_map(|(place, architecture)| {
        architecture.layers().iter().flat_map(move |layer| {
            let mixer = layer.mixer.and_then(|mixer| slow_way(&mixer, device, precision));
            let ffn = layer.ffn.and_then(|ffn| slow_ffn(ffn, device));
            mixer.into_iter().chain(ffn).map(move |slow| (place, slow))
        })
    });
    Ok(Checked { id: request.id, refused: Remark::gathered(refused), slow: Remark::gathered(slow) })
}
