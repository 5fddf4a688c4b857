//! One block of a head: its decays, its weights of pairs, and the quantities of the forward pass.

use super::extents::{BLOCK, Inputs, Shape};
use super::pairs;
use crate::cpu::chunk::Product;
use crate::cpu::element::convert;
use crate::cpu::gemm::View;
use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Simd, vector};
use crate::delta_rule::train::solve;
use crate::norm::L2_EPS;

/// A block, used again from block to block. C below is `rows`.
pub(super) struct Block {
    shape: Shape,
    /// Positions of this block.
    pub(super) rows: usize,
    /// The first of them, counted over all sequences.
    pub(super) first: usize,
    /// `[C, K]`, as the rule uses it.
    pub(super) q: Vec<f32>,
    /// `[C, K]`, as the rule uses it.
    pub(super) k: Vec<f32>,
    /// What q and k were multiplied by to be of unit norm, 1 without that.
    pub(super) factors: [[f32; 2]; BLOCK],
    /// `[C, K]`: a, the decays.
    pub(super) decays: Vec<f32>,
    /// `[C, K]`: D, what is left at a position of the state before the block.
    pub(super) since_start: Vec<f32>,
    /// `[C, K]`: T, what is left of a position after the block.
    pub(super) to_end: Vec<f32>,
    /// `[K]`: w, what is left of the state before the block after it.
    pub(super) whole: Vec<f32>,
    /// `[2C, K]`: −D ⊙ K, and below it scale · D ⊙ Q.
    pub(super) readers: Vec<f32>,
    /// `[C, K]`: T ⊙ K.
    pub(super) writers: Vec<f32>,
    pub(super) beta: [f32; BLOCK],
    /// `[C, V]`: V, and E after [`Block::correct`].
    pub(super) e: Vec<f32>,
    /// `[C, V]`: Δ.
    pub(super) delta: Vec<f32>,
    /// `[C, BLOCK]`: A without β below the diagonal.
    pub(super) kk: [f32; BLOCK * BLOCK],
    /// `[C, BLOCK]`: −A below the diagonal.
    pub(super) minus_a: [f32; BLOCK * BLOCK],
    /// `[C, BLOCK]`: P, zero above the diagonal.
    pub(super) p: [f32; BLOCK * BLOCK],
    /// `[C, V]`: the output.
    out: Vec<f32>,
    /// `[K, BLOCK]`: what [`pairs::weights`] goes on from row to row.
    decayed_keys: Vec<f32>,
    /// `[K]`: Σ g.
    log_whole: Vec<f64>,
}

impl Block {
    pub(super) fn new(shape: Shape) -> Self {
        let keys = || vec![0.0; BLOCK * shape.key_width];
        let values = || vec![0.0; BLOCK * shape.value_width];
        let square = || [0.0; BLOCK * BLOCK];
        Self {
            shape,
            rows: 0,
            first: 0,
            q: keys(),
            k: keys(),
            factors: [[1.0; 2]; BLOCK],
            decays: keys(),
            since_start: keys(),
            to_end: keys(),
            whole: vec![0.0; shape.key_width],
            readers: vec![0.0; 2 * BLOCK * shape.key_width],
            writers: keys(),
            beta: [0.0; BLOCK],
            e: values(),
            delta: values(),
            kk: square(),
            minus_a: square(),
            p: square(),
            out: values(),
            decayed_keys: keys(),
            log_whole: vec![0.0; shape.key_width],
        }
    }

    /// The block of a head of a sequence that begins at `position`: all that does not ask for the state.
    #[inline(always)]
    pub(super) fn load<S: Simd, E: Element>(
        &mut self,
        s: S,
        inputs: &Inputs<E>,
        sequence: usize,
        head: usize,
        position: usize,
    ) {
        let Shape { tokens, heads, key_width, value_width, .. } = self.shape;
        self.rows = BLOCK.min(tokens - position);
        self.first = sequence * tokens + position;
        for i in 0..self.rows {
            let row = self.first + i;
            let keys = i * key_width..(i + 1) * key_width;
            let each = [(inputs.q, &mut self.q), (inputs.k, &mut self.k)];
            for ((from, to), factor) in each.into_iter().zip(&mut self.factors[i]) {
                let to = &mut to[keys.clone()];
                copy(s, from.part(row, head * key_width, key_width), to);
                if inputs.normalise {
                    *factor = 1.0 / (vector::dot(s, to, to) + L2_EPS as f32).sqrt();
                    vector::scale(s, *factor, to);
                }
            }
            let values = inputs.v.part(row, head * value_width, value_width);
            copy(s, values, &mut self.e[i * value_width..][..value_width]);
            self.beta[i] = inputs.beta[row * heads + head];
        }
        self.load_decays(s, inputs, head);
        self.decay_keys(s, inputs.scale);
        pairs::weights(
            s,
            [self.rows, key_width],
            [&self.q, &self.k, &self.decays],
            &mut self.decayed_keys,
            [&mut self.p, &mut self.kk],
        );
        for i in 0..self.rows {
            let row = i * BLOCK..(i + 1) * BLOCK;
            vector::scale(s, inputs.scale, &mut self.p[row.clone()]);
            let minus_beta = s.splat(-self.beta[i]);
            convert(
                s,
                &self.kk[row.clone()],
                &mut self.minus_a[row],
                #[inline(always)]
                |weight| s.mul(minus_beta, weight),
            );
        }
    }

    /// a, D, T and w.
    #[inline(always)]
    fn load_decays<S: Simd, E: Element>(&mut self, s: S, inputs: &Inputs<E>, head: usize) {
        let (rows, width) = (self.rows, self.shape.key_width);
        self.log_whole.fill(0.0);
        for (i, decays) in self.decays.chunks_exact_mut(width).enumerate().take(rows) {
            let g = inputs.g.part(self.first + i, head * width, width);
            for (sum, g) in self.log_whole.iter_mut().zip(g) {
                *sum += f64::from(*g);
            }
            convert(
                s,
                g,
                decays,
                #[inline(always)]
                |g| s.exp(g),
            );
        }
        for (whole, sum) in self.whole.iter_mut().zip(&self.log_whole) {
            *whole = *sum as f32;
        }
        vector::map(
            s,
            &mut self.whole,
            #[inline(always)]
            |g| s.exp(g),
        );
        self.since_start[..width].copy_from_slice(&self.decays[..width]);
        for i in 1..rows {
            let (before, from) = self.since_start.split_at_mut(i * width);
            multiply(
                s,
                &before[(i - 1) * width..],
                &self.decays[i * width..][..width],
                &mut from[..width],
            );
        }
        self.to_end[(rows - 1) * width..][..width].fill(1.0);
        for i in (1..rows).rev() {
            let (before, after) = self.to_end.split_at_mut(i * width);
            let to = &mut before[(i - 1) * width..];
            multiply(s, &after[..width], &self.decays[i * width..][..width], to);
        }
    }

    /// Keys and queries as they meet the states at both ends.
    #[inline(always)]
    fn decay_keys<S: Simd>(&mut self, s: S, scale: f32) {
        let len = self.rows * self.shape.key_width;
        let (of_keys, of_queries) = self.readers[..2 * len].split_at_mut(len);
        for (x, sign, to) in [(&self.k, -1.0, of_keys), (&self.q, scale, of_queries)] {
            let sign = s.splat(sign);
            vector::combine(
                s,
                &self.since_start[..len],
                &x[..len],
                to,
                #[inline(always)]
                |decay, x| s.mul(sign, s.mul(decay, x)),
            );
        }
        multiply(s, &self.to_end[..len], &self.k[..len], &mut self.writers[..len]);
    }

    /// E and Δ from the state before the block, `[K, V]`; once after each [`Block::load`].
    #[inline(always)]
    pub(super) fn correct<S: Simd>(&mut self, s: S, state: &[f32]) {
        let (rows, k, v) = (self.rows, self.shape.key_width, self.shape.value_width);
        let (a, b) = (View::new(&self.readers, k), View::new(state, v));
        let e = &mut self.e[..rows * v];
        Product { size: [rows, v, k], a, b, c: e, accumulate: true }.run(s);
        for i in 0..rows {
            let (row, beta) = (i * v..(i + 1) * v, s.splat(self.beta[i]));
            convert(
                s,
                &self.e[row.clone()],
                &mut self.delta[row],
                #[inline(always)]
                |e| s.mul(beta, e),
            );
        }
        let minus_a = View::new(&self.minus_a, BLOCK);
        solve::forward(minus_a, &mut self.delta[..rows * v], rows, v);
    }

    /// The output into its rows of `[B, T, H, V]`, after [`Block::correct`].
    #[inline(always)]
    pub(super) fn write_output<S: Simd, E: Element>(
        &mut self,
        s: S,
        head: usize,
        state: &[f32],
        out: &SharedMut<E>,
    ) {
        let (rows, k, v) = (self.rows, self.shape.key_width, self.shape.value_width);
        let (a, b) = (View::new(&self.readers, k).from_row(rows), View::new(state, v));
        let c = &mut self.out[..rows * v];
        Product { size: [rows, v, k], a, b, c, accumulate: false }.run(s);
        let (a, b) = (View::new(&self.p, BLOCK), View::new(&self.delta, v));
        let c = &mut self.out[..rows * v];
        Product { size: [rows, v, rows], a, b, c, accumulate: true }.run(s);
        for (i, from) in self.out.chunks_exact(v).enumerate().take(rows) {
            // SAFETY: the rows of this head and sequence belong to one piece.
            let to = unsafe { out.part(((self.first + i) * self.shape.heads + head) * v, v) };
            copy(s, from, to);
        }
    }

    /// The state after the block in place of the one before.
    #[inline(always)]
    pub(super) fn advance<S: Simd>(&self, s: S, state: &mut [f32]) {
        let (rows, k, v) = (self.rows, self.shape.key_width, self.shape.value_width);
        self.decay_state(s, state);
        let (a, b) = (View::new(&self.writers, k).transposed(), View::new(&self.delta, v));
        Product { size: [k, v, rows], a, b, c: state, accumulate: true }.run(s);
    }

    /// S ← Diag(w) S.
    #[inline(always)]
    pub(super) fn decay_state<S: Simd>(&self, s: S, state: &mut [f32]) {
        for (row, decay) in state.chunks_exact_mut(self.shape.value_width).zip(&self.whole) {
            vector::scale(s, *decay, row);
        }
    }
}

/// From one kind of numbers to another.
#[inline(always)]
pub(super) fn copy<S: Simd, A: Element, B: Element>(s: S, from: &[A], to: &mut [B]) {
    convert(
        s,
        from,
        to,
        #[inline(always)]
        |x| x,
    );
}

/// out ← x ⊙ y
#[inline(always)]
fn multiply<S: Simd>(s: S, x: &[f32], y: &[f32], out: &mut [f32]) {
    vector::combine(
        s,
        x,
        y,
        out,
        #[inline(always)]
        |x, y| s.mul(x, y),
    );
}
