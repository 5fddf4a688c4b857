//! The delta family, one module for all its members: DeltaNet (arXiv 2406.06484), Gated DeltaNet (arXiv 2412.06464,
//! with a decay before each delta step and a gate on the normed output) and DeltaProduct (arXiv 2502.10297, n delta
//! steps per token: the rule on a sequence n times as long, the decay on the first step of a token and its query on the
//! last). Log-linear Gated DeltaNet (arXiv 2506.04761) keeps a state for each piece of a Fenwick tree over the past.
//! Which parts a member has stands in its [`Shape`].

use search::architecture::{Delta as Shape, Phases as PhaseShape};
use tch::Tensor;

use super::phases::Phases;
use super::{Mixer, MixerState, Recurrent};
use crate::OperatorError;
use crate::ops::delta_rule::DeltaRule;
use crate::ops::linear::{linear, project};
use crate::ops::log_linear::{self, LogLinear};
use crate::ops::norm::{self, Order};
use crate::ops::{self, rope, short_conv, wide};
use crate::retrieval::{Asked, Retrieval};
use crate::weights::Weights;

/// A member of the delta family.
#[derive(Debug)]
pub(super) struct Delta {
    shape: Shape,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    decay: Option<Decay>,
    gate: Option<Tensor>,
    /// The projection l and L of λ = softplus(L ⊙ l·x).
    lambda: Option<(Tensor, Tensor)>,
    /// Of q, k and v.
    convs: Option<[Tensor; 3]>,
    norm: Tensor,
    o: Tensor,
    phases: Option<Phases>,
}

/// g = −exp(A_log) · softplus(a·x + dt_bias)
#[derive(Debug)]
struct Decay {
    a: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
}

/// The inputs of the rule, n steps for each position, and what the rule does not see.
struct Inputs {
    rule: DeltaRule,
    /// λ of a log-linear member, `[B, T, H, L]`.
    lambda: Option<Tensor>,
    /// The output gate, `[B, T, H, V]`.
    gate: Option<Tensor>,
}

impl Delta {
    pub(super) fn new(
        shape: Shape,
        phases: Option<PhaseShape>,
        weights: &mut Weights,
    ) -> Result<Self, OperatorError> {
        let decay = if shape.decay {
            Some(Decay {
                a: weights.take("a.weight")?,
                a_log: weights.take("A_log")?,
                dt_bias: weights.take("dt_bias")?,
            })
        } else {
            None
        };
        let lambda = if shape.levels.is_some() {
            Some((weights.take("l.weight")?, weights.take("L")?))
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
            lambda,
            convs,
            norm: weights.take("norm.weight")?,
            o: weights.take("o.weight")?,
            phases: Phases::new(phases, weights)?,
        })
    }

    /// From x `[B, T, d]`; `conv` moves the convolution's state. Selective RoPE turns by `angles`, `[B, T, H, K/2]`.
    fn inputs(
        &self,
        x: &Tensor,
        angles: Option<&Tensor>,
        conv: impl FnOnce(&Tensor, &Tensor) -> Tensor,
    ) -> Inputs {
        let (b, t, _) = x.size3().expect("x is [B, T, d]");
        let [n, heads, value_heads, key_width, value_width] = self.sizes();
        let (k_rows, v_rows) = (heads * key_width, value_heads * value_width);
        // one operation for all projections; q, k and v lie together for the convolution
        let qkv = Tensor::cat(&[&self.q, &self.k, &self.v], 0);
        let mut matrices = vec![&qkv, &self.b];
        matrices.extend(self.decay.as_ref().map(|decay| &decay.a));
        matrices.extend(&self.gate);
        matrices.extend(self.lambda.as_ref().map(|(l, _)| l));
        let mut parts = project(x, &matrices).into_iter();
        let mut part = || parts.next().expect("a part for each matrix");
        let qkv = match &self.convs {
            Some(convs) => conv(&part(), &Tensor::cat(convs, 0)),
            None => part().silu(),
        };
        let [q, k, v] = ops::parts(&qkv, [k_rows, n * k_rows, n * v_rows]);
        // step j of position t comes j after step 0 of position t: [B, T·n, H, ·]
        let mut q = q.reshape([b, t, heads, key_width]);
        let mut k = k.reshape([b, t, n, heads, key_width]);
        if let Some(angles) = angles {
            (q, k) = (rope::turn(&q, angles), rope::turn(&k, &angles.unsqueeze(2)));
        }
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
        let lambda =
            self.lambda.as_ref().map(|(_, scales)| log_linear::level_scales(&part(), scales));
        let rule =
            DeltaRule { q, k, v, log_decay, beta, scale: self.shape.scale(), normalise: true };
        Inputs { rule, lambda, gate }
    }

    /// Steps, key heads, value heads, K, V.
    fn sizes(&self) -> [i64; 5] {
        let shape = &self.shape;
        [
            shape.steps_per_token(),
            shape.heads,
            shape.value_heads(),
            shape.key_width,
            shape.value_width,
        ]
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
        let mut state = state.map(MixerState::recurrent);
        let angles = self
            .phases
            .as_ref()
            .map(|phases| phases.angles(x, state.as_mut().and_then(|state| state.phases.as_mut())));
        let inputs = self.inputs(x, angles.as_ref(), |x, taps| {
            let conv = state.as_mut().map(|state| &mut state.conv);
            short_conv::conv_silu(x, taps, None, conv)
        });
        let rule = &inputs.rule;
        let o = match (&inputs.lambda, &mut state) {
            (Some(lambda), None) => log_linear::delta_rule(rule, lambda, None),
            (Some(lambda), Some(state)) => {
                state.through(|levels| log_linear::delta_rule(rule, lambda, Some(levels)))
            }
            (None, None) => rule.forward(None).0,
            (None, Some(state)) => {
                let (o, after) = rule.forward(Some(&state.memory));
                state.memory = after;
                o
            }
        };
        if let Some(state) = state {
            state.position += x.size()[1];
        }
        self.output(&o, inputs.gate.as_ref())
    }

    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor {
        let state = state.recurrent();
        let x = x.unsqueeze(1);
        let angles = self.phases.as_ref().map(|phases| phases.angles(&x, state.phases.as_mut()));
        let inputs = self.inputs(&x, angles.as_ref(), |x, taps| {
            short_conv::conv_silu_step(&x.squeeze_dim(1), taps, None, &mut state.conv).unsqueeze(1)
        });
        let o = if let Some(lambda) = &inputs.lambda {
            let form = LogLinear::of_delta_rule(&inputs.rule, lambda);
            state.through(|levels| form.recurrent(levels))
        } else {
            let (o, after) = inputs.rule.recurrent(Some(&state.memory));
            state.memory = after;
            o
        };
        state.position += 1;
        self.output(&o, inputs.gate.as_ref()).squeeze_dim(1)
    }

    fn state(&self, batch: i64) -> MixerState {
        let [_, _, heads, key_width, value_width] = self.sizes();
        let channels = if self.shape.short_conv { self.shape.channels().cast_signed() } else { 0 };
        let options = (wide(self.q.kind()), self.q.device());
        let memory = [batch, heads, key_width, value_width];
        let state = Recurrent::new(memory, self.shape.levels, channels, options);
        let phases = self.phases.as_ref().map(|phases| phases.state(batch));
        MixerState::Recurrent(Recurrent { phases, ..state })
    }

    fn retrieval(&self, x: &Tensor, asked: Asked) -> Option<Retrieval> {
        let angles = self.phases.as_ref().map(|phases| phases.angles(x, None));
        let conv = |x: &Tensor, taps: &Tensor| short_conv::conv_silu(x, taps, None, None);
        let inputs = self.inputs(x, angles.as_ref(), conv);
        let reads = inputs.rule.retrieval(asked);
        Some(match &inputs.lambda {
            Some(lambda) => log_linear::weigh(&reads, lambda, asked),
            None => reads,
        })
    }
}
