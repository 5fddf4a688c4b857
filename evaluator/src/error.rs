//! What can go wrong with a proxy. Every message says what was expected, what was found and what to do.

use std::path::{Path, PathBuf};

use search::failure::FailureKind;

/// Why a corpus cannot be used, a proxy cannot be trained, or a checkpoint cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text or its tokens cannot be used.
    #[error("corpus {path}: {problem}; {remedy}")]
    Corpus {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// Something else lies where the campaign's data were.
    #[error(
        "{key}: {path} holds something else than when the campaign began: results of the two cannot share a front. Put \
         back what was there to go on, or give the changed campaign another `name`"
    )]
    Replaced {
        /// The key in the campaign file.
        key: &'static str,
        /// The file or folder.
        path: PathBuf,
    },
    /// The tokenizer cannot be used.
    #[error(
        "tokenizer {path}: {problem}; give a Hugging Face tokenizer.json, or leave data.tokenizer out to train on bytes"
    )]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// The held-out part of the corpus is not a part.
    #[error(
        "data.validation_fraction must lie between 0 and 1, both excluded, got {0}; 0.1 is usual"
    )]
    ValidationFraction(f64),
    /// The driver sent neither `data` nor `tasks`.
    #[error(
        "there is nothing to train on; the campaign file needs [data] with a corpus, or [[tasks]]"
    )]
    NoData,
    /// A number of the training settings is impossible.
    #[error("training.{name} must be {expected}, got {got}")]
    Setting {
        /// The key in the campaign file.
        name: &'static str,
        /// What would do.
        expected: &'static str,
        /// What stands there.
        got: f64,
    },
    /// The device to train on is not to be had.
    #[error("training.device = \"{device}\": {problem}; or train on \"cpu\"")]
    Device {
        /// As in the campaign file.
        device: search::device::Device,
        /// What is missing, and what to do.
        problem: String,
    },
    /// Not even one sequence.
    #[error(
        "the {part} part of corpus {path} has {tokens} tokens, but one sequence of {sequence_length} and its last target \
         need {}; use a longer corpus, a smaller training.sequence_length or another data.validation_fraction",
        sequence_length + 1
    )]
    TooShort {
        /// The file or folder.
        path: PathBuf,
        /// `training` or `validation`.
        part: &'static str,
        /// Tokens there are.
        tokens: u64,
        /// Tokens of a sequence.
        sequence_length: u64,
    },
    /// The corpus has tokens that the model does not know.
    #[error(
        "corpus {path} needs a vocabulary of {needed} ({why}), but the architecture has vocab={vocab}; set vocab to at \
         least {needed}"
    )]
    Vocabulary {
        /// The file or folder.
        path: PathBuf,
        /// Smallest vocabulary that holds all tokens.
        needed: u64,
        /// Where the number comes from.
        why: &'static str,
        /// What the architecture has.
        vocab: u32,
    },
    /// The proxy's widths do not come out whole.
    #[error(
        "training.width_scale = {scale} does not suit {architecture}: {problem}; choose another scale"
    )]
    Scale {
        /// What the campaign file says.
        scale: f64,
        /// The architecture at target scale.
        architecture: String,
        /// Which number is in the way.
        problem: String,
    },
    /// The loss is not a number any more.
    #[error(
        "training diverged: the {what} is {value} at step {step}; a lower training.learning_rate may help"
    )]
    NotFinite {
        /// `loss`, `gradient norm` or `validation loss`.
        what: &'static str,
        /// NaN or infinite.
        value: f64,
        /// Optimiser steps done.
        step: u64,
    },
    /// The loss went up and stayed there.
    #[error(
        "training diverged: the loss is {loss:.3} at step {step} and has been above {factor} times its first value \
         {first:.3} for {steps} steps; a lower training.learning_rate may help"
    )]
    Diverged {
        /// The last loss, nats per token.
        loss: f64,
        /// The first one.
        first: f64,
        /// How far above it is too far.
        factor: f64,
        /// For how long.
        steps: u64,
        /// Optimiser steps done.
        step: u64,
    },
    /// A task does not go with the architecture.
    #[error("task {name}: {problem}; choose fewer symbols in [[tasks]]")]
    Task {
        /// The task's name.
        name: String,
        /// What is in the way.
        problem: String,
    },
    /// The driver asked for it.
    #[error("stopped")]
    Stopped,
    /// A checkpoint does not fit what it is to be used for.
    #[error("checkpoint {path}: {problem}; evaluate from the beginning, without resume_from")]
    Checkpoint {
        /// The file with the weights.
        path: PathBuf,
        /// Expected and found.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {op} {path}: {source}{}", remedy(source))]
    Io {
        /// `read`, `write`, …
        op: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The model cannot be built or run.
    #[error(transparent)]
    Model(#[from] operators::OperatorError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether trying again, with another seed or later, cannot help.
    pub fn is_infeasible(&self) -> bool {
        match self {
            Self::Corpus { .. }
            | Self::Tokenizer { .. }
            | Self::ValidationFraction(_)
            | Self::NoData
            | Self::Setting { .. }
            | Self::Device { .. }
            | Self::TooShort { .. }
            | Self::Vocabulary { .. }
            | Self::Scale { .. }
            | Self::Task { .. }
            | Self::Stopped => true,
            Self::NotFinite { .. }
            | Self::Diverged { .. }
            | Self::Checkpoint { .. }
            | Self::Io { .. }
            | Self::Model(_)
            | Self::Replaced { .. }
            | Self::Torch(_) => false,
        }
    }

    /// Which kind of failure it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotFinite { .. } | Self::Diverged { .. } => FailureKind::Diverged,
            Self::Torch(error) | Self::Model(operators::OperatorError::Torch(error)) => {
                of_libtorch(&error.to_string())
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::OutOfMemory => {
                FailureKind::OutOfMemory
            }
            Self::Checkpoint { .. } | Self::Model(_) => FailureKind::Invalid,
            Self::Stopped => FailureKind::Crashed,
            Self::Replaced { .. }
            | Self::Corpus { .. }
            | Self::Tokenizer { .. }
            | Self::ValidationFraction(_)
            | Self::NoData
            | Self::Setting { .. }
            | Self::Device { .. }
            | Self::TooShort { .. }
            | Self::Vocabulary { .. }
            | Self::Scale { .. }
            | Self::Task { .. }
            | Self::Io { .. } => FailureKind::Setup,
        }
    }

    pub(crate) fn corpus(
        path: &Path,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Corpus { path: path.to_owned(), problem: problem.into(), remedy: remedy.into() }
    }

    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }
}

/// Which kind of failure an exception of libtorch or C++ is, of which there is nothing but its text.
pub(crate) fn of_libtorch(text: &str) -> FailureKind {
    const MEMORY: [&str; 6] = [
        "out of memory",
        "not enough memory",
        "can't allocate memory",
        "Cannot allocate memory",
        "bad_alloc",
        "ALLOC_FAILED",
    ];
    if MEMORY.iter().any(|words| text.contains(words)) {
        FailureKind::OutOfMemory
    } else {
        FailureKind::Crashed
    }
}

fn remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "; free some space and run again"
        }
        std::io::ErrorKind::PermissionDenied => "; check who may use it",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_says_that_memory_is_short() {
        let long = [i64::MAX / 16];
        let error = tch::Tensor::f_zeros(long, (tch::Kind::Float, tch::Device::Cpu));
        let error = error.expect_err("nobody has so much");
        assert_eq!(Error::from(error).kind(), FailureKind::OutOfMemory);
        let a = tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu));
        let error = a.f_matmul(&a).expect_err("the shapes do not fit");
        assert_eq!(Error::from(error).kind(), FailureKind::Crashed);
    }
}
