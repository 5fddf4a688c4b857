//! One network: SwiGLU or squared ReLU.

use tch::Tensor;

use crate::OperatorError;
use crate::gpu;
use crate::ops::linear::{linear, project, side_by_side};
use crate::ops::relu2::relu2;
use crate::ops::swiglu::swiglu;
use crate::weights::Weights;

/// A network whose every weight takes part in every token.
#[derive(Debug)]
pub(super) struct Dense {
    /// Of SwiGLU.
    gate: Option<Tensor>,
    up: Tensor,
    down: Tensor,
}

impl Dense {
    pub(super) fn new(is_gated: bool, weights: &mut Weights) -> Result<Self, OperatorError> {
        Ok(Self {
            gate: weights.take_if(is_gated, "gate.weight")?,
            up: weights.take("up.weight")?,
            down: weights.take("down.weight")?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        match &self.gate {
            Some(gate) => gated(x, [gate, &self.up, &self.down]),
            None => linear(&relu2(&linear(x, &self.up)), &self.down),
        }
    }
}

/// SwiGLU of x `[…, d]` by gate, up `[f, d]` and down `[d, f]`.
pub(super) fn gated(x: &Tensor, [gate, up, down]: [&Tensor; 3]) -> Tensor {
    if gpu::suits_swiglu(x, gate.size()[0]) {
        return linear(&gpu::swiglu(&side_by_side(x, &[gate, up])), down);
    }
    let [gate, up]: [Tensor; 2] = project(x, &[gate, up]).try_into().expect("two maps");
    linear(&swiglu(&gate, &up), down)
}
