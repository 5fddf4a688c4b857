//! One chunk: the keys that its heads share, and the quantities of the forward pass of one head.

use super::{CHUNK, Inputs, Shape, solve};
use crate::cpu::chunk::{Decays, Product, lower_of_product, lower_times};
use crate::cpu::element::convert;
use crate::cpu::gemm::View;
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Element, Simd, vector};
use crate::delta_rule::weighed;
use crate::norm::L2_EPS;

/// The keys and queries of a chunk, used again from chunk to chunk. C below is `rows`, R is `tokens`.
pub(super) struct Keys {
    shape: Shape,
    /// Positions of this chunk.
    pub(super) tokens: usize,
    /// Steps of this chunk.
    pub(super) rows: usize,
    /// The first position, counted over all sequences.
    pub(super) first: usize,
    /// `[C + R, K]`: K, and below it Q, both as the rule uses them.
    pub(super) stacked: Vec<f32>,
    /// `[C + R]`: what they were multiplied by to be of unit norm, 1 without that.
    pub(super) factors: Vec<f32>,
    /// `[K, CHUNK]`: Kᵀ.
    k_transposed: Vec<f32>,
    /// `[C, CHUNK]`: K Kᵀ, of meaning up to the diagonal.
    pub(super) kk: Vec<f32>,
    /// `[R, CHUNK]`: Q Kᵀ, of meaning up to the last step of a position.
    pub(super) qk: Vec<f32>,
}

impl Keys {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            tokens: 0,
            rows: 0,
            first: 0,
            stacked: vec![0.0; 2 * CHUNK * shape.key_width],
            factors: vec![1.0; 2 * CHUNK],
            k_transposed: vec![0.0; CHUNK * shape.key_width],
            kk: vec![0.0; CHUNK * CHUNK],
            qk: vec![0.0; CHUNK * CHUNK],
        }
    }

    /// Q, `[R, K]`.
    pub(super) fn q(&self) -> &[f32] {
        &self.stacked[self.rows * self.shape.key_width..]
    }

    /// The step after which position `i` is read.
    pub(super) fn read_step(&self, i: usize) -> usize {
        (i + 1) * self.shape.steps - 1
    }

    /// Chunk `index` of a key head of a sequence.
    #[inline(always)]
    pub(super) fn load<S: Simd, E: Element>(
        &mut self,
        s: S,
        inputs: &Inputs<E>,
        sequence: usize,
        head: usize,
        index: usize,
    ) {
        let Shape { tokens, steps, key_width: width, .. } = self.shape;
        let position = index * self.shape.chunk_tokens();
        self.tokens = self.shape.chunk_tokens().min(tokens - position);
        self.rows = self.tokens * steps;
        self.first = sequence * tokens + position;
        let (first, rows) = (self.first, self.rows);
        let each = self.stacked.chunks_exact_mut(width).zip(&mut self.factors);
        for (i, (to, factor)) in each.take(rows + self.tokens).enumerate() {
            let from = if i < rows {
                inputs.k.part(first * steps + i, head * width, width)
            } else {
                inputs.q.part(first + i - rows, head * width, width)
            };
            convert(
                s,
                from,
                to,
                #[inline(always)]
                |x| x,
            );
            if inputs.normalise {
                *factor = 1.0 / (vector::dot(s, to, to) + L2_EPS as f32).sqrt();
                vector::scale(s, *factor, to);
            }
        }
        transpose(rows, width, View::new(&self.stacked, width), &mut self.k_transposed, CHUNK);
        let keys = View::new(&self.k_transposed, CHUNK);
        let k = View::new(&self.stacked, width);
        lower_of_product(s, ([rows, width], 1), k, keys, &mut self.kk, CHUNK);
        let q = k.from_row(rows);
        lower_of_product(s, ([self.tokens, width], steps), q, keys, &mut self.qk, CHUNK);
    }
}

/// One head in a chunk.
pub(super) struct Head {
    shape: Shape,
    pub(super) decays: Decays,
    /// `[C]`
    pub(super) beta: Vec<f32>,
    /// `[C, V]`
    pub(super) v: Vec<f32>,
    /// `[C + R, V]`: K S, and below it Q S, then the output.
    pub(super) read: Vec<f32>,
    /// `[C, V]`: E.
    pub(super) e: Vec<f32>,
    /// `[C, V]`: Δ.
    pub(super) delta: Vec<f32>,
    /// `[C, CHUNK]`: −A below the diagonal.
    pub(super) minus_a: Vec<f32>,
    /// `[R, CHUNK]`: P, zero from the next position's first step on.
    pub(super) p: Vec<f32>,
    /// `[C]`: a row of Γ.
    pub(super) gamma: [f32; CHUNK],
    scale: f32,
}

impl Head {
    pub(super) fn new(shape: Shape) -> Self {
        let values = || vec![0.0; CHUNK * shape.value_width];
        Self {
            shape,
            decays: Decays::new(),
            beta: Vec::with_capacity(CHUNK),
            v: values(),
            read: vec![0.0; 2 * CHUNK * shape.value_width],
            e: values(),
            delta: values(),
            minus_a: vec![0.0; CHUNK * CHUNK],
            p: vec![0.0; CHUNK * CHUNK],
            gamma: [0.0; CHUNK],
            scale: 1.0,
        }
    }

    /// V, β, the decays, −A and P.
    #[inline(always)]
    pub(super) fn load<S: Simd, E: Element>(
        &mut self,
        s: S,
        inputs: &Inputs<E>,
        keys: &Keys,
        head: usize,
    ) {
        let Shape { steps, heads, value_width: width, .. } = self.shape;
        self.scale = inputs.scale;
        let g = |i: usize| match i % steps {
            0 => inputs.g[(keys.first + i / steps) * heads + head],
            _ => 0.0,
        };
        self.decays.load(s, (0..keys.rows).map(g));
        let row = |i: usize| keys.first * steps + i;
        self.beta.clear();
        self.beta.extend((0..keys.rows).map(|i| inputs.beta[row(i) * heads + head]));
        for (i, v) in self.v.chunks_exact_mut(width).take(keys.rows).enumerate() {
            convert(
                s,
                inputs.v.part(row(i), head * width, width),
                v,
                #[inline(always)]
                |x| x,
            );
        }
        for i in 0..keys.rows {
            self.decays.between(s, i, &mut self.gamma);
            let seen = ..=i;
            weighed(
                s,
                -self.beta[i],
                &self.gamma[seen],
                &keys.kk[i * CHUNK..][seen],
                &mut self.minus_a[i * CHUNK..][seen],
            );
            if i % steps == steps - 1 {
                let position = i / steps;
                let p = &mut self.p[position * CHUNK..][..CHUNK];
                weighed(
                    s,
                    self.scale,
                    &self.gamma[seen],
                    &keys.qk[position * CHUNK..][seen],
                    &mut p[seen],
                );
                p[i + 1..].fill(0.0);
            }
        }
    }

    /// E and Δ from the state before the chunk, `[K, V]`. `reads` of the C + R rows are multiplied with the state: C
    /// where Q S is not wanted.
    #[inline(always)]
    pub(super) fn correct<S: Simd>(&mut self, s: S, keys: &Keys, state: &[f32], reads: usize) {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        let (a, b) = (View::new(&keys.stacked, k), View::new(state, v));
        let c = &mut self.read[..reads * v];
        Product { size: [reads, v, k], a, b, c, accumulate: false }.run(s);
        for i in 0..rows {
            let row = i * v..(i + 1) * v;
            let (decay, beta) = (s.splat(-self.decays.since_start[i]), s.splat(self.beta[i]));
            let e = &mut self.e[row.clone()];
            vector::combine(
                s,
                &self.v[row.clone()],
                &self.read[row.clone()],
                e,
                #[inline(always)]
                |value, read| s.fma(decay, read, value),
            );
            convert(
                s,
                e,
                &mut self.delta[row],
                #[inline(always)]
                |e| s.mul(beta, e),
            );
        }
        solve::forward(View::new(&self.minus_a, CHUNK), &mut self.delta[..rows * v], rows, v);
    }

    /// The output into its rows of `[B, T, H, V]`, after [`Head::correct`] of all rows.
    #[inline(always)]
    pub(super) fn write_output<S: Simd, E: Element>(
        &mut self,
        s: S,
        inputs: &Inputs<E>,
        keys: &Keys,
        head: usize,
        out: &SharedMut<E>,
    ) {
        let Shape { steps, heads, value_width: width, .. } = self.shape;
        let read = &mut self.read[keys.rows * width..][..keys.tokens * width];
        for (i, read) in read.chunks_exact_mut(width).enumerate() {
            vector::scale(s, inputs.scale * self.decays.since_start[keys.read_step(i)], read);
        }
        let (p, delta) = (View::new(&self.p, CHUNK), View::new(&self.delta, width));
        lower_times(s, ([keys.tokens, width], steps), p, delta, read, true);
        for (i, from) in read.chunks_exact(width).enumerate() {
            // SAFETY: the rows of this head and sequence belong to one piece.
            let to = unsafe { out.part(((keys.first + i) * heads + head) * width, width) };
            convert(
                s,
                from,
                to,
                #[inline(always)]
                |x| x,
            );
        }
    }

    /// The state after the chunk in place of the one before.
    #[inline(always)]
    pub(super) fn advance<S: Simd>(&mut self, s: S, keys: &Keys, state: &mut [f32]) {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        self.delta_to_end(s, rows);
        vector::scale(s, self.decays.whole(), state);
        let (a, b) = (View::new(&keys.stacked, k).transposed(), View::new(&self.delta, v));
        Product { size: [k, v, rows], a, b, c: state, accumulate: true }.run(s);
    }

    /// Δ ← e^{ℓ_C − ℓ} ⊙ Δ.
    #[inline(always)]
    pub(super) fn delta_to_end<S: Simd>(&mut self, s: S, rows: usize) {
        let width = self.shape.value_width;
        for (delta, decay) in self.delta.chunks_exact_mut(width).zip(&self.decays.to_end).take(rows)
        {
            vector::scale(s, *decay, delta);
        }
    }
}
