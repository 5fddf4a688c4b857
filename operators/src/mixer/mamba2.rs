//! Mamba2 (arXiv 2405.21060): one input projection, one convolution over x, B and C, the state-space duality layer
//! with a skip D·x, and an output that is gated first and normed after.

use search::architecture::Mamba2 as Gene;
use tch::Tensor;

use super::{Mixer, MixerState, Recurrent};
use crate::OperatorError;
use crate::ops::linear::linear;
use crate::ops::linear_attention::LinearAttention;
use crate::ops::norm::{self, Order};
use crate::ops::{parts, short_conv, wide};
use crate::retrieval::Retrieval;
use crate::weights::Weights;

/// The layer; I = heads · head width is its inner width.
#[derive(Debug)]
pub(super) struct Mamba2 {
    heads: i64,
    head_width: i64,
    state_width: i64,
    input: Tensor,
    conv: Tensor,
    conv_bias: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
    skip: Tensor,
    norm: Tensor,
    output: Tensor,
}

impl Mamba2 {
    pub(super) fn new(gene: &Gene, weights: &mut Weights) -> Result<Self, OperatorError> {
        Ok(Self {
            heads: gene.heads.into(),
            head_width: gene.head_width.into(),
            state_width: gene.state_width.into(),
            input: weights.take("in.weight")?,
            conv: weights.take("conv.weight")?,
            conv_bias: weights.take("conv.bias")?,
            a_log: weights.take("A_log")?,
            dt_bias: weights.take("dt_bias")?,
            skip: weights.take("D")?,
            norm: weights.take("norm.weight")?,
            output: weights.take("out.weight")?,
        })
    }

    fn inner(&self) -> i64 {
        self.heads * self.head_width
    }

    /// The recurrence's inputs and the gate z `[B, T, I]` from u `[B, T, d]`; `conv` moves the convolution's state.
    fn inputs(
        &self,
        u: &Tensor,
        conv: impl FnOnce(&Tensor) -> Tensor,
    ) -> (LinearAttention, Tensor) {
        let (b, t, _) = u.size3().expect("u is [B, T, d]");
        let (inner, n) = (self.inner(), self.state_width);
        let all = linear(u, &self.input);
        let [z, xbc, dt] = parts(&all, [inner, inner + 2 * n, self.heads]);
        let [x, k, q] = parts(&conv(&xbc), [inner, n, n]);
        let x = x.reshape([b, t, self.heads, self.head_width]);
        let kind = wide(u.kind());
        let dt = (dt.to_kind(kind) + &self.dt_bias).softplus();
        let log_decay = -self.a_log.to_kind(kind).exp() * &dt;
        let skip = Some(self.skip.shallow_clone());
        (LinearAttention { q, k, v: x, log_decay, v_scale: Some(dt), skip }, z)
    }

    /// From what the recurrence reads, `[B, T, H, P]`, to the residual stream, `[B, T, d]`: gate before norm.
    fn output(&self, y: &Tensor, z: &Tensor) -> Tensor {
        let (b, t, ..) = y.size4().expect("y is [B, T, H, P]");
        let y = y.reshape([b, t, self.inner()]).to_kind(z.kind());
        linear(&norm::gated_rms_norm(&y, z, &self.norm, Order::GateThenNorm), &self.output)
    }
}

impl Mixer for Mamba2 {
    fn forward(&self, x: &Tensor, state: Option<&mut MixerState>) -> Tensor {
        let (mut conv, mut memory) = (None, None);
        if let Some(state) = state {
            let state = state.recurrent();
            (conv, memory) = (Some(&mut state.conv), Some(&mut state.memory));
        }
        let (rule, z) =
            self.inputs(x, |x| short_conv::conv_silu(x, &self.conv, Some(&self.conv_bias), conv));
        let (y, after) = rule.forward(memory.as_deref());
        if let Some(memory) = memory {
            *memory = after;
        }
        self.output(&y, &z)
    }

    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor {
        let Recurrent { memory, conv } = state.recurrent();
        let (rule, z) = self.inputs(&x.unsqueeze(1), |x| {
            short_conv::conv_silu_step(&x.squeeze_dim(1), &self.conv, Some(&self.conv_bias), conv)
                .unsqueeze(1)
        });
        let (y, after) = rule.recurrent(Some(memory));
        *memory = after;
        self.output(&y, &z).squeeze_dim(1)
    }

    fn state(&self, batch: i64) -> MixerState {
        let memory = [batch, self.heads, self.state_width, self.head_width];
        let options = (wide(self.input.kind()), self.input.device());
        MixerState::Recurrent(Recurrent::new(memory, self.inner() + 2 * self.state_width, options))
    }

    fn retrieval(&self, x: &Tensor) -> Retrieval {
        let conv = |x: &Tensor| short_conv::conv_silu(x, &self.conv, Some(&self.conv_bias), None);
        self.inputs(x, conv).0.retrieval()
    }
}
