//! The feed-forward network: SwiGLU (arXiv 2002.05202), `down(silu(gate x) · up x)`, or squared ReLU (arXiv 2109.08668),
//! `down(max(up x, 0)²)`.

use search::architecture::FfnKind;
use tch::Tensor;

use crate::OperatorError;
use crate::gpu;
use crate::ops::linear::{linear, project, side_by_side};
use crate::ops::relu2::relu2;
use crate::ops::swiglu::swiglu;
use crate::weights::Weights;

/// One of hidden width f.
#[derive(Debug)]
pub(crate) struct Ffn {
    /// Of SwiGLU.
    gate: Option<Tensor>,
    up: Tensor,
    down: Tensor,
}

impl Ffn {
    pub(crate) fn new(kind: FfnKind, weights: &mut Weights) -> Result<Self, OperatorError> {
        let gate = match kind {
            FfnKind::SwiGlu => Some(weights.take("gate.weight")?),
            FfnKind::Relu2 => None,
        };
        Ok(Self { gate, up: weights.take("up.weight")?, down: weights.take("down.weight")? })
    }

    /// x `[…, d]` → `[…, d]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let Some(gate) = &self.gate else {
            return linear(&relu2(&linear(x, &self.up)), &self.down);
        };
        if gpu::suits_swiglu(x, gate.size()[0]) {
            return linear(&gpu::swiglu(&side_by_side(x, &[gate, &self.up])), &self.down);
        }
        let [gate, up]: [Tensor; 2] = project(x, &[gate, &self.up]).try_into().expect("two maps");
        linear(&swiglu(&gate, &up), &self.down)
    }
}
