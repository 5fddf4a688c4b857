//! The backward pass: chunks from the last to the first, the gradients of each head's states carried along.
//!
//! With G the gradient that arrives at O, Z_b the one that arrives at S_b', Z the one at the bucket that ends here, and
//! the letters of the forward pass (`log_linear.rs`; K_ℓ = −β e^ℓ ⊙ K, K_C = e^{ℓ_C−ℓ} ⊙ K, V_β = β ⊙ V):
//!
//! ```text
//! dR = Σ_b λ^(b) ⊙ (G S_bᵀ)      dM = Σ_b Z_b S_bᵀ      dS_b = Rᵀ (λ^(b) ⊙ G) + Mᵀ Z_b
//! F = G V_βᵀ                     dD = F ⊙ Λ + dR K_ℓᵀ                           (i ≥ j)
//! X = Tᵀ K_C [dM, Z]             dP = dD Tᵀ (i ≥ j),  dA = −X [W, U]ᵀ − Dᵀ dP   (i > j)
//! [dK_ℓ, dV_β] = X + [Dᵀ dR, (D ⊙ Λ)ᵀ G]               dK_C = [W, U] [dM, Z]ᵀ
//! dλ_i[b] = R_i·(G S_bᵀ)_i       dλ_i[level(i, j)] += F_ij D_ij
//! ```
//! From there on it is the plain rule's: dA and dP give to dQ, dK, dβ and dg as in its backward pass.

use super::super::backward::{KeyGradients, through_scores};
use super::super::chunk::Keys;
use super::super::{Inputs, Shape};
use super::chunk::{Solved, scaled};
use super::{CHUNK, Partition, Seen, check};
use crate::cpu::chunk::{LogGradients, Product, lower_of_product, lower_transposed_times};
use crate::cpu::element::{Rows, convert};
use crate::cpu::gemm::{Gemm, View};
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Element, Kernel, Parallel, Simd, run, vector};
use crate::log_linear::Lambda;
use crate::log_linear::chunks::{spans, spread};

/// Where the gradients go: those of the plain rule, and λ's. Everything is overwritten.
#[derive(Debug)]
pub struct Gradients<'a, E> {
    /// Of the plain rule's inputs.
    pub inputs: super::super::Gradients<'a, E>,
    /// `[B, T, H, L]`.
    pub lambda: &'a mut [f32],
}

/// Gradients from `d_out`, B·T rows of `[H, V]`, and the `states` that [`super::forward`] kept.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn backward<E: Element>(
    inputs: &Inputs<E>,
    lambda: Lambda,
    states: &[f32],
    d_out: Rows<E>,
    gradients: &mut Gradients<E>,
    parallel: Parallel,
) {
    check(inputs, lambda, states);
    let shape = inputs.shape;
    let Gradients { inputs: d, lambda: d_lambda } = gradients;
    d.check(inputs);
    assert_eq!(
        d_out.width(),
        shape.heads * shape.value_width,
        "log-linear delta rule: rows of d_out must be [H, V]"
    );
    assert_eq!(d_lambda.len(), lambda.values.len(), "log-linear: dlambda must be [B, T, H, L]");
    d_lambda.fill(0.0);
    let to = &Shared {
        q: SharedMut::new(d.q),
        k: SharedMut::new(d.k),
        v: SharedMut::new(d.v),
        g: SharedMut::new(d.g),
        beta: SharedMut::new(d.beta),
        lambda: SharedMut::new(d_lambda),
    };
    let partition = &Partition::new(shape, lambda.levels);
    parallel(shape.batch * shape.key_heads, &|piece| {
        run(Backward { inputs, lambda, partition, states, d_out, to, piece });
    });
}

/// What several threads write.
struct Shared<'a, E> {
    q: SharedMut<'a, E>,
    k: SharedMut<'a, E>,
    v: SharedMut<'a, E>,
    g: SharedMut<'a>,
    beta: SharedMut<'a>,
    lambda: SharedMut<'a>,
}

/// `piece` = sequence · key heads + key head.
struct Backward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
    lambda: Lambda<'a>,
    partition: &'a Partition,
    states: &'a [f32],
    d_out: Rows<'a, E>,
    to: &'a Shared<'a, E>,
    piece: usize,
}

impl<E: Element> Kernel for Backward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { inputs, lambda, partition, states, d_out, to, piece } = self;
        let shape = inputs.shape;
        let (sequence, key_head) = (piece / shape.key_heads, piece % shape.key_heads);
        let len = partition.states * shape.state_len();
        let mut keys = Keys::new(shape);
        let mut scratch = Scratch::new(shape);
        // of each head the gradients of the states that the chunk sees, the nearest bucket first
        let mut heads: Vec<Vec<Vec<f32>>> = vec![Vec::new(); shape.group()];
        for (index, seen) in partition.chunks.iter().enumerate().rev() {
            keys.load(s, inputs, sequence, key_head, index);
            scratch.sums.clear();
            for (h, z) in (key_head * shape.group()..).zip(&mut heads) {
                let states = &states[(sequence * shape.heads + h) * len..][..len];
                let states = &states[seen.first * shape.state_len()..];
                let head = OfHead { keys: &keys, lambda, seen, states, head: h };
                scratch.load(s, inputs, &head, d_out);
                *z = scratch.through_step(s, &head, std::mem::take(z));
                scratch.through_reads(s, &head, z, to);
                scratch.through_chunk(s, inputs.scale, &head, to);
                scratch.write(s, &keys, h, to);
            }
            scratch.sums.write(s, inputs, &keys, key_head, (&to.q, &to.k));
        }
    }
}

/// A head in a chunk.
struct OfHead<'a> {
    keys: &'a Keys,
    lambda: Lambda<'a>,
    seen: &'a Seen,
    /// Of the buckets that are seen, one after the other.
    states: &'a [f32],
    head: usize,
}

impl OfHead<'_> {
    /// The row of λ of row `i`.
    fn row(&self, i: usize, heads: usize) -> usize {
        (self.keys.first + i) * heads + self.head
    }
}

/// The quantities of the backward pass of one chunk; all but the sums are of one head.
struct Scratch {
    shape: Shape,
    solved: Solved,
    sums: KeyGradients,
    /// `[C, V]`: G.
    d_out: Vec<f32>,
    /// `[C, V]`: λ ⊙ G.
    d_found: Vec<f32>,
    /// `[C, K]`: dR.
    d_reader: Vec<f32>,
    /// `[C, K]`: G Sᵀ, then dK_ℓ without X, then dK_C.
    d_rows: Vec<f32>,
    /// `[K, K + V]`: dM, and beside it Z.
    d_step: Vec<f32>,
    /// `[K + V, K]`: its transpose.
    d_step_transposed: Vec<f32>,
    /// `[V, K]`: Sᵀ, or the sum of those of several buckets.
    state_transposed: Vec<f32>,
    /// `[K, V]`: the sum of the states of several buckets.
    state: Vec<f32>,
    /// `[C, K + V]`: K_C [dM, Z].
    d_solved: Vec<f32>,
    /// `[C, K + V]`: X.
    d_right: Vec<f32>,
    /// `[K + V, CHUNK]`: [K_ℓ, V_β]ᵀ, then [W, U]ᵀ.
    transposed: Vec<f32>,
    /// `[C, CHUNK]`: Tᵀ.
    inverse_transposed: Vec<f32>,
    /// `[C, CHUNK]`: F.
    d_weighed: Vec<f32>,
    /// `[C, CHUNK]`: dD, zero above the diagonal.
    d_dense: Vec<f32>,
    /// `[C, CHUNK]`
    d_p: Vec<f32>,
    /// `[C, CHUNK]`: −dA.
    minus_d_a: Vec<f32>,
    /// `[C, V]`
    d_v: Vec<f32>,
    /// `[C]`
    d_beta: [f32; CHUNK],
    d_log: LogGradients,
    through_whole: f32,
}

impl Scratch {
    fn new(shape: Shape) -> Self {
        let (k, v) = (shape.key_width, shape.value_width);
        let rows = |width: usize| vec![0.0; CHUNK * width];
        let square = || rows(CHUNK);
        Self {
            shape,
            solved: Solved::new(shape),
            sums: KeyGradients::new(shape),
            d_out: rows(v),
            d_found: rows(v),
            d_reader: rows(k),
            d_rows: rows(k),
            d_step: vec![0.0; k * (k + v)],
            d_step_transposed: vec![0.0; k * (k + v)],
            state_transposed: vec![0.0; k * v],
            state: vec![0.0; k * v],
            d_solved: rows(k + v),
            d_right: rows(k + v),
            transposed: rows(k + v),
            inverse_transposed: square(),
            d_weighed: square(),
            d_dense: square(),
            d_p: square(),
            minus_d_a: square(),
            d_v: rows(v),
            d_beta: [0.0; CHUNK],
            d_log: LogGradients::new(),
            through_whole: 0.0,
        }
    }

    /// G and the forward pass.
    #[inline(always)]
    fn load<S: Simd, E: Element>(&mut self, s: S, inputs: &Inputs<E>, at: &OfHead, d_out: Rows<E>) {
        let width = self.shape.value_width;
        self.solved.load(s, inputs, at.keys, at.head);
        self.solved.form_step(s, at.keys);
        for (i, to) in self.d_out.chunks_exact_mut(width).take(at.keys.rows).enumerate() {
            convert(
                s,
                d_out.part(at.keys.first + i, at.head * width, width),
                to,
                #[inline(always)]
                |x| x,
            );
        }
    }

    /// From the gradients of the states that the next chunk sees to what they give to those that this one sees, and to M
    /// and what the chunk writes. After the last chunk there are none.
    #[inline(always)]
    fn through_step<S: Simd>(&mut self, s: S, at: &OfHead, after: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
        let (k, v, len) = (self.shape.key_width, self.shape.value_width, self.shape.state_len());
        let (width, Seen { buckets, absorbed, .. }) = (k + v, at.seen);
        self.d_step.fill(0.0);
        let mut after = after.into_iter();
        let Some(z) = after.next() else { return vec![vec![0.0; len]; buckets.len()] };
        for (to, from) in self.d_step.chunks_exact_mut(width).zip(z.chunks_exact(v)) {
            to[k..].copy_from_slice(from);
        }
        let mut before = Vec::with_capacity(buckets.len());
        if *absorbed > 0 {
            let (first, others) = at.states[..absorbed * len].split_at(len);
            self.state.copy_from_slice(first);
            for state in others.chunks_exact(len) {
                vector::add_scaled(s, 1.0, state, &mut self.state);
            }
            transpose(k, v, View::new(&self.state, v), &mut self.state_transposed, k);
            let z = self.back(s, &z);
            before = vec![z; *absorbed];
        }
        for (state, z) in at.states.chunks_exact(len).skip(*absorbed).zip(after) {
            transpose(k, v, View::new(state, v), &mut self.state_transposed, k);
            before.push(self.back(s, &z));
        }
        before
    }

    /// Mᵀ Z; adds Z Sᵀ to dM.
    #[inline(always)]
    fn back<S: Simd>(&mut self, _: S, z: &[f32]) -> Vec<f32> {
        let (k, v) = (self.shape.key_width, self.shape.value_width);
        let width = k + v;
        let (a, b) = (View::new(z, v), View::new(&self.state_transposed, k));
        let c = &mut self.d_step[..];
        Gemm { m: k, n: k, k: v, a, b, c, c_stride: width, accumulate: true }.run_at(S::LEVEL);
        let mut before = vec![0.0; k * v];
        let a = View::new(&self.solved.step, width).transposed();
        let (b, c) = (View::new(z, v), &mut before[..]);
        Gemm { m: k, n: v, k, a, b, c, c_stride: v, accumulate: false }.run_at(S::LEVEL);
        before
    }

    /// What the chunk reads of the buckets: dR, dλ, and what is added to the gradients `z` of their states.
    #[inline(always)]
    fn through_reads<S: Simd, E: Element>(
        &mut self,
        s: S,
        at: &OfHead,
        z: &mut [Vec<f32>],
        to: &Shared<E>,
    ) {
        let Shape { heads, key_width: k, value_width: v, .. } = self.shape;
        let (rows, levels) = (at.keys.rows, at.lambda.levels);
        self.d_reader.fill(0.0);
        let each = at.states.chunks_exact(k * v).zip(&at.seen.buckets).zip(z);
        for ((state, bucket), z) in each {
            transpose(k, v, View::new(state, v), &mut self.state_transposed, k);
            let (a, b) = (View::new(&self.d_out, v), View::new(&self.state_transposed, k));
            let c = &mut self.d_rows[..rows * k];
            Product { size: [rows, k, v], a, b, c, accumulate: false }.run(s);
            for i in 0..rows {
                let (row, at_row) = (i * k..(i + 1) * k, at.row(i, heads));
                let read = &self.d_rows[row.clone()];
                let found = vector::dot(s, read, &self.solved.reader[row.clone()]);
                // SAFETY: the rows of this head and sequence belong to one piece.
                unsafe { to.lambda.part(at_row * levels, levels)[bucket.level] += found };
                let weight = at.lambda.row(at_row)[bucket.level];
                vector::add_scaled(s, weight, read, &mut self.d_reader[row]);
                let row = i * v..(i + 1) * v;
                scaled(s, weight, &self.d_out[row.clone()], &mut self.d_found[row]);
            }
            let (a, b) =
                (View::new(&self.solved.reader, k).transposed(), View::new(&self.d_found, v));
            Product { size: [k, v, rows], a, b, c: z, accumulate: true }.run(s);
        }
    }

    /// The gradients of a head's inputs from those of G, R, M and what the chunk writes.
    #[inline(always)]
    fn through_chunk<S: Simd, E: Element>(
        &mut self,
        s: S,
        scale: f32,
        at: &OfHead,
        to: &Shared<E>,
    ) {
        let (rows, k, v) = (at.keys.rows, self.shape.key_width, self.shape.value_width);
        let width = k + v;
        self.through_dense(s, at, to);
        // dP and −dA
        let solved = &self.solved;
        let (inverse, d_dense) =
            (View::new(&solved.inverse, CHUNK), View::new(&self.d_dense, CHUNK));
        transpose(rows, rows, inverse, &mut self.inverse_transposed, CHUNK);
        let transposed = View::new(&self.inverse_transposed, CHUNK);
        lower_of_product(s, ([rows, rows], 1), d_dense, transposed, &mut self.d_p, CHUNK);
        let (a, b) = (View::new(&solved.keys_to_end, k), View::new(&self.d_step, width));
        let c = &mut self.d_solved[..rows * width];
        Product { size: [rows, width, k], a, b, c, accumulate: false }.run(s);
        let (d_solved, d_right) =
            (View::new(&self.d_solved, width), &mut self.d_right[..rows * width]);
        lower_transposed_times(s, ([rows, width], 1), inverse, d_solved, d_right, false);
        transpose(rows, width, View::new(&solved.written, width), &mut self.transposed, CHUNK);
        let (a, b) = (View::new(&self.d_right, width), View::new(&self.transposed, CHUNK));
        lower_of_product(s, ([rows, width], 1), a, b, &mut self.minus_d_a, CHUNK);
        let (dense, d_p) = (View::new(&solved.dense, CHUNK), View::new(&self.d_p, CHUNK));
        let minus_d_a = &mut self.minus_d_a[..rows * CHUNK];
        lower_transposed_times(s, ([rows, CHUNK], 1), dense, d_p, minus_d_a, true);
        // dK_ℓ and dV_β without X
        let d_reader = View::new(&self.d_reader, k);
        lower_transposed_times(
            s,
            ([rows, k], 1),
            dense,
            d_reader,
            &mut self.d_rows[..rows * k],
            false,
        );
        let (weighed, d_out) = (View::new(&solved.weighed, CHUNK), View::new(&self.d_out, v));
        lower_transposed_times(s, ([rows, v], 1), weighed, d_out, &mut self.d_v[..rows * v], false);
        self.d_log.clear();
        for i in (0..rows).rev() {
            self.through_row(s, scale, at.keys, i);
        }
        self.through_ends(s, at.keys);
        self.d_log.finish(rows, self.through_whole);
    }

    /// F, dD and what D ⊙ Λ gives to dλ.
    #[inline(always)]
    fn through_dense<S: Simd, E: Element>(&mut self, s: S, at: &OfHead, to: &Shared<E>) {
        let Shape { heads, key_width: k, value_width: v, .. } = self.shape;
        let (rows, width, levels) = (at.keys.rows, k + v, at.lambda.levels);
        let right = View::new(&self.solved.right, width);
        transpose(rows, width, right, &mut self.transposed, CHUNK);
        let transposed = View::new(&self.transposed, CHUNK);
        let (d_out, d_reader) = (View::new(&self.d_out, v), View::new(&self.d_reader, k));
        let values = transposed.from_row(k);
        lower_of_product(s, ([rows, v], 1), d_out, values, &mut self.d_weighed, CHUNK);
        lower_of_product(s, ([rows, k], 1), d_reader, transposed, &mut self.d_dense, CHUNK);
        for i in 0..rows {
            let (row, at_row) = (i * CHUNK..i * CHUNK + i + 1, at.row(i, heads));
            let mut weights = [0.0; CHUNK];
            let weights = &mut weights[..=i];
            let d_weighed = &self.d_weighed[row.clone()];
            vector::combine(
                s,
                d_weighed,
                &self.solved.dense[row.clone()],
                weights,
                #[inline(always)]
                |d, dense| s.mul(d, dense),
            );
            // SAFETY: the rows of this head and sequence belong to one piece.
            let d_lambda = unsafe { to.lambda.part(at_row * levels, levels) };
            for (level, columns) in spans(i, levels) {
                d_lambda[level] += vector::sum(s, &weights[columns]);
            }
            spread(at.lambda.row(at_row), i, weights);
            let dense = &self.solved.dense[row.clone()];
            vector::combine(
                s,
                dense,
                weights,
                &mut self.solved.weighed[row.clone()],
                #[inline(always)]
                |dense, weight| s.mul(dense, weight),
            );
            // F ⊙ Λ
            vector::update(
                s,
                d_weighed,
                weights,
                #[inline(always)]
                |d, weight| s.mul(d, weight),
            );
            vector::add_scaled(s, 1.0, weights, &mut self.d_dense[row]);
            self.d_dense[i * CHUNK + i + 1..][..CHUNK - i - 1].fill(0.0);
        }
    }

    /// What −dA, dP, dK_ℓ, dV_β and dR of row i give to its inputs and to the scores.
    #[inline(always)]
    fn through_row<S: Simd>(&mut self, s: S, scale: f32, keys: &Keys, i: usize) {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        let (head, right) = (&mut self.solved.head, &self.solved.right[i * (k + v)..][..k]);
        let (beta, since_start) = (head.beta[i], head.decays.since_start[i]);
        let (of_keys, of_values) = (i * k..(i + 1) * k, i * v..(i + 1) * v);
        let (x_keys, x_values) = self.d_right[i * (k + v)..][..k + v].split_at(k);
        let (d_k, d_q) = self.sums.d_keys.split_at_mut(rows * k);
        // through V_β
        let d_v = &mut self.d_v[of_values.clone()];
        vector::add_scaled(s, 1.0, x_values, d_v);
        let mut d_beta = vector::dot(s, d_v, &head.v[of_values]);
        vector::scale(s, beta, d_v);
        // through K_ℓ
        let d_row = &mut self.d_rows[of_keys.clone()];
        vector::add_scaled(s, 1.0, x_keys, d_row);
        d_beta -= since_start * vector::dot(s, d_row, &keys.stacked[of_keys.clone()]);
        self.d_log.since_start[i] = vector::dot(s, d_row, right);
        vector::add_scaled(s, -beta * since_start, d_row, &mut d_k[of_keys.clone()]);
        // through R
        let d_reader = &self.d_reader[of_keys.clone()];
        let q = &keys.q()[of_keys.clone()];
        self.d_log.since_start[i] += scale * since_start * vector::dot(s, d_reader, q);
        vector::add_scaled(s, scale * since_start, d_reader, &mut d_q[of_keys]);
        // through A and P
        head.decays.between(s, i, &mut head.gamma);
        let row = i * CHUNK..i * CHUNK + i;
        d_beta -= through_scores(
            s,
            -beta,
            &head.gamma[..i],
            &keys.kk[row.clone()],
            &self.minus_d_a[row.clone()],
            (&mut self.sums.d_kk[row], &mut self.d_log.columns[..i]),
        );
        let row = i * CHUNK..i * CHUNK + i + 1;
        through_scores(
            s,
            scale,
            &head.gamma[..=i],
            &keys.qk[row.clone()],
            &self.d_p[row.clone()],
            (&mut self.sums.d_qk[row], &mut self.d_log.columns[..=i]),
        );
        self.d_beta[i] = d_beta;
        self.d_log.close_row(s, i);
    }

    /// What dM and Z give to dK and to the logarithms of the decays to the chunk's end.
    #[inline(always)]
    fn through_ends<S: Simd>(&mut self, s: S, keys: &Keys) {
        let (rows, k, width) = (keys.rows, self.shape.key_width, self.solved.width());
        let decays = &self.solved.head.decays;
        self.through_whole =
            decays.whole() * (0..k).map(|i| self.d_step[i * width + i]).sum::<f32>();
        transpose(k, width, View::new(&self.d_step, width), &mut self.d_step_transposed, k);
        let (a, b) =
            (View::new(&self.solved.written, width), View::new(&self.d_step_transposed, k));
        let c = &mut self.d_rows[..rows * k];
        Product { size: [rows, k, width], a, b, c, accumulate: false }.run(s);
        for i in 0..rows {
            let row = i * k..(i + 1) * k;
            let d_row = &self.d_rows[row.clone()];
            self.d_log.to_end[i] = vector::dot(s, d_row, &self.solved.keys_to_end[row.clone()]);
            vector::add_scaled(s, decays.to_end[i], d_row, &mut self.sums.d_keys[row]);
        }
    }

    /// dV, dg and dβ of a head.
    #[inline(always)]
    fn write<S: Simd, E: Element>(&self, s: S, keys: &Keys, head: usize, to: &Shared<E>) {
        let Shape { heads, value_width: width, .. } = self.shape;
        for i in 0..keys.rows {
            let row = (keys.first + i) * heads + head;
            // SAFETY: the rows of this head and sequence belong to one piece.
            let (d_v, d_beta, d_g) =
                unsafe { (to.v.part(row * width, width), to.beta.part(row, 1), to.g.part(row, 1)) };
            (d_beta[0], d_g[0]) = (self.d_beta[i], self.d_log.g[i]);
            convert(
                s,
                &self.d_v[i * width..][..width],
                d_v,
                #[inline(always)]
                |x| x,
            );
        }
    }
}
