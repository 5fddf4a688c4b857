//! Kimi Delta Attention (Kimi Linear, arXiv 2510.26692): the delta rule with a decay for each channel of the keys, from a
//! projection of low rank, and a gate of the normed output by σ, from another.

use search::architecture::Kda as Gene;
use tch::Tensor;

use super::{Mixer, MixerState, Recurrent};
use crate::OperatorError;
use crate::ops::kda::{Kda as Rule, log_decays};
use crate::ops::linear::{linear, project};
use crate::ops::norm::{Order, gated_rms_norm};
use crate::ops::{parts, short_conv, wide};
use crate::retrieval::{Asked, Retrieval};
use crate::weights::Weights;

/// The layer.
#[derive(Debug)]
pub(super) struct Kda {
    gene: Gene,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    /// Of the decays: `[V, d]`, `[H·K, V]`.
    decay: [Tensor; 2],
    /// Of the output's gate: `[V, d]`, `[H·V, V]`.
    gate: [Tensor; 2],
    a_log: Tensor,
    dt_bias: Tensor,
    /// Of q, k and v.
    convs: [Tensor; 3],
    norm: Tensor,
    o: Tensor,
}

impl Kda {
    pub(super) fn new(gene: Gene, weights: &mut Weights) -> Result<Self, OperatorError> {
        Ok(Self {
            gene,
            q: weights.take("q.weight")?,
            k: weights.take("k.weight")?,
            v: weights.take("v.weight")?,
            b: weights.take("b.weight")?,
            decay: [weights.take("f_a.weight")?, weights.take("f_b.weight")?],
            gate: [weights.take("g_a.weight")?, weights.take("g_b.weight")?],
            a_log: weights.take("A_log")?,
            dt_bias: weights.take("dt_bias")?,
            convs: [
                weights.take("q_conv.weight")?,
                weights.take("k_conv.weight")?,
                weights.take("v_conv.weight")?,
            ],
            norm: weights.take("norm.weight")?,
            o: weights.take("o.weight")?,
        })
    }

    /// Heads, K, V.
    fn sizes(&self) -> [i64; 3] {
        [self.gene.heads, self.gene.key_width, self.gene.value_width].map(i64::from)
    }

    /// The rule's inputs and the output's gate `[B, T, H, V]` from x `[B, T, d]`; `conv` moves the convolution's state.
    fn inputs(&self, x: &Tensor, conv: impl FnOnce(&Tensor, &Tensor) -> Tensor) -> (Rule, Tensor) {
        let (b, t, _) = x.size3().expect("x is [B, T, d]");
        let [heads, key_width, value_width] = self.sizes();
        let (k_rows, v_rows) = (heads * key_width, heads * value_width);
        // one operation for all projections; q, k and v lie together for the convolution
        let qkv = Tensor::cat(&[&self.q, &self.k, &self.v], 0);
        let [qkv, strengths, decay, gate] =
            project(x, &[&qkv, &self.b, &self.decay[0], &self.gate[0]])
                .try_into()
                .expect("a part for each matrix");
        let qkv = conv(&qkv, &Tensor::cat(&self.convs, 0));
        let [q, k, v] = parts(&qkv, [k_rows, k_rows, v_rows]);
        let keys = |x: &Tensor| x.reshape([b, t, heads, key_width]);
        let kind = wide(x.kind());
        let decay = linear(&decay, &self.decay[1]);
        let rule = Rule {
            q: keys(&q),
            k: keys(&k),
            v: v.reshape([b, t, heads, value_width]),
            log_decay: log_decays(&decay, &self.dt_bias, &self.a_log),
            beta: strengths.to_kind(kind).sigmoid(),
            scale: (key_width as f64).powf(-0.5),
            normalise: true,
        };
        (rule, linear(&gate, &self.gate[1]).reshape([b, t, heads, value_width]))
    }

    /// From what the rule reads, `[B, T, H, V]`, to the residual stream, `[B, T, d]`: norm before gate.
    fn output(&self, o: &Tensor, gate: &Tensor) -> Tensor {
        let (b, t, heads, value_width) = o.size4().expect("o is [B, T, H, V]");
        let o = gated_rms_norm(o, gate, &self.norm, Order::NormThenSigmoid);
        linear(&o.reshape([b, t, heads * value_width]), &self.o)
    }
}

impl Mixer for Kda {
    fn forward(&self, x: &Tensor, state: Option<&mut MixerState>) -> Tensor {
        let mut state = state.map(MixerState::recurrent);
        let (rule, gate) = self.inputs(x, |x, taps| {
            let conv = state.as_mut().map(|state| &mut state.conv);
            short_conv::conv_silu(x, taps, None, conv)
        });
        let (o, after) = rule.forward(state.as_ref().map(|state| &state.memory));
        if let Some(state) = state {
            state.memory = after;
            state.position += x.size()[1];
        }
        self.output(&o, &gate)
    }

    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor {
        let state = state.recurrent();
        let (rule, gate) = self.inputs(&x.unsqueeze(1), |x, taps| {
            short_conv::conv_silu_step(&x.squeeze_dim(1), taps, None, &mut state.conv).unsqueeze(1)
        });
        let (o, after) = rule.recurrent(Some(&state.memory));
        state.memory = after;
        state.position += 1;
        self.output(&o, &gate).squeeze_dim(1)
    }

    fn state(&self, batch: i64) -> MixerState {
        let [heads, key_width, value_width] = self.sizes();
        let options = (wide(self.q.kind()), self.q.device());
        let memory = [batch, heads, key_width, value_width];
        let channels = self.gene.channels().cast_signed();
        MixerState::Recurrent(Recurrent::new(memory, None, channels, options))
    }

    fn retrieval(&self, x: &Tensor, asked: Asked) -> Option<Retrieval> {
        let conv = |x: &Tensor, taps: &Tensor| short_conv::conv_silu(x, taps, None, None);
        Some(self.inputs(x, conv).0.retrieval(asked))
    }
}
