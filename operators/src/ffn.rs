//! The feed-forward network: SwiGLU (arXiv 2002.05202), `down(silu(gate x) · up x)`.

use tch::Tensor;

use crate::OperatorError;
use crate::ops::parts;
use crate::weights::Weights;

/// SwiGLU of hidden width f.
#[derive(Debug)]
pub(crate) struct Ffn {
    width: i64,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

impl Ffn {
    pub(crate) fn new(width: u32, weights: &mut Weights) -> Result<Self, OperatorError> {
        Ok(Self {
            width: width.into(),
            gate: weights.take("gate.weight")?,
            up: weights.take("up.weight")?,
            down: weights.take("down.weight")?,
        })
    }

    /// x `[…, d]` → `[…, d]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let both = x.linear(&Tensor::cat(&[&self.gate, &self.up], 0), None::<&Tensor>);
        let [gate, up] = parts(&both, [self.width, self.width]);
        (gate.silu() * up).linear(&self.down, None::<&Tensor>)
    }
}
