//! Kimi Delta Attention. Prompts take the recurrence position by position, each head by itself.

use kernels::activation::cpu::{Sigmoid, SigmoidGate};
use kernels::cpu::matrix::Storage;
use kernels::cpu::{Matrix, run};
use kernels::kda::cpu::{Decays, Step};
use kernels::norm::cpu::{Gate, L2Norm, OfBranch, RmsNorm};
use kernels::short_conv::cpu::transpose_weight;
use search::architecture;

use crate::engine::function::Function;
use crate::engine::memory::Memory;
use crate::engine::recurrent::{Convolution, Recurrent, interleave_heads};
use crate::engine::scratch::{ROWS, Run};
use crate::weights::Weights;

/// A Kimi Delta Attention mixer with its projections.
#[derive(Debug)]
pub(crate) struct Kda {
    heads: usize,
    key_width: usize,
    value_width: usize,
    /// Rows q, k, v; b; f_a, g_a.
    input: Matrix,
    convolution: Convolution,
    /// f_b, `[H·K, V]`
    decay: Matrix,
    /// g_b, `[H·V, V]`
    gate: Matrix,
    /// −exp(A_log), `[H]`
    rate: Vec<f32>,
    /// `[H·K]`
    dt_bias: Vec<f32>,
    /// `[V]`
    norm: Vec<f32>,
    /// `[d, H·V]`
    output: Matrix,
}

impl Function for Kda {
    fn weight_bytes(&self) -> usize {
        [&self.input, &self.decay, &self.gate, &self.output].map(Matrix::bytes).iter().sum()
    }

    fn memory(&self) -> Memory {
        let channels = self.convolution.channels();
        Memory::Recurrent(Recurrent::new(channels, self.heads, self.key_width, self.value_width))
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
            |_, _| (),
        );
    }
}

impl Kda {
    pub(super) fn new(
        weights: &Weights,
        prefix: &str,
        d: usize,
        shape: &architecture::Kda,
        storage: Storage,
    ) -> Self {
        let tensor = |name: &str| weights.get(&format!("{prefix}{name}"));
        let names = ["q", "k", "v", "b", "f_a", "g_a"].map(|name| format!("{name}.weight"));
        let input = weights.rows(prefix, &names.each_ref().map(String::as_str));
        let taps = weights.rows(prefix, &["q_conv.weight", "k_conv.weight", "v_conv.weight"]);
        let [k_rows, v_rows] = [shape.key_rows(), shape.value_rows()].map(|n| n as usize);
        let rank = shape.rank() as usize;
        Self {
            heads: shape.heads as usize,
            key_width: shape.key_width as usize,
            value_width: shape.value_width as usize,
            input: Matrix::pack(&input, input.len() / d, d, storage),
            convolution: Convolution { weight: transpose_weight(&taps), bias: None, offset: 0 },
            decay: Matrix::pack(tensor("f_b.weight"), k_rows, rank, storage),
            gate: Matrix::pack(tensor("g_b.weight"), v_rows, rank, storage),
            rate: tensor("A_log").iter().map(|a| -a.exp()).collect(),
            dt_bias: tensor("dt_bias").to_vec(),
            norm: tensor("norm.weight").to_vec(),
            output: Matrix::pack(tensor("o.weight"), d, v_rows, storage),
        }
    }

    /// y `[T, rows of the matrix]` of the columns from `from` on of p `[T, stride]`.
    fn second(&self, on: &mut Run<'_>, p: &[f32], from: usize, matrix: &Matrix, y: &mut [f32]) {
        let (stride, rank) = (self.input.outputs(), matrix.inputs());
        let mut x = on.scratch.take(p.len() / stride * rank);
        for (x, row) in x.chunks_exact_mut(rank).zip(p.chunks_exact(stride)) {
            x.copy_from_slice(&row[from..][..rank]);
        }
        matrix.apply(on.pool, &x, y);
        on.scratch.give(x);
    }

    /// mixed `[T, H·V]`, normed and gated, from p `[T, stride]` of one sequence.
    fn mix(
        &self,
        on: &mut Run<'_>,
        p: &[f32],
        tokens: usize,
        mixed: &mut [f32],
        state: &mut Recurrent,
    ) {
        let Self { heads, key_width, value_width, .. } = *self;
        let (stride, channels) = (self.input.outputs(), self.convolution.channels());
        let (keys, values) = (heads * key_width, heads * value_width);
        let mut y = on.scratch.take(tokens * channels);
        self.convolution.forward(on, p, stride, state, &mut y, |row| {
            run(L2Norm { x: &mut row[..2 * keys], width: key_width });
        });

        let mut raw = on.scratch.take(tokens * keys);
        let mut decays = on.scratch.take(tokens * keys);
        self.second(on, p, channels + heads, &self.decay, &mut raw);
        on.pool.chunks_mut(&mut decays, ROWS * keys, |block, decays| {
            let raw = raw[block * ROWS * keys..].chunks_exact(key_width);
            let biases = self.dt_bias.chunks_exact(key_width).zip(&self.rate).cycle();
            for ((y, x), (bias, rate)) in decays.chunks_exact_mut(key_width).zip(raw).zip(biases) {
                run(Decays { x, bias, rate: *rate, y });
            }
        });
        let mut beta = on.scratch.take(tokens * heads);
        for (beta, row) in beta.chunks_exact_mut(heads).zip(p.chunks_exact(stride)) {
            run(Sigmoid { x: &row[channels..][..heads], factor: 1.0, y: beta });
        }

        // [H, T, V]
        let mut o = on.scratch.take(tokens * values);
        let scale = (key_width as f32).powf(-0.5);
        on.pool.pairs_mut(heads, &mut state.matrix, &mut o, |head, state, o| {
            for (t, o) in o.chunks_exact_mut(value_width).enumerate() {
                let row = &y[t * channels..][..channels];
                let q = &row[head * key_width..][..key_width];
                let k = &row[keys + head * key_width..][..key_width];
                let v = &row[2 * keys + head * value_width..][..value_width];
                let decay = &decays[t * keys + head * key_width..][..key_width];
                let beta = beta[t * heads + head];
                run(Step { q, k, v, decay, beta, scale, state: &mut *state, o });
            }
        });
        interleave_heads(on, &o, tokens, value_width, mixed);

        self.second(on, p, channels + heads + value_width, &self.gate, &mut o);
        on.pool.chunks_mut(mixed, ROWS * values, |block, mixed| {
            run(RmsNorm { x: &mut *mixed, weight: &self.norm, gate: Gate::None });
            let gate = &o[block * ROWS * values..][..mixed.len()];
            run(SigmoidGate { gate, x: mixed });
        });
        for buffer in [y, raw, decays, beta, o] {
            on.scratch.give(buffer);
        }
    }
}
