//! What the delta family shares: projections, short convolutions, the gated delta rule, the norm of each head's
//! output. Its members say which of the options they have.

use tch::Tensor;

use super::{Mixer, MixerState, Recurrent};
use crate::OperatorError;
use crate::ops::delta_rule::DeltaRule;
use crate::ops::{self, norm, short_conv, wide};
use crate::weights::Weights;

/// The shape of a member of the family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) heads: i64,
    pub(super) key_width: i64,
    pub(super) value_width: i64,
    /// Whether the state decays, and the output is gated.
    pub(super) gated: bool,
}

/// A member of the delta family.
#[derive(Debug)]
pub(super) struct Delta {
    shape: Shape,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    gates: Option<Gates>,
    q_conv: Tensor,
    k_conv: Tensor,
    v_conv: Tensor,
    norm: Tensor,
    o: Tensor,
}

/// The decay's and the output gate's parameters.
#[derive(Debug)]
struct Gates {
    a: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
    g: Tensor,
}

impl Delta {
    pub(super) fn new(shape: Shape, weights: &mut Weights) -> Result<Self, OperatorError> {
        let gates = if shape.gated {
            Some(Gates {
                a: weights.take("a.weight")?,
                a_log: weights.take("A_log")?,
                dt_bias: weights.take("dt_bias")?,
                g: weights.take("g.weight")?,
            })
        } else {
            None
        };
        Ok(Self {
            shape,
            q: weights.take("q.weight")?,
            k: weights.take("k.weight")?,
            v: weights.take("v.weight")?,
            b: weights.take("b.weight")?,
            gates,
            q_conv: weights.take("q_conv.weight")?,
            k_conv: weights.take("k_conv.weight")?,
            v_conv: weights.take("v_conv.weight")?,
            norm: weights.take("norm.weight")?,
            o: weights.take("o.weight")?,
        })
    }

    /// The rule's inputs and the output gate `[B, T, H, V]`, from x `[B, T, d]`; `conv` moves the convolution's state.
    fn inputs(
        &self,
        x: &Tensor,
        conv: impl FnOnce(&Tensor, &Tensor) -> Tensor,
    ) -> (DeltaRule, Option<Tensor>) {
        let Shape { heads, key_width, value_width, .. } = self.shape;
        let (b, t, _) = x.size3().expect("x is [B, T, d]");
        let (k_rows, v_rows) = (heads * key_width, heads * value_width);
        // one product for all projections
        let mut matrices = vec![&self.q, &self.k, &self.v, &self.b];
        if let Some(gates) = &self.gates {
            matrices.extend([&gates.a, &gates.g]);
        }
        let all = x.linear(&Tensor::cat(&matrices, 0), None::<&Tensor>);
        let mut rows = vec![2 * k_rows + v_rows, heads];
        if self.gates.is_some() {
            rows.extend([heads, v_rows]);
        }
        let parts = all.split_with_sizes(&rows, -1);
        let taps = Tensor::cat(&[&self.q_conv, &self.k_conv, &self.v_conv], 0);
        let [q, k, v] = ops::parts(&conv(&parts[0], &taps), [k_rows, k_rows, v_rows]);
        let q = q.reshape([b, t, heads, key_width]);
        let k = k.reshape([b, t, heads, key_width]);
        let v = v.reshape([b, t, heads, value_width]);
        let beta = parts[1].to_kind(wide(x.kind())).sigmoid();
        let mut log_decay = None;
        let mut gate = None;
        if let Some(gates) = &self.gates {
            let a = parts[2].to_kind(wide(x.kind()));
            log_decay =
                Some(-gates.a_log.to_kind(a.kind()).exp() * (a + &gates.dt_bias).softplus());
            gate = Some(parts[3].reshape([b, t, heads, value_width]));
        }
        let scale = (key_width as f64).powf(-0.5);
        (DeltaRule { q: norm::l2_norm(&q), k: norm::l2_norm(&k), v, log_decay, beta, scale }, gate)
    }

    /// From what the rule reads, `[B, T, H, V]`, to the residual stream, `[B, T, d]`: norm before gate.
    fn output(&self, o: &Tensor, gate: Option<&Tensor>) -> Tensor {
        let (b, t, heads, value_width) = o.size4().expect("o is [B, T, H, V]");
        let mut o = norm::rms_norm(o, &self.norm);
        if let Some(gate) = gate {
            o = &o * gate.silu();
        }
        o.reshape([b, t, heads * value_width]).linear(&self.o, None::<&Tensor>)
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
        let Shape { heads, key_width, value_width, .. } = self.shape;
        let channels = heads * (2 * key_width + value_width);
        let options = (wide(self.q.kind()), self.q.device());
        MixerState::Recurrent(Recurrent::new(
            [batch, heads, key_width, value_width],
            channels,
            options,
        ))
    }
}
