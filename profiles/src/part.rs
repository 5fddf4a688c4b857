//! A part of a model as an architecture of its own.

use search::Architecture;
use search::architecture::{Ffn, Layer};
use search::latency::Part;

use crate::error::ProfileError;

/// The smallest architecture that holds the part, and whether the part is its head.
pub(crate) fn alone(part: &Part) -> Result<(Architecture, bool), ProfileError> {
    let (d_model, vocab, layer, is_head) = match *part {
        Part::Mixer { d_model, mixer, .. } => {
            (d_model, 1, Layer { mixer: Some(mixer), ffn: None }, false)
        }
        Part::Ffn { d_model, ffn } => (d_model, 1, Layer { mixer: None, ffn: Some(ffn) }, false),
        // The layer is never built.
        Part::Head { d_model, vocab } => {
            (d_model, vocab, Layer { mixer: None, ffn: Some(Ffn::swiglu(1)) }, true)
        }
    };
    Architecture::new(d_model, vocab, true, vec![layer])
        .map(|architecture| (architecture, is_head))
        .map_err(|e| ProfileError::Conditions(format!("{part} cannot be built: {e}")))
}
