//! The feed-forward network: one or a mixture, and the one `match` from gene to function.

mod dense;
mod moe;

use kernels::cpu::matrix::Storage;
use kernels::cpu::matrix::feed_forward::FeedForward;
use search::architecture::{self, FfnKind};

use super::function::Function;
use crate::weights::Weights;
use dense::Dense;

/// Builds one from its weights.
pub(super) fn build(
    weights: &Weights,
    prefix: &str,
    d_model: usize,
    ffn: architecture::Ffn,
    storage: Storage,
) -> Box<dyn Function> {
    let matrix = |name: &str| weights.get(&format!("{prefix}{name}.weight"));
    let width = ffn.width as usize;
    match ffn.kind {
        FfnKind::SwiGlu => {
            let matrices = ["gate", "up", "down"].map(matrix);
            Box::new(Dense(FeedForward::swiglu(matrices, d_model, width, storage)))
        }
        FfnKind::Relu2 => {
            let matrices = ["up", "down"].map(matrix);
            Box::new(Dense(FeedForward::relu2(matrices, d_model, width, storage)))
        }
        FfnKind::Moe(experts) => {
            Box::new(moe::Moe::new(&matrix, (d_model, width), experts, storage))
        }
    }
}
