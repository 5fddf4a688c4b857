//! Mamba2, log-linear or not.

use kernels::cpu::gemm::View;
use kernels::cpu::matrix::Storage;
use kernels::cpu::{Matrix, run};
use kernels::linear_attention::cpu::{Chunked, Step};
use kernels::norm::cpu::{Gate, RmsNorm};
use kernels::short_conv::cpu::transpose_weight;
use search::architecture;

use super::delta::{lambdas, softplus};
use super::fenwick::Visit;
use super::ffn::ROWS;
use super::recurrent::{Convolution, Recurrent, interleave_heads};
use super::scratch::Run;
use crate::weights::Weights;

/// A Mamba2 mixer: scalar-gated linear attention with q = C, k = B, v = dt·x, g = dt·A, and D·x beside it.
#[derive(Debug)]
pub(crate) struct Mamba2 {
    heads: usize,
    /// P.
    head_width: usize,
    /// N.
    state_width: usize,
    /// Rows z, x, B, C, dt, and λ of the log-linear form.
    input: Matrix,
    /// Of x, B, C.
    convolution: Convolution,
    /// A = −exp(A_log), `[H]`
    a: Vec<f32>,
    /// `[H]`
    dt_bias: Vec<f32>,
    /// `[H]`
    d: Vec<f32>,
    /// L of λ = softplus(L ⊙ …), `[H, L]`, of the log-linear form.
    level_scales: Option<Vec<f32>>,
    /// `[H·P]`
    norm: Vec<f32>,
    /// `[d, H·P]`
    output: Matrix,
}

impl Mamba2 {
    pub(super) fn new(
        weights: &Weights,
        prefix: &str,
        d_model: usize,
        shape: architecture::Mamba2,
        storage: Storage,
    ) -> Self {
        let tensor = |name: &str| weights.get(&format!("{prefix}{name}")).to_vec();
        let [heads, head_width, state_width] =
            [shape.heads, shape.head_width, shape.state_width].map(|n| n as usize);
        let inner = heads * head_width;
        let input = tensor("in.weight");
        Self {
            heads,
            head_width,
            state_width,
            input: Matrix::pack(&input, input.len() / d_model, d_model, storage),
            convolution: Convolution {
                weight: transpose_weight(&tensor("conv.weight")),
                bias: Some(tensor("conv.bias")),
                offset: inner,
            },
            a: tensor("A_log").iter().map(|a| -a.exp()).collect(),
            dt_bias: tensor("dt_bias"),
            d: tensor("D"),
            level_scales: shape.levels.map(|_| tensor("L")),
            norm: tensor("norm.weight"),
            output: Matrix::pack(&tensor("out.weight"), d_model, inner, storage),
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.input.bytes() + self.output.bytes()
    }

    pub(super) fn state(&self) -> Recurrent {
        let channels = self.convolution.channels();
        let levels = self.level_scales.as_ref().map(|scales| scales.len() / self.heads);
        Recurrent::with_levels(channels, levels, [self.heads, self.state_width, self.head_width])
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
        on.mix_sequences(
            (&self.input, &self.output),
            h,
            tokens,
            x,
            states,
            |on, p, mixed, state| {
                self.mix(on, p, tokens, mixed, state);
            },
        );
    }

    /// mixed `[T, H·P]` from p `[T, stride]` of one sequence.
    fn mix(
        &self,
        on: &mut Run<'_>,
        p: &[f32],
        tokens: usize,
        mixed: &mut [f32],
        state: &mut Recurrent,
    ) {
        let (heads, inner, stride) = (self.heads, self.output.inputs(), self.input.outputs());
        let (key_width, value_width) = (self.state_width, self.head_width);
        let channels = self.convolution.channels();
        // [T, x I, B N, C N]
        let mut y = on.scratch.take(tokens * channels);
        self.convolution.forward(on, p, stride, state, &mut y, |_| ());

        // [H, T] each
        let mut dt = on.scratch.take(heads * tokens);
        let mut g = on.scratch.take(heads * tokens);
        let dt_at = inner + channels;
        for (t, row) in p.chunks_exact(stride).enumerate() {
            for head in 0..heads {
                let step = softplus(row[dt_at + head] + self.dt_bias[head]);
                dt[head * tokens + t] = step;
                g[head * tokens + t] = step * self.a[head];
            }
        }

        let mut o = on.scratch.take(tokens * inner);
        if let (Some(fenwick), Some(scales)) = (&mut state.fenwick, &self.level_scales) {
            let lambda = lambdas(p, stride, scales);
            let levels = scales.len() / heads;
            fenwick.forward(on, tokens, value_width, &mut o, |visit| {
                let Visit { head, at, level, state, read, nothing } = visit;
                let row = &y[at * channels..][..channels];
                let (k, q) = row[inner..].split_at(key_width);
                let written = &row[head * value_width..][..value_width];
                let v = if level == 0 { written } else { nothing };
                let (g, v_scale) = (g[head * tokens + at], dt[head * tokens + at]);
                let scale = lambda[(at * heads + head) * levels + level];
                run(Step { q, k, v, v_scale, g, scale, state, o: read });
            });
        } else {
            on.pool.pairs_mut(heads, &mut state.matrix, &mut o, |head, state, o| {
                let (q, k) = (&y[inner + key_width..], &y[inner..]);
                let v = &y[head * value_width..];
                let (g, dt) = (&g[head * tokens..][..tokens], &dt[head * tokens..][..tokens]);
                if tokens == 1 {
                    let (q, k, v) = (&q[..key_width], &k[..key_width], &v[..value_width]);
                    run(Step { q, k, v, v_scale: dt[0], g: g[0], scale: 1.0, state, o });
                } else {
                    let [q, k, v] = [q, k, v].map(|x| View::new(x, channels));
                    let scale = 1.0;
                    run(Chunked {
                        tokens,
                        key_width,
                        value_width,
                        q,
                        k,
                        v,
                        v_scale: dt,
                        g,
                        scale,
                        state,
                        o,
                    });
                }
            });
        }
        on.pool.chunks_mut(&mut o, tokens * value_width, |head, o| {
            for (o, y) in o.chunks_exact_mut(value_width).zip(y.chunks_exact(channels)) {
                for (o, x) in o.iter_mut().zip(&y[head * value_width..][..value_width]) {
                    *o += self.d[head] * x;
                }
            }
        });

        interleave_heads(on, &o, tokens, value_width, mixed);
        on.pool.chunks_mut(mixed, ROWS * inner, |block, mixed| {
            for (t, row) in (block * ROWS..).zip(mixed.chunks_exact_mut(inner)) {
                let z = &p[t * stride..][..inner];
                run(RmsNorm { x: row, weight: &self.norm, gate: Gate::Before(z) });
            }
        });
        for buffer in [y, dt, g, o] {
            on.scratch.give(buffer);
        }
    }
}
