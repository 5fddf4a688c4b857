//! Mamba2 (arXiv 2405.21060): one input projection, one convolution over x, B and C, the state-space duality layer
//! with a skip D·x, and an output that is gated first and normed after. The log-linear form (arXiv 2506.04761) keeps a
//! state for each piece of a Fenwick tree over the past.

use search::architecture::Mamba2 as Gene;
use tch::Tensor;

use super::{Mixer, MixerState, Recurrent};
use crate::OperatorError;
use crate::ops::linear::linear;
use crate::ops::linear_attention::LinearAttention;
use crate::ops::log_linear::{self, LogLinear};
use crate::ops::norm::{self, Order};
use crate::ops::{parts, short_conv, wide};
use crate::retrieval::{Asked, Retrieval};
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
    /// L of λ = softplus(L ⊙ …).
    level_scales: Option<Tensor>,
    norm: Tensor,
    output: Tensor,
}

/// What the recurrence does not see: z `[B, T, I]` for the gate, λ `[B, T, H, L]` of the log-linear form.
struct Rest {
    z: Tensor,
    lambda: Option<Tensor>,
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
            level_scales: weights.take_if(gene.levels.is_some(), "L")?,
            norm: weights.take("norm.weight")?,
            output: weights.take("out.weight")?,
        })
    }

    fn inner(&self) -> i64 {
        self.heads * self.head_width
    }

    /// The recurrence's inputs and what it does not see from u `[B, T, d]`; `conv` moves the convolution's state.
    fn inputs(&self, u: &Tensor, conv: impl FnOnce(&Tensor) -> Tensor) -> (LinearAttention, Rest) {
        let (b, t, _) = u.size3().expect("u is [B, T, d]");
        let (inner, n) = (self.inner(), self.state_width);
        let all = linear(u, &self.input);
        let level_rows = self.level_scales.as_ref().map_or(0, |scales| scales.numel() as i64);
        let [z, xbc, dt, levels] = parts(&all, [inner, inner + 2 * n, self.heads, level_rows]);
        let lambda =
            self.level_scales.as_ref().map(|scales| log_linear::level_scales(&levels, scales));
        let [x, k, q] = parts(&conv(&xbc), [inner, n, n]);
        let x = x.reshape([b, t, self.heads, self.head_width]);
        let kind = wide(u.kind());
        let dt = (dt.to_kind(kind) + &self.dt_bias).softplus();
        let log_decay = -self.a_log.to_kind(kind).exp() * &dt;
        let skip = Some(self.skip.shallow_clone());
        let rule = LinearAttention { q, k, v: x, log_decay, v_scale: Some(dt), skip };
        (rule, Rest { z, lambda })
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
        let mut state = state.map(MixerState::recurrent);
        let (rule, rest) = self.inputs(x, |x| {
            let conv = state.as_mut().map(|state| &mut state.conv);
            short_conv::conv_silu(x, &self.conv, Some(&self.conv_bias), conv)
        });
        let y = match (&rest.lambda, &mut state) {
            (Some(lambda), None) => log_linear::linear_attention(&rule, lambda, None),
            (Some(lambda), Some(state)) => {
                state.through(|levels| log_linear::linear_attention(&rule, lambda, Some(levels)))
            }
            (None, None) => rule.forward(None).0,
            (None, Some(state)) => {
                let (y, after) = rule.forward(Some(&state.memory));
                state.memory = after;
                y
            }
        };
        if let Some(state) = state {
            state.position += x.size()[1];
        }
        self.output(&y, &rest.z)
    }

    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor {
        let state = state.recurrent();
        let (rule, rest) = self.inputs(&x.unsqueeze(1), |x| {
            let (x, conv) = (x.squeeze_dim(1), &mut state.conv);
            short_conv::conv_silu_step(&x, &self.conv, Some(&self.conv_bias), conv).unsqueeze(1)
        });
        let y = if let Some(lambda) = &rest.lambda {
            let form = LogLinear::of_linear_attention(&rule, lambda);
            rule.with_skip(state.through(|levels| form.recurrent(levels)))
        } else {
            let (y, after) = rule.recurrent(Some(&state.memory));
            state.memory = after;
            y
        };
        state.position += 1;
        self.output(&y, &rest.z).squeeze_dim(1)
    }

    fn state(&self, batch: i64) -> MixerState {
        let memory = [batch, self.heads, self.state_width, self.head_width];
        let options = (wide(self.input.kind()), self.input.device());
        let levels = self.level_scales.as_ref().map(|scales| scales.size()[1] as u32);
        let channels = self.inner() + 2 * self.state_width;
        MixerState::Recurrent(Recurrent::new(memory, levels, channels, options))
    }

    fn retrieval(&self, x: &Tensor, asked: Asked) -> Option<Retrieval> {
        let conv = |x: &Tensor| short_conv::conv_silu(x, &self.conv, Some(&self.conv_bias), None);
        let (rule, rest) = self.inputs(x, conv);
        let reads = rule.retrieval(asked);
        Some(match &rest.lambda {
            Some(lambda) => log_linear::weigh(&reads, lambda, asked),
            None => reads,
        })
    }
}
