//! The delta family, one module for all its members: DeltaNet (arXiv 2406.06484), Gated DeltaNet (arXiv 2412.06464,
//! with a decay before each delta step and a gate on the normed output) and DeltaProduct (arXiv 2502.10297, n delta
//! steps per token: the rule on a sequence n times as long, the decay on the first step of a token and its query on the
//! last). Which parts a member has stands in its [`DeltaFamily`].

use search::architecture::DeltaFamily;
use tch::Tensor;

use super::{Mixer, MixerState, Recurrent};
use crate::OperatorError;
use crate::ops::delta_rule::DeltaRule;
use crate::ops::linear::{linear, project};
use crate::ops::norm::{self, Order};
use crate::ops::{self, short_conv, wide};
use crate::retrieval::Retrieval;
use crate::weights::Weights;

/// A member of the delta family.
#[derive(Debug)]
pub(super) struct Delta {
    shape: DeltaFamily,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    decay: Option<Decay>,
    gate: Option<Tensor>,
    /// Of q, k and v.
    convs: Option<[Tensor; 3]>,
    norm: Tensor,
    o: Tensor,
}

/// g = −exp(A_log) · softplus(a·x + dt_bias)
#[derive(Debug)]
struct Decay {
    a: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
}

impl Delta {
    pub(super) fn new(shape: DeltaFamily, weights: &mut Weights) -> Result<Self, OperatorError> {
        let decay = if shape.decay {
            Some(Decay {
                a: weights.take("a.weight")?,
                a_log: weights.take("A_log")?,
                dt_bias: weights.take("dt_bias")?,
            })
        } else {
            None
        };
        let convs = if shape.short_conv {
            Some([
                weights.take("q_conv.weight")?,
                weights.take("k_conv.weight")?,
                weights.take("v_conv.weight")?,
            ])
        } else {
            None
        };
        Ok(Self {
            shape,
            q: weights.take("q.weight")?,
            k: weights.take("k.weight")?,
            v: weights.take("v.weight")?,
            b: weights.take("b.weight")?,
            decay,
            gate: weights.take_if(shape.output_gate, "g.weight")?,
            convs,
            norm: weights.take("norm.weight")?,
            o: weights.take("o.weight")?,
        })
    }

    /// The rule's inputs, n steps for each position, and the output gate `[B, T, H, V]`, from x `[B, T, d]`; `conv`
    /// moves the convolution's state.
    fn inputs(
        &self,
        x: &Tensor,
        conv: impl FnOnce(&Tensor, &Tensor) -> Tensor,
    ) -> (DeltaRule, Option<Tensor>) {
        let (b, t, _) = x.size3().expect("x is [B, T, d]");
        let [n, heads, value_heads, key_width, value_width] = self.sizes();
        let (k_rows, v_rows) = (heads * key_width, value_heads * value_width);
        // one operation for all projections; q, k and v lie together for the convolution
        let qkv = Tensor::cat(&[&self.q, &self.k, &self.v], 0);
        let mut matrices = vec![&qkv, &self.b];
        matrices.extend(self.decay.as_ref().map(|decay| &decay.a));
        matrices.extend(&self.gate);
        let mut parts = project(x, &matrices).into_iter();
        let mut part = || parts.next().expect("a part for each matrix");
        let qkv = match &self.convs {
            Some(convs) => conv(&part(), &Tensor::cat(convs, 0)),
            None => part().silu(),
        };
        let [q, k, v] = ops::parts(&qkv, [k_rows, n * k_rows, n * v_rows]);
        // step j of position t comes j after step 0 of position t: [B, T·n, H, ·]
        let q = q.reshape([b, t, heads, key_width]);
        let k = k.reshape([b, t * n, heads, key_width]);
        let v = v.reshape([b, t * n, value_heads, value_width]);
        let kind = wide(x.kind());
        let largest_beta = if self.shape.negative_eigenvalues { 2.0 } else { 1.0 };
        let beta = part().to_kind(kind).sigmoid().reshape([b, t * n, value_heads]) * largest_beta;
        let log_decay = self.decay.as_ref().map(|decay| {
            let dt = (part().to_kind(kind) + &decay.dt_bias).softplus();
            -decay.a_log.to_kind(kind).exp() * dt
        });
        let gate = self.gate.as_ref().map(|_| part().reshape([b, t, value_heads, value_width]));
        let rule = DeltaRule {
            q,
            k,
            v,
            log_decay,
            beta,
            scale: (key_width as f64).powf(-0.5),
            normalise: true,
        };
        (rule, gate)
    }

    /// Steps, key heads, value heads, K, V.
    fn sizes(&self) -> [i64; 5] {
        let shape = &self.shape;
        [shape.steps, shape.heads, shape.value_heads, shape.key_width, shape.value_width]
            .map(i64::from)
    }

    /// From what the rule reads, `[B, T, H, V]`, to the residual stream, `[B, T, d]`: norm before gate.
    fn output(&self, o: &Tensor, gate: Option<&Tensor>) -> Tensor {
        let (b, t, heads, value_width) = o.size4().expect("o is [B, T, H, V]");
        let o = match gate {
            Some(gate) => norm::gated_rms_norm(o, gate, &self.norm, Order::NormThenGate),
            None => norm::rms_norm(o, &self.norm),
        };
        linear(&o.reshape([b, t, heads * value_width]), &self.o)
    }
}

impl Mixer for Delta {
    fn forward(&self, x: &Tensor, state: Option<&mut MixerState>) -> Tensor {
        let (mut conv, mut memory) = (None, None);
        if let Some(state) = state {
            let state = state.recurrent();
            (conv, memory) = (Some(&mut state.conv), Some(&mut state.memory));
        }
        let (rule, gate) = self.inputs(x, |x, taps| short_conv::conv_silu(x, taps, None, conv));
        let (o, after) = rule.forward(memory.as_deref());
        if let Some(memory) = memory {
            *memory = after;
        }
        self.output(&o, gate.as_ref())
    }

    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor {
        let Recurrent { memory, conv } = state.recurrent();
        let (rule, gate) = self.inputs(&x.unsqueeze(1), |x, taps| {
            short_conv::conv_silu_step(&x.squeeze_dim(1), taps, None, conv).unsqueeze(1)
        });
        let (o, after) = rule.recurrent(Some(memory));
        *memory = after;
        self.output(&o, gate.as_ref()).squeeze_dim(1)
    }

    fn state(&self, batch: i64) -> MixerState {
        let [_, _, heads, key_width, value_width] = self.sizes();
        let channels = if self.shape.short_conv { self.shape.channels().cast_signed() } else { 0 };
        let options = (wide(self.q.kind()), self.q.device());
        MixerState::Recurrent(Recurrent::new(
            [batch, heads, key_width, value_width],
            channels,
            options,
        ))
    }

    fn retrieval(&self, x: &Tensor) -> Retrieval {
        let (rule, _) = self.inputs(x, |x, taps| short_conv::conv_silu(x, taps, None, None));
        rule.retrieval()
    }
}
