//! One network: SwiGLU or squared ReLU.

use tch::{Kind, Tensor};

use crate::OperatorError;
use crate::gpu;
use crate::ops::linear::{linear, project, side_by_side};
use crate::ops::relu2::relu2;
use crate::ops::swiglu::swiglu;
use crate::retrieval::{Asked, Retrieval};
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

    /// See [`super::Ffn::retrieval`].
    pub(super) fn retrieval(&self, x: &Tensor, asked: Asked) -> Retrieval {
        let d = self.up.size()[1];
        let inputs = match asked {
            Asked::Keys => self.keys() * (d as f64).sqrt(), // [f, d]
            Asked::Queries => x.reshape([-1, d]),
        };
        let up = linear(&inputs, &self.up);
        let hidden = match &self.gate {
            Some(gate) => swiglu(&linear(&inputs, gate), &up),
            None => relu2(&up),
        };
        let alone = |x: Tensor| x.unsqueeze(0).unsqueeze(0);
        Retrieval { weights: alone(hidden), values: alone(self.down.transpose(0, 1)) }
    }

    /// What each inner channel answers to most among inputs of one length, of length one: its row, or of SwiGLU, which
    /// multiplies two, what lies in the middle of both. `[f, d]`
    fn keys(&self) -> Tensor {
        let unit = |rows: &Tensor| {
            let lengths = rows.square().sum_dim_intlist(-1, true, None::<Kind>).sqrt();
            rows / lengths.clamp_min(1e-12)
        };
        match &self.gate {
            Some(gate) => unit(&(unit(gate) + unit(&self.up))),
            None => unit(&self.up),
        }
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
