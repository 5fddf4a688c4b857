//! One chunk: the keys that its heads share, and the quantities of the forward pass of one head.

use super::{CHUNK, Inputs, Shape, View};
use crate::cpu::chunk::{Decays, Product, lower_of_product, lower_times};
use crate::cpu::element::{convert, convert_two};
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Element, Simd, vector};
use crate::log_linear::Lambda;
use crate::log_linear::chunks::spread;

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
    /// `[C, V]`: Ṽ; [`Head::add_written`] leaves it scaled by e^{ℓ_C − ℓ}.
    pub(super) values: Vec<f32>,
    /// `[C, CHUNK]`: P, zero above the diagonal.
    pub(super) p: Vec<f32>,
    /// `[C, V]`.
    out: Vec<f32>,
    /// `[C, V]`: Q S.
    found: Vec<f32>,
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
            found: values(),
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

    /// P; of the log-linear form with the λ of a head.
    #[inline(always)]
    pub(super) fn weigh<S: Simd>(&mut self, s: S, keys: &Keys, lambda: Option<(Lambda, usize)>) {
        for i in 0..keys.rows {
            let (seen, p) = (..=i, &mut self.p[i * CHUNK..][..CHUNK]);
            self.decays.between(s, i, p);
            if let Some((lambda, head)) = lambda {
                let mut weights = [0.0; CHUNK];
                spread(lambda.row((keys.first + i) * self.shape.heads + head), i, &mut weights);
                multiply(s, &weights[seen], &mut p[seen]);
            }
            multiply(s, &keys.scores[i * CHUNK..][seen], &mut p[seen]);
            p[i + 1..].fill(0.0);
        }
    }

    /// The output becomes what is read of a state `[K, V]`, e^ℓ_i · `weight`(i) of it at row i, or that is added to it.
    #[inline(always)]
    pub(super) fn read<S: Simd>(
        &mut self,
        s: S,
        keys: &Keys,
        state: &[f32],
        weight: impl Fn(usize) -> f32,
        accumulate: bool,
    ) {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        let found = if accumulate { &mut self.found } else { &mut self.out };
        let (a, b) = (View::new(&keys.q, k), View::new(state, v));
        Product { size: [rows, v, k], a, b, c: &mut found[..rows * v], accumulate: false }.run(s);
        for i in 0..rows {
            let (row, factor) = (i * v..(i + 1) * v, weight(i) * self.decays.since_start[i]);
            if accumulate {
                vector::add_scaled(s, factor, &self.found[row.clone()], &mut self.out[row]);
            } else {
                vector::scale(s, factor, &mut self.out[row]);
            }
        }
    }

    /// The output becomes what the chunk reads of itself, P Ṽ, or that is added to it; the skip is not in it.
    #[inline(always)]
    pub(super) fn read_chunk<S: Simd>(&mut self, s: S, keys: &Keys, accumulate: bool) {
        let (rows, v) = (keys.rows, self.shape.value_width);
        let (p, values) = (View::new(&self.p, CHUNK), View::new(&self.values, v));
        lower_times(s, ([rows, v], 1), p, values, &mut self.out[..rows * v], accumulate);
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

    /// Adds what the chunk writes to a state `[K, V]`.
    #[inline(always)]
    pub(super) fn add_written<S: Simd>(&mut self, s: S, keys: &Keys, state: &mut [f32]) {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        self.values_to_end(s, rows);
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

/// y ← x ⊙ y
#[inline(always)]
pub(super) fn multiply<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    vector::update(
        s,
        x,
        y,
        #[inline(always)]
        |x, y| s.mul(x, y),
    );
}

/// The identity, which [`convert`] takes when it changes the kind only.
#[inline(always)]
pub(super) fn same<V>(x: V) -> V {
    x
}
