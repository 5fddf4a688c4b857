//! What can go wrong in this crate.

use std::path::PathBuf;

/// Why an engine cannot be built or asked.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A checkpoint cannot be read.
    #[error("cannot read the checkpoint {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not safetensors.
    #[error(
        "{path} is not a safetensors file: {what}; checkpoints are written by deltafront-train"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        what: String,
    },
    /// A tensor of the architecture is not there.
    #[error("the checkpoint lacks the tensor {name}: was it written for another architecture?")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A tensor has another shape or type than the architecture needs.
    #[error(
        "tensor {name}: expected {expected}, got {got}: was it written for another architecture?"
    )]
    Tensor {
        /// Its name.
        name: String,
        /// Shape and type of the architecture.
        expected: String,
        /// Shape and type found.
        got: String,
    },
    /// The tokens do not fit the model or the state.
    #[error("{0}")]
    Tokens(String),
    /// The conditions of a timing cannot be met here.
    #[error("{0}")]
    Conditions(String),
    /// The GPU, its driver or its libraries.
    #[error(transparent)]
    Gpu(#[from] kernels::cuda::Error),
}
