//! One head in a chunk, solved for whatever states it reads.

use super::super::chunk::{Head, Keys};
use super::super::{Inputs, Shape, solve};
use super::CHUNK;
use crate::cpu::chunk::{Product, lower_times};
use crate::cpu::element::convert;
use crate::cpu::gemm::{Gemm, View};
use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Simd, vector};
use crate::log_linear::Lambda;
use crate::log_linear::chunks::spread;

/// The quantities of the forward pass; C below is the chunk's rows.
pub(super) struct Solved {
    shape: Shape,
    /// Of it V, β, the decays, −A and P.
    pub(super) head: Head,
    /// `[C, CHUNK]`: T, zero above the diagonal.
    pub(super) inverse: Vec<f32>,
    /// `[C, CHUNK]`: D, zero above the diagonal.
    pub(super) dense: Vec<f32>,
    /// `[C, CHUNK]`: D ⊙ Λ, zero above the diagonal.
    pub(super) weighed: Vec<f32>,
    /// `[C, K + V]`: −β e^ℓ ⊙ K, and beside it β ⊙ V.
    pub(super) right: Vec<f32>,
    /// `[C, K + V]`: W, and beside it U.
    pub(super) written: Vec<f32>,
    /// `[C, K]`: R.
    pub(super) reader: Vec<f32>,
    /// `[C, K]`: e^{ℓ_C−ℓ} ⊙ K.
    pub(super) keys_to_end: Vec<f32>,
    /// `[K, K + V]`: M, and beside it what the chunk writes.
    pub(super) step: Vec<f32>,
    /// `[C, V]`
    out: Vec<f32>,
    /// `[C, V]`: R S.
    found: Vec<f32>,
}

impl Solved {
    pub(super) fn new(shape: Shape) -> Self {
        let (k, v) = (shape.key_width, shape.value_width);
        let square = || vec![0.0; CHUNK * CHUNK];
        let rows = |width: usize| vec![0.0; CHUNK * width];
        Self {
            shape,
            head: Head::new(shape),
            inverse: square(),
            dense: square(),
            weighed: square(),
            right: rows(k + v),
            written: rows(k + v),
            reader: rows(k),
            keys_to_end: rows(k),
            step: vec![0.0; k * (k + v)],
            out: rows(v),
            found: rows(v),
        }
    }

    /// K + V.
    pub(super) fn width(&self) -> usize {
        self.shape.key_width + self.shape.value_width
    }

    /// All but what depends on λ or on what comes after the chunk.
    #[inline(always)]
    pub(super) fn load<S: Simd, E: Element>(
        &mut self,
        s: S,
        inputs: &Inputs<E>,
        keys: &Keys,
        head: usize,
    ) {
        let (rows, k, v, width) =
            (keys.rows, self.shape.key_width, self.shape.value_width, self.width());
        self.head.load(s, inputs, keys, head);
        let Head { decays, beta, v: values, minus_a, p, .. } = &self.head;
        self.inverse.fill(0.0);
        for i in 0..rows {
            self.inverse[i * CHUNK + i] = 1.0;
            let (to_keys, to_values) = self.right[i * width..][..width].split_at_mut(k);
            scaled(s, -beta[i] * decays.since_start[i], &keys.stacked[i * k..][..k], to_keys);
            scaled(s, beta[i], &values[i * v..][..v], to_values);
            scaled(
                s,
                inputs.scale * decays.since_start[i],
                &keys.q()[i * k..][..k],
                &mut self.reader[i * k..][..k],
            );
        }
        let inverse = &mut self.inverse[..rows * CHUNK];
        solve::forward(View::new(minus_a, CHUNK), inverse, rows, CHUNK);
        let (p, inverse) = (View::new(p, CHUNK), View::new(&self.inverse, CHUNK));
        lower_times(s, ([rows, CHUNK], 1), p, inverse, &mut self.dense[..rows * CHUNK], false);
        let right = View::new(&self.right, width);
        lower_times(
            s,
            ([rows, width], 1),
            inverse,
            right,
            &mut self.written[..rows * width],
            false,
        );
        let dense = View::new(&self.dense, CHUNK);
        lower_times(s, ([rows, k], 1), dense, right, &mut self.reader[..rows * k], true);
    }

    /// The output becomes what the chunk reads of itself.
    #[inline(always)]
    pub(super) fn read_chunk<S: Simd>(&mut self, s: S, keys: &Keys, lambda: Lambda, head: usize) {
        let (rows, v) = (keys.rows, self.shape.value_width);
        for i in 0..rows {
            let (mut weights, row) = ([0.0; CHUNK], i * CHUNK..i * CHUNK + i + 1);
            spread(lambda.row((keys.first + i) * self.shape.heads + head), i, &mut weights);
            vector::combine(
                s,
                &self.dense[row.clone()],
                &weights[..=i],
                &mut self.weighed[row],
                #[inline(always)]
                |dense, weight| s.mul(dense, weight),
            );
        }
        let weighed = View::new(&self.weighed, CHUNK);
        let written = View::new(&self.right[self.shape.key_width..], self.width());
        lower_times(s, ([rows, v], 1), weighed, written, &mut self.out[..rows * v], false);
    }

    /// Adds to the output what is read of a state, `weight`(i) of it at row i.
    #[inline(always)]
    pub(super) fn read<S: Simd>(
        &mut self,
        s: S,
        keys: &Keys,
        state: &[f32],
        weight: impl Fn(usize) -> f32,
    ) {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        let (a, b, c) =
            (View::new(&self.reader, k), View::new(state, v), &mut self.found[..rows * v]);
        Product { size: [rows, v, k], a, b, c, accumulate: false }.run(s);
        for i in 0..rows {
            let row = i * v..(i + 1) * v;
            vector::add_scaled(s, weight(i), &self.found[row.clone()], &mut self.out[row]);
        }
    }

    /// The output into its rows of `[B, T, H, V]`.
    #[inline(always)]
    pub(super) fn write_output<S: Simd, E: Element>(
        &self,
        s: S,
        keys: &Keys,
        head: usize,
        out: &SharedMut<E>,
    ) {
        let Shape { heads, value_width: width, .. } = self.shape;
        for (i, from) in self.out.chunks_exact(width).take(keys.rows).enumerate() {
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

    /// M and what the chunk writes, for the chunks after it.
    #[inline(always)]
    pub(super) fn form_step<S: Simd>(&mut self, s: S, keys: &Keys) {
        let (rows, k, width) = (keys.rows, self.shape.key_width, self.width());
        for i in 0..rows {
            let (from, to) = (&keys.stacked[i * k..][..k], &mut self.keys_to_end[i * k..][..k]);
            scaled(s, self.head.decays.to_end[i], from, to);
        }
        let a = View::new(&self.keys_to_end, k).transposed();
        let (b, c) = (View::new(&self.written, width), &mut self.step[..]);
        Product { size: [k, width, rows], a, b, c, accumulate: false }.run(s);
        for i in 0..k {
            self.step[i * width + i] += self.head.decays.whole();
        }
    }

    /// The state `to` becomes M · `from`, or that is added to it.
    #[inline(always)]
    pub(super) fn carry<S: Simd>(&self, _: S, from: &[f32], to: &mut [f32], accumulate: bool) {
        let (k, v) = (self.shape.key_width, self.shape.value_width);
        let (a, b) = (View::new(&self.step, self.width()), View::new(from, v));
        Gemm { m: k, n: v, k, a, b, c: to, c_stride: v, accumulate }.run_at(S::LEVEL);
    }

    /// What the chunk writes, into a state.
    pub(super) fn copy_written(&self, to: &mut [f32]) {
        let (k, v) = (self.shape.key_width, self.shape.value_width);
        for (from, to) in self.step.chunks_exact(self.width()).zip(to.chunks_exact_mut(v)) {
            to.copy_from_slice(&from[k..]);
        }
    }
}

/// to ← factor · from
#[inline(always)]
pub(super) fn scaled<S: Simd>(s: S, factor: f32, from: &[f32], to: &mut [f32]) {
    let factor = s.splat(factor);
    convert(
        s,
        from,
        to,
        #[inline(always)]
        |x| s.mul(factor, x),
    );
}
