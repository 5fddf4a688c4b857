//! The feed-forward network: SwiGLU (arXiv 2002.05202), `down(silu(gate x) · up x)`.

use tch::Tensor;

use crate::OperatorError;
use crate::gpu;
use crate::ops::linear::{linear, project, side_by_side};
use crate::ops::swiglu::swiglu;
use crate::weights::Weights;

/// SwiGLU of hidden width f.
#[derive(Debug)]
pub(crate) struct Ffn {
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

impl Ffn {
    pub(crate) fn new(weights: &mut Weights) -> Result<Self, OperatorError> {
        Ok(Self {
            gate: weights.take("gate.weight")?,
            up: weights.take("up.weight")?,
            down: weights.take("down.weight")?,
        })
    }

    /// x `[…, d]` → `[…, d]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        if gpu::suits_swiglu(x, self.gate.size()[0]) {
            return linear(&gpu::swiglu(&side_by_side(x, &[&self.gate, &self.up])), &self.down);
        }
        let [gate, up]: [Tensor; 2] =
            project(x, &[&self.gate, &self.up]).try_into().expect("two maps");
        linear(&swiglu(&gate, &up), &self.down)
    }
}
