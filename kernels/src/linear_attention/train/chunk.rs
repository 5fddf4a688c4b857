//! One chunk: the keys that its heads share, and the quantities of the forward pass of one head.

use super::{CHUNK, Inputs, Shape, View};
use crate::cpu::chunk::{Decays, Product, lower_of_product, lower_times};
use crate::cpu::element::{convert, convert_two};
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Element, Simd, vector};

/// The queries and keys of a chunk. C below is `rows`.
pub(super) struct Keys {
    shape: Shape,
    /// Positions of this chunk, at most [`CHUNK`].
    pub(super) rows: usize,
    /// The first of them, counted over all sequences.
    pub(super) first: usize,
    /// `[C, K]`.
    pub(super) q: Vec<f32>,
    /// `[C, K]`.
    pub(super) k: Vec<f32>,
    /// `[K, CHUNK]`.
    k_transposed: Vec<f32>,
    /// `[C, CHUNK]`: Q Kᵀ, of meaning up to the diagonal.
    pub(super) scores: Vec<f32>,
}

impl Keys {
    pub(super) fn new(shape: Shape) -> Self {
        let keys = || vec![0.0; CHUNK * shape.key_width];
        Self {
            shape,
            rows: 0,
            first: 0,
            q: keys(),
            k: keys(),
            k_transposed: keys(),
            scores: vec![0.0; CHUNK * CHUNK],
        }
    }

    /// Chunk `index` of a sequence.
    #[inline(always)]
    pub(super) fn load<S: Simd, E: Element>(
        &mut self,
        s: S,
        inputs: &Inputs<E>,
        sequence: usize,
        index: usize,
    ) {
        let Shape { tokens, key_width: width, .. } = self.shape;
        self.rows = CHUNK.min(tokens - index * CHUNK);
        self.first = sequence * tokens + index * CHUNK;
        for (i, (q, k)) in self
            .q
            .chunks_exact_mut(width)
            .zip(self.k.chunks_exact_mut(width))
            .take(self.rows)
            .enumerate()
        {
            convert(s, inputs.q.row(self.first + i), q, same);
            convert(s, inputs.k.row(self.first + i), k, same);
        }
        transpose(self.rows, width, View::new(&self.k, width), &mut self.k_transposed, CHUNK);
        let (q, keys) = (View::new(&self.q, width), View::new(&self.k_transposed, CHUNK));
        lower_of_product(s, ([self.rows, width], 1), q, keys, &mut self.scores, CHUNK);
    }
}

/// One head in a chunk.
pub(super) struct Head {
    shape: Shape,
    pub(super) decays: Decays,
    /// `[C, V]`: Ṽ; [`Head::advance`] leaves it scaled by e^{ℓ_C − ℓ}.
    pub(super) values: Vec<f32>,
    /// `[C, CHUNK]`: P, zero above the diagonal.
    pub(super) p: Vec<f32>,
    /// `[C, V]`.
    out: Vec<f32>,
}

impl Head {
    pub(super) fn new(shape: Shape) -> Self {
        let values = || vec![0.0; CHUNK * shape.value_width];
        Self {
            shape,
            decays: Decays::new(),
            values: values(),
            p: vec![0.0; CHUNK * CHUNK],
            out: values(),
        }
    }

    /// Ṽ and the decays.
    #[inline(always)]
    pub(super) fn load<S: Simd, E: Element>(
        &mut self,
        s: S,
        inputs: &Inputs<E>,
        keys: &Keys,
        head: usize,
    ) {
        let Shape { heads, value_width: width, .. } = self.shape;
        let scalar = |i: usize| (keys.first + i) * heads + head;
        self.decays.load(s, (0..keys.rows).map(|i| inputs.g[scalar(i)]));
        for (i, values) in self.values.chunks_exact_mut(width).take(keys.rows).enumerate() {
            let v = inputs.v.part(keys.first + i, head * width, width);
            let scale = s.splat(inputs.v_scale[scalar(i)]);
            convert(
                s,
                v,
                values,
                #[inline(always)]
                |v| s.mul(scale, v),
            );
        }
    }

    /// The output without the skip, from the state before the chunk.
    #[inline(always)]
    pub(super) fn read<S: Simd>(&mut self, s: S, keys: &Keys, state: &[f32]) {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        for (i, (p, scores)) in self
            .p
            .chunks_exact_mut(CHUNK)
            .zip(keys.scores.chunks_exact(CHUNK))
            .take(rows)
            .enumerate()
        {
            self.decays.between(s, i, p);
            vector::update(
                s,
                &scores[..=i],
                &mut p[..=i],
                #[inline(always)]
                |score, gamma| s.mul(score, gamma),
            );
            p[i + 1..].fill(0.0);
        }
        let out = &mut self.out[..rows * v];
        let q = View::new(&keys.q, k);
        Product { size: [rows, v, k], a: q, b: View::new(state, v), c: out, accumulate: false }
            .run(s);
        for (out, decay) in out.chunks_exact_mut(v).zip(&self.decays.since_start) {
            vector::scale(s, *decay, out);
        }
        lower_times(
            s,
            ([rows, v], 1),
            View::new(&self.p, CHUNK),
            View::new(&self.values, v),
            out,
            true,
        );
    }

    /// The output with the skip, into its rows of `[B, T, H, V]`.
    #[inline(always)]
    pub(super) fn write_output<S: Simd, E: Element>(
        &self,
        s: S,
        inputs: &Inputs<E>,
        keys: &Keys,
        head: usize,
        out: &SharedMut<E>,
    ) {
        let Shape { heads, value_width: width, .. } = self.shape;
        let skip = s.splat(inputs.skip[head]);
        for (i, from) in self.out.chunks_exact(width).take(keys.rows).enumerate() {
            let v = inputs.v.part(keys.first + i, head * width, width);
            // SAFETY: the rows of this head and sequence belong to one piece.
            let to = unsafe { out.part(((keys.first + i) * heads + head) * width, width) };
            convert_two(
                s,
                from,
                v,
                to,
                #[inline(always)]
                |from, v| s.fma(skip, v, from),
            );
        }
    }

    /// The state after the chunk in place of the one before.
    #[inline(always)]
    pub(super) fn advance<S: Simd>(&mut self, s: S, keys: &Keys, state: &mut [f32]) {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        self.values_to_end(s, rows);
        vector::scale(s, self.decays.whole(), state);
        let (a, b) = (View::new(&keys.k, k).transposed(), View::new(&self.values, v));
        Product { size: [k, v, rows], a, b, c: state, accumulate: true }.run(s);
    }

    /// Ṽ ← e^{ℓ_C − ℓ} ⊙ Ṽ.
    #[inline(always)]
    pub(super) fn values_to_end<S: Simd>(&mut self, s: S, rows: usize) {
        let width = self.shape.value_width;
        for (values, decay) in
            self.values.chunks_exact_mut(width).zip(&self.decays.to_end).take(rows)
        {
            vector::scale(s, *decay, values);
        }
    }
}

/// The identity, which [`convert`] takes when it changes the kind only.
#[inline(always)]
pub(super) fn same<V>(x: V) -> V {
    x
}
