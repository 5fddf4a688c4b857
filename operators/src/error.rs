//! What can go wrong when a model is built.

use tch::TchError;

/// Why a model could not be built.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// A module asks for a tensor that `search::tensors` does not list, or leaves one unused.
    #[error("building {module}: {what}; the module and search::tensors must name the same tensors")]
    Tensor {
        /// The part of the model that was being built.
        module: String,
        /// Expected and got.
        what: String,
    },
    /// A gene is impossible.
    #[error(transparent)]
    Architecture(#[from] search::architecture::ArchitectureError),
    /// libtorch refused, usually for want of memory.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}
