//! DeltaNet and Gated DeltaNet.

use kernels::cpu::gemm::View;
use kernels::cpu::{Matrix, run};
use kernels::delta_rule::cpu::{Chunked, Step};
use kernels::norm::cpu::{Gate, L2Norm, RmsNorm};
use kernels::short_conv::cpu::transpose_weight;
use search::architecture::{DeltaNet, GatedDeltaNet};

use super::ffn::ROWS;
use super::recurrent::{Convolution, Recurrent, interleave_heads};
use super::scratch::Run;
use crate::weights::Weights;

/// A delta-rule mixer with its projections.
#[derive(Debug)]
pub(crate) struct Delta {
    heads: usize,
    key_width: usize,
    value_width: usize,
    /// Rows q, k, v, then b, and with gates a, g.
    input: Matrix,
    convolution: Convolution,
    decay: Option<Decay>,
    /// `[V]`
    norm: Vec<f32>,
    /// `[d, H·V]`
    output: Matrix,
}

/// g = −exp(A_log) · softplus(a·x + dt_bias)
#[derive(Debug)]
struct Decay {
    /// −exp(A_log), `[H]`
    rate: Vec<f32>,
    /// `[H]`
    dt_bias: Vec<f32>,
}

impl Delta {
    pub(super) fn deltanet(weights: &Weights, prefix: &str, d: usize, shape: DeltaNet) -> Self {
        let DeltaNet { heads, key_width, value_width } = shape;
        let names = ["q.weight", "k.weight", "v.weight", "b.weight"];
        Self::new(weights, prefix, d, [heads, key_width, value_width], &names, None)
    }

    pub(super) fn gated(weights: &Weights, prefix: &str, d: usize, shape: GatedDeltaNet) -> Self {
        let GatedDeltaNet { heads, key_width, value_width } = shape;
        let decay = Decay {
            rate: weights.get(&format!("{prefix}A_log")).iter().map(|a| -a.exp()).collect(),
            dt_bias: weights.get(&format!("{prefix}dt_bias")).to_vec(),
        };
        let names = ["q.weight", "k.weight", "v.weight", "b.weight", "a.weight", "g.weight"];
        Self::new(weights, prefix, d, [heads, key_width, value_width], &names, Some(decay))
    }

    fn new(
        weights: &Weights,
        prefix: &str,
        d: usize,
        shape: [u32; 3],
        inputs: &[&str],
        decay: Option<Decay>,
    ) -> Self {
        let [heads, key_width, value_width] = shape.map(|n| n as usize);
        let input = weights.rows(prefix, inputs);
        let taps = weights.rows(prefix, &["q_conv.weight", "k_conv.weight", "v_conv.weight"]);
        Self {
            heads,
            key_width,
            value_width,
            input: Matrix::from_rows(&input, input.len() / d, d),
            convolution: Convolution { weight: transpose_weight(&taps), bias: None, offset: 0 },
            decay,
            norm: weights.get(&format!("{prefix}norm.weight")).to_vec(),
            output: Matrix::from_rows(
                weights.get(&format!("{prefix}o.weight")),
                d,
                heads * value_width,
            ),
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.input.bytes() + self.output.bytes()
    }

    pub(super) fn state(&self) -> Recurrent {
        let channels = self.convolution.channels();
        Recurrent::new(channels, self.heads, self.key_width, self.value_width)
    }

    /// x `[B·T, d]` += mixer(h `[B·T, d]`), one state for each of the B sequences.
    pub(super) fn forward<'s>(
        &self,
        on: &mut Run<'_>,
        h: &[f32],
        tokens: usize,
        x: &mut [f32],
        states: impl Iterator<Item = &'s mut Recurrent>,
    ) {
        let (stride, width) = (self.input.outputs(), self.output.inputs());
        let rows = h.len() / self.input.inputs();
        let mut p = on.scratch.take(rows * stride);
        let mut mixed = on.scratch.take(rows * width);
        self.input.apply(on.pool, h, &mut p);
        for ((p, mixed), state) in
            p.chunks_exact(tokens * stride).zip(mixed.chunks_exact_mut(tokens * width)).zip(states)
        {
            self.mix(on, p, tokens, mixed, state);
        }
        self.output.apply_add(on.pool, &mixed, x);
        on.scratch.give(p);
        on.scratch.give(mixed);
    }

    /// mixed `[T, H·V]` from p `[T, stride]` of one sequence.
    fn mix(
        &self,
        on: &mut Run<'_>,
        p: &[f32],
        tokens: usize,
        mixed: &mut [f32],
        state: &mut Recurrent,
    ) {
        let Self { heads, key_width, value_width, .. } = *self;
        let stride = self.input.outputs();
        let (keys, channels) = (heads * key_width, self.convolution.channels());
        let mut y = on.scratch.take(tokens * channels);
        self.convolution.forward(on, p, stride, state, &mut y, |row| {
            run(L2Norm { x: &mut row[..2 * keys], width: key_width });
        });

        // [H, T] each
        let mut beta = on.scratch.take(heads * tokens);
        let mut g = on.scratch.take(heads * tokens);
        for (t, row) in p.chunks_exact(stride).enumerate() {
            for head in 0..heads {
                beta[head * tokens + t] = sigmoid(row[channels + head]);
                g[head * tokens + t] = self.decay.as_ref().map_or(0.0, |decay| {
                    decay.rate[head] * softplus(row[channels + heads + head] + decay.dt_bias[head])
                });
            }
        }

        let scale = (key_width as f32).powf(-0.5);
        let mut o = on.scratch.take(heads * tokens * value_width);
        on.pool.pairs_mut(heads, &mut state.matrix, &mut o, |head, state, o| {
            let (q, k) = (&y[head * key_width..], &y[keys + head * key_width..]);
            let v = &y[2 * keys + head * value_width..];
            let (g, beta) = (&g[head * tokens..][..tokens], &beta[head * tokens..][..tokens]);
            if tokens == 1 {
                let (q, k, v) = (&q[..key_width], &k[..key_width], &v[..value_width]);
                run(Step { q, k, v, g: g[0], beta: beta[0], scale, state, o });
            } else {
                let [q, k, v] = [q, k, v].map(|x| View::new(x, channels));
                run(Chunked { tokens, key_width, value_width, q, k, v, g, beta, scale, state, o });
            }
        });

        interleave_heads(on, &o, tokens, value_width, mixed);
        let width = heads * value_width;
        let gate_at = channels + 2 * heads;
        on.pool.chunks_mut(mixed, ROWS * width, |block, mixed| {
            for (t, row) in (block * ROWS..).zip(mixed.chunks_exact_mut(width)) {
                let gate = match self.decay {
                    Some(_) => Gate::After(&p[t * stride + gate_at..][..width]),
                    None => Gate::None,
                };
                run(RmsNorm { x: row, weight: &self.norm, gate });
            }
        });
        for buffer in [y, beta, g, o] {
            on.scratch.give(buffer);
        }
    }
}

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn softplus(x: f32) -> f32 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}
