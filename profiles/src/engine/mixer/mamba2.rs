//! Mamba2, log-linear or not.

use kernels::activation::cpu::Softplus;
use kernels::cpu::matrix::Storage;
use kernels::cpu::{Matrix, Rows, run};
use kernels::linear_attention::cpu::Step;
use kernels::linear_attention::prefill::prefill;
use kernels::linear_attention::train::{Inputs, Shape};
use kernels::norm::cpu::{Gate, OfBranch, RmsNorm};
use kernels::short_conv::cpu::transpose_weight;
use search::architecture;

use crate::engine::fenwick::{Visit, lambdas};
use crate::engine::function::Function;
use crate::engine::memory::Memory;
use crate::engine::recurrent::{Convolution, Recurrent, interleave_heads};
use crate::engine::scratch::{ROWS, Run};
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

impl Function for Mamba2 {
    fn weight_bytes(&self) -> usize {
        self.input.bytes() + self.output.bytes()
    }

    fn memory(&self) -> Memory {
        let channels = self.convolution.channels();
        let levels = self.level_scales.as_ref().map(|scales| scales.len() / self.heads);
        let shape = [self.heads, self.state_width, self.head_width];
        Memory::Recurrent(Recurrent::with_levels(channels, levels, shape))
    }

    fn forward(
        &self,
        on: &mut Run<'_>,
        norm: OfBranch<'_>,
        tokens: usize,
        x: &mut [f32],
        memories: &mut [Memory],
    ) {
        on.mix_sequences(
            (&self.input, &self.output),
            (norm, tokens),
            x,
            memories.iter_mut().map(Memory::recurrent),
            |on, _, (p, mixed), state| self.mix(on, p, tokens, mixed, state),
            |p, mixed| {
                let z = &p[..mixed.len()];
                run(RmsNorm { x: mixed, weight: &self.norm, gate: Gate::Before(z) });
            },
        );
    }
}

impl Mamba2 {
    pub(super) fn new(
        weights: &Weights,
        prefix: &str,
        d_model: usize,
        shape: &architecture::Mamba2,
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

    /// mixed `[T, H·P]`, before gate and norm, from p `[T, stride]` of one sequence.
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

        // [T, H] each
        let mut dt = on.scratch.take(heads * tokens);
        let mut g = on.scratch.take(heads * tokens);
        let dt_at = inner + channels;
        let blocks = (tokens.div_ceil(ROWS), (ROWS * heads, ROWS * heads));
        on.pool.chunk_pairs_mut(blocks.0, blocks.1, &mut dt, &mut g, |block, dt, g| {
            let rows = p[block * ROWS * stride..].chunks_exact(stride);
            for ((dt, g), row) in
                dt.chunks_exact_mut(heads).zip(g.chunks_exact_mut(heads)).zip(rows)
            {
                let x = &row[dt_at..][..heads];
                run(Softplus { x, bias: &self.dt_bias, y: &mut *dt });
                g.iter_mut().zip(dt).zip(&self.a).for_each(|((g, dt), a)| *g = *dt * a);
            }
        });

        if let (Some(fenwick), Some(scales)) = (&mut state.fenwick, &self.level_scales) {
            let mut o = on.scratch.take(tokens * inner);
            let lambda = lambdas(p, stride, scales);
            let levels = scales.len() / heads;
            fenwick.forward(on, tokens, value_width, &mut o, |visit| {
                let Visit { head, at, level, state, read, nothing } = visit;
                let row = &y[at * channels..][..channels];
                let (k, q) = row[inner..].split_at(key_width);
                let written = &row[head * value_width..][..value_width];
                let v = if level == 0 { written } else { nothing };
                let (g, v_scale) = (g[at * heads + head], dt[at * heads + head]);
                let scale = lambda[(at * heads + head) * levels + level];
                run(Step { q, k, v, v_scale, g, scale, state, o: read });
            });
            interleave_heads(on, &o, tokens, value_width, mixed);
            self.add_skip(on, &y, mixed);
            on.scratch.give(o);
        } else if tokens == 1 {
            on.pool.pairs_mut(heads, &mut state.matrix, mixed, |head, state, o| {
                let (k, q) = y[inner..].split_at(key_width);
                let v = &y[head * value_width..][..value_width];
                let (v_scale, g) = (dt[head], g[head]);
                run(Step { q, k, v, v_scale, g, scale: 1.0, state, o });
            });
            self.add_skip(on, &y, mixed);
        } else {
            let inputs = Inputs {
                shape: Shape { batch: 1, tokens, heads, key_width, value_width },
                q: Rows::new(&y[inner + key_width..], tokens, key_width, channels),
                k: Rows::new(&y[inner..], tokens, key_width, channels),
                v: Rows::new(&y, tokens, inner, channels),
                v_scale: &dt,
                g: &g,
                skip: &self.d,
            };
            let arithmetic = self.input.precision().into();
            prefill(arithmetic, &inputs, &mut state.matrix, mixed, &|n, f| on.pool.for_each(n, f));
        }

        for buffer in [y, dt, g] {
            on.scratch.give(buffer);
        }
    }

    /// mixed `[T, H·P]` += D ⊙ x, from the rows x, B, C of y.
    fn add_skip(&self, on: &Run<'_>, y: &[f32], mixed: &mut [f32]) {
        let (inner, channels) = (self.output.inputs(), self.convolution.channels());
        on.pool.chunks_mut(mixed, ROWS * inner, |block, mixed| {
            let rows = y[block * ROWS * channels..].chunks_exact(channels);
            for (mixed, x) in mixed.chunks_exact_mut(inner).zip(rows) {
                let heads = mixed.chunks_exact_mut(self.head_width);
                for ((mixed, x), d) in heads.zip(x.chunks_exact(self.head_width)).zip(&self.d) {
                    mixed.iter_mut().zip(x).for_each(|(mixed, x)| *mixed += d * x);
                }
            }
        });
    }
}
