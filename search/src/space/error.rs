//! What is wrong with a space, or with an architecture in its sight.

/// Why a space is impossible, and where the campaign file says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct SpaceError {
    /// The path of the key in the campaign file, e.g. `space.mixers.swa.heads`.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Why an architecture is not a member of a space.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpaceViolation {
    /// A number of the whole model is not among the choices.
    #[error("{what} is not a choice of this space")]
    Model {
        /// E.g. `d_model = 96`.
        what: String,
    },
    /// A layer is not among the choices.
    #[error("layer {layer}: {what} is not a choice of this space")]
    Layer {
        /// Index of the layer, from 0.
        layer: usize,
        /// The mixer or the FFN.
        what: String,
    },
    /// Too many or too few parameters.
    #[error("{parameters} parameters are outside the limits of this space ({min} to {max})")]
    Parameters {
        /// Its own.
        parameters: u64,
        /// The fewest allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
}

/// An error at a key.
pub(super) fn invalid<T>(
    key: impl Into<String>,
    message: impl Into<String>,
) -> Result<T, SpaceError> {
    Err(SpaceError { key: key.into(), message: message.into() })
}
