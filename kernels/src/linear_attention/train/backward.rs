//! The backward pass: chunks from the last to the first, the gradients of each head's states carried along.
//!
//! With G the gradient that arrives at O, Z the one that arrives at S', and the letters of the forward pass
//! (`train.rs`), sums over the heads in dQ and dK:
//!
//! ```text
//! dP = G Ṽᵀ                       dṼ = e^{ℓ_C−ℓ} ⊙ (K Z) + Pᵀ G
//! dQ = Σ (dP ⊙ Γ) K + (e^ℓ ⊙ G) Sᵀ        dK = Σ (dP ⊙ Γ)ᵀ Q + (e^{ℓ_C−ℓ} ⊙ Ṽ) Zᵀ
//! dV = a ⊙ dṼ + D G      da_i = V_i·dṼ_i      dD = Σ_i V_i·G_i      dS = e^{ℓ_C} Z + Qᵀ (e^ℓ ⊙ G)
//! ```
//! dg collects, from each of these, the product of a decayed quantity and its gradient: see [`LogGradients`].
//!
//! Log-linear, λ is a factor of what it weighs: G becomes λ^(b) ⊙ G where bucket b is read, Γ becomes Γ ⊙ Λ with
//! Λ_ij = λ_i[level(i, j)], and dλ collects what is weighed: q_i S_b·G_i and Γ_ij q_i·k_j (G Ṽᵀ)_ij. The gradient of a
//! bucket's state is complete at the chunk that closes it, and goes on to the buckets that are in it.

use super::chunk::{Head, Keys, multiply, same};
use super::reads::Reads;
use super::rule::{Fading, Rule};
use super::{CHUNK, Inputs, Piece, Shape, View};
use crate::cpu::chunk::{
    LogGradients, Product, lower_of_product, lower_times, lower_transposed_times,
};
use crate::cpu::element::{convert, convert_two};
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Element, Kernel, Parallel, Rows, Simd, run, vector};
use crate::log_linear::Lambda;
use crate::log_linear::chunks::{Bucket, spans, spread};

/// Where the gradients go, each of the shape of its input, without gaps. Everything is overwritten.
#[derive(Debug)]
pub struct Gradients<'a, E> {
    /// `[B, T, K]`.
    pub q: &'a mut [E],
    /// `[B, T, K]`.
    pub k: &'a mut [E],
    /// `[B, T, H, V]`.
    pub v: &'a mut [E],
    /// `[B, T, H]`.
    pub v_scale: &'a mut [f32],
    /// `[B, T, H]`.
    pub g: &'a mut [f32],
    /// `[H]`.
    pub skip: &'a mut [f32],
}

/// Gradients from `d_out`, B·T rows of H·V, and the `states` that [`super::forward`] kept.
///
/// `d_state` `[B, H, K, V]` is the gradient that arrives at the last state, and is left as the one of the first.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn backward<E: Element>(
    inputs: &Inputs<E>,
    states: &[f32],
    d_out: Rows<E>,
    d_state: &mut [f32],
    gradients: &mut Gradients<E>,
    parallel: Parallel,
) {
    let shape = inputs.shape;
    assert_eq!(
        d_state.len(),
        shape.batch * shape.heads * shape.state_len(),
        "linear attention: d_state must be [B, H, K, V]"
    );
    let rule = Rule { inputs, lambda: None };
    backward_of(rule, states, d_out, (Some(d_state), None), gradients, parallel);
}

/// As [`backward`], of [`super::forward_log_linear`]; `d_lambda` `[B, T, H, L]` is overwritten.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn backward_log_linear<E: Element>(
    inputs: &Inputs<E>,
    lambda: Lambda,
    states: &[f32],
    d_out: Rows<E>,
    d_lambda: &mut [f32],
    gradients: &mut Gradients<E>,
    parallel: Parallel,
) {
    assert_eq!(d_lambda.len(), lambda.values.len(), "log-linear: dlambda must be [B, T, H, L]");
    d_lambda.fill(0.0);
    let rule = Rule { inputs, lambda: Some(lambda) };
    backward_of(rule, states, d_out, (None, Some(d_lambda)), gradients, parallel);
}

fn backward_of<E: Element>(
    rule: Rule<E>,
    states: &[f32],
    d_out: Rows<E>,
    (d_state, d_lambda): (Option<&mut [f32]>, Option<&mut [f32]>),
    gradients: &mut Gradients<E>,
    parallel: Parallel,
) {
    rule.check();
    let shape = rule.inputs.shape;
    let Shape { batch, heads, key_width, value_width, .. } = shape;
    let rows = shape.rows();
    assert_eq!(
        states.len(),
        shape.states_len(),
        "linear attention: states must be [B, H, chunks, K, V]"
    );
    assert_eq!(
        d_out.width(),
        heads * value_width,
        "linear attention: rows of d_out must be [H, V]"
    );
    assert_eq!(gradients.q.len(), rows * key_width, "linear attention: dq must be [B, T, K]");
    assert_eq!(gradients.k.len(), rows * key_width, "linear attention: dk must be [B, T, K]");
    assert_eq!(
        gradients.v.len(),
        rows * heads * value_width,
        "linear attention: dv must be [B, T, H, V]"
    );
    assert_eq!(gradients.g.len(), rows * heads, "linear attention: dg must be [B, T, H]");
    assert_eq!(
        gradients.v_scale.len(),
        rows * heads,
        "linear attention: dv_scale must be [B, T, H]"
    );
    assert_eq!(gradients.skip.len(), heads, "linear attention: dskip must be [H]");
    // dQ and dK of each group of heads, and dD of each sequence, summed at the end.
    let groups = shape.groups();
    let mut partial = vec![0.0; 2 * groups * rows * key_width];
    let mut d_skip = vec![0.0; batch * heads];
    {
        let (d_q, d_k) = partial.split_at_mut(groups * rows * key_width);
        let to = Shared {
            d_state: d_state.map(SharedMut::new),
            lambda: d_lambda.map(SharedMut::new),
            d_q: SharedMut::new(d_q),
            d_k: SharedMut::new(d_k),
            v: SharedMut::new(gradients.v),
            v_scale: SharedMut::new(gradients.v_scale),
            g: SharedMut::new(gradients.g),
            skip: SharedMut::new(&mut d_skip),
        };
        parallel(batch * groups, &|piece| {
            run(Backward { rule, states, d_out, to: &to, piece: Piece::new(shape, piece) });
        });
    }
    let (d_q, d_k) = partial.split_at(groups * rows * key_width);
    let (q, k) = (SharedMut::new(gradients.q), SharedMut::new(gradients.k));
    let step = shape.tokens * key_width;
    parallel(batch, &|sequence| {
        // SAFETY: the rows of a sequence belong to one call.
        let (q, k) = unsafe { (q.part(sequence * step, step), k.part(sequence * step, step)) };
        run(Sum { groups, all: d_q, from: sequence * step, to: q });
        run(Sum { groups, all: d_k, from: sequence * step, to: k });
    });
    for (head, d) in gradients.skip.iter_mut().enumerate() {
        *d = d_skip.iter().skip(head).step_by(heads.max(1)).sum();
    }
}

/// to ← Σ over the groups of what stands at `from` in each group's part of `all`.
struct Sum<'a, E> {
    groups: usize,
    all: &'a [f32],
    from: usize,
    to: &'a mut [E],
}

impl<E: Element> Kernel for Sum<'_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let len = self.all.len() / self.groups.max(1);
        let mut sums = [0.0; 1024];
        for (block, to) in self.to.chunks_mut(sums.len()).enumerate() {
            let at = self.from + block * sums.len();
            let sums = &mut sums[..to.len()];
            sums.copy_from_slice(&self.all[at..][..to.len()]);
            for group in 1..self.groups {
                let from = &self.all[group * len + at..][..to.len()];
                vector::update(
                    s,
                    from,
                    sums,
                    #[inline(always)]
                    |x, sum| s.add(x, sum),
                );
            }
            convert(s, sums, to, same);
        }
    }
}

/// What several threads write.
struct Shared<'a, E> {
    /// Of the plain form.
    d_state: Option<SharedMut<'a>>,
    /// `[B, T, H, L]`, of the log-linear form.
    lambda: Option<SharedMut<'a>>,
    /// `[groups, B, T, K]`.
    d_q: SharedMut<'a>,
    /// `[groups, B, T, K]`.
    d_k: SharedMut<'a>,
    v: SharedMut<'a, E>,
    v_scale: SharedMut<'a>,
    g: SharedMut<'a>,
    /// `[B, H]`.
    skip: SharedMut<'a>,
}

struct Backward<'a, E> {
    rule: Rule<'a, E>,
    states: &'a [f32],
    d_out: Rows<'a, E>,
    to: &'a Shared<'a, E>,
    piece: Piece,
}

impl<E: Element> Kernel for Backward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { rule, states, d_out, to, piece } = self;
        let (inputs, shape) = (rule.inputs, rule.inputs.shape);
        let (len, width, chunks) = (shape.state_len(), shape.key_width, shape.chunks());
        let fading = Fading::new(inputs, piece);
        let mut keys = Keys::new(shape);
        let mut scratch = Scratch::new(shape);
        let at = |h: usize| piece.sequence * shape.heads + h;
        // SAFETY: a head of a sequence belongs to one piece.
        let d_state = |h: usize| unsafe { to.d_state.as_ref().map(|d| d.part(at(h) * len, len)) };
        let mut heads: Vec<Reads> =
            (piece.heads.0..piece.heads.1).map(|h| Reads::new(chunks, d_state(h))).collect();
        for index in (0..chunks).rev() {
            keys.load(s, inputs, piece.sequence, index);
            let (buckets, absorbed) = (rule.buckets(index), rule.absorbed(index));
            let rows = keys.rows;
            let from = (piece.group * shape.rows() + keys.first) * width;
            // SAFETY: the rows of this group and sequence belong to one piece.
            let (d_q, d_k) =
                unsafe { (to.d_q.part(from, rows * width), to.d_k.part(from, rows * width)) };
            d_q.fill(0.0);
            d_k.fill(0.0);
            scratch.d_scores.fill(0.0);
            for (h, reads) in (piece.heads.0..piece.heads.1).zip(&mut heads) {
                let of_head = &states[at(h) * chunks * len..][..chunks * len];
                let state = |end: usize| &of_head[end * len..][..len];
                // SAFETY: a head of a sequence belongs to one piece.
                let d_skip = unsafe { to.skip.part(at(h), 1) };
                scratch.load(s, inputs, &keys, h, d_out);
                scratch.through_chunk(s, &keys, rule.lambda.map(|lambda| (lambda, h)), to);
                let after = reads.take(index + 1);
                d_skip[0] += scratch.through_written(s, &keys, after.as_deref(), d_k);
                let left = |bucket: &Bucket, index| fading.left(h, bucket.end, index);
                let kept = |bucket: &Bucket| (left(bucket, index + 1), state(bucket.end));
                reads.go_back(s, &buckets, absorbed, after, kept);
                let through_whole = reads.0.iter().map(|read| read.through).sum();
                for (bucket, read) in buckets.iter().zip(&mut reads.0) {
                    let weights =
                        Weights { left: left(bucket, index), rule, head: h, level: bucket.level };
                    read.through += scratch.through_read(
                        s,
                        &keys,
                        state(bucket.end),
                        weights,
                        (&mut read.z, d_q),
                        to,
                    );
                }
                scratch.d_log.finish(rows, through_whole);
                scratch.write(s, inputs, &keys, h, d_out, to);
            }
            let d_scores = View::new(&scratch.d_scores, CHUNK);
            lower_times(s, ([rows, width], 1), d_scores, View::new(&keys.k, width), d_q, true);
            lower_transposed_times(
                s,
                ([rows, width], 1),
                d_scores,
                View::new(&keys.q, width),
                d_k,
                true,
            );
        }
        for (h, reads) in (piece.heads.0..piece.heads.1).zip(&mut heads) {
            if let (Some(to), Some(z)) = (d_state(h), reads.take(0)) {
                to.copy_from_slice(&z);
            }
        }
    }
}

/// What a bucket is weighed with where a chunk reads it.
#[derive(Clone, Copy)]
struct Weights<'a, E> {
    /// What is left of it before the chunk.
    left: f32,
    rule: Rule<'a, E>,
    head: usize,
    level: usize,
}

/// The quantities of the backward pass of one chunk; all but `d_scores` are those of one head.
struct Scratch {
    shape: Shape,
    head: Head,
    /// `[C, V]`: V.
    v: Vec<f32>,
    /// `[C, V]`: G.
    d_out: Vec<f32>,
    /// `[C, V]`: G as it arrives at a state.
    d_found: Vec<f32>,
    /// `[C, V]`: dṼ.
    d_values: Vec<f32>,
    /// `[V, CHUNK]`: Ṽᵀ.
    values_transposed: Vec<f32>,
    /// `[V, K]`: Zᵀ, then Sᵀ.
    state_transposed: Vec<f32>,
    /// `[C, K]`: (e^ℓ ⊙ G) Sᵀ, λ not in it.
    read: Vec<f32>,
    /// `[C, CHUNK]`: dP.
    d_p: Vec<f32>,
    /// `[C, CHUNK]`: Σ dP ⊙ Γ over the heads, zero above the diagonal.
    d_scores: Vec<f32>,
    /// `[C]`: V_i·dṼ_i.
    d_v_scale: [f32; CHUNK],
    d_log: LogGradients,
}

impl Scratch {
    fn new(shape: Shape) -> Self {
        let values = || vec![0.0; CHUNK * shape.value_width];
        let square = || vec![0.0; CHUNK * CHUNK];
        Self {
            shape,
            head: Head::new(shape),
            v: values(),
            d_out: values(),
            d_found: values(),
            d_values: values(),
            values_transposed: values(),
            state_transposed: vec![0.0; shape.state_len()],
            read: vec![0.0; CHUNK * shape.key_width],
            d_p: square(),
            d_scores: square(),
            d_v_scale: [0.0; CHUNK],
            d_log: LogGradients::new(),
        }
    }

    #[inline(always)]
    fn load<S: Simd, E: Element>(
        &mut self,
        s: S,
        inputs: &Inputs<E>,
        keys: &Keys,
        head: usize,
        d_out: Rows<E>,
    ) {
        let width = self.shape.value_width;
        self.head.load(s, inputs, keys, head);
        let rows = self.v.chunks_exact_mut(width).zip(self.d_out.chunks_exact_mut(width));
        for (i, (v, d)) in rows.take(keys.rows).enumerate() {
            convert(s, inputs.v.part(keys.first + i, head * width, width), v, same);
            convert(s, d_out.part(keys.first + i, head * width, width), d, same);
        }
    }

    /// What the chunk reads of itself: dP, P, what they give to dg, dλ and dQ Kᵀ; dṼ without what the state after gives.
    #[inline(always)]
    fn through_chunk<S: Simd, E: Element>(
        &mut self,
        s: S,
        keys: &Keys,
        lambda: Option<(Lambda, usize)>,
        to: &Shared<E>,
    ) {
        let (rows, v) = (keys.rows, self.shape.value_width);
        let head = &mut self.head;
        transpose(rows, v, View::new(&head.values, v), &mut self.values_transposed, CHUNK);
        let transposed = View::new(&self.values_transposed, CHUNK);
        let d_out = View::new(&self.d_out, v);
        lower_of_product(s, ([rows, v], 1), d_out, transposed, &mut self.d_p, CHUNK);
        self.d_log.clear();
        for i in (0..rows).rev() {
            let (row, end) = (i * CHUNK, i * CHUNK + i + 1);
            let row = row..end;
            let (p, d_p) = (&mut head.p[row.clone()], &self.d_p[row.clone()]);
            head.decays.between(s, i, p);
            if let (Some((lambda, h)), Some(d_lambda)) = (lambda, &to.lambda) {
                let at = (keys.first + i) * self.shape.heads + h;
                let mut weights = [0.0; CHUNK];
                let weights = &mut weights[..=i];
                vector::combine(
                    s,
                    p,
                    &keys.scores[row.clone()],
                    weights,
                    #[inline(always)]
                    |gamma, score| s.mul(gamma, score),
                );
                multiply(s, d_p, weights);
                // SAFETY: the rows of this head and sequence belong to one piece.
                let d_lambda = unsafe { d_lambda.part(at * lambda.levels, lambda.levels) };
                for (level, columns) in spans(i, lambda.levels) {
                    d_lambda[level] += vector::sum(s, &weights[columns]);
                }
                spread(lambda.row(at), i, weights);
                multiply(s, weights, p);
            }
            let d_scores = (&mut self.d_scores[row.clone()], &mut self.d_log.columns[..=i]);
            decayed_scores(s, &keys.scores[row], d_p, p, d_scores);
            self.d_log.close_row(s, i);
            head.p[i * CHUNK + i + 1..][..CHUNK - i - 1].fill(0.0);
        }
        self.d_log.since_start.fill(0.0);
        self.d_log.to_end.fill(0.0);
        let (p, d_values) = (View::new(&head.p, CHUNK), &mut self.d_values[..rows * v]);
        lower_transposed_times(s, ([rows, v], 1), p, d_out, d_values, false);
    }

    /// What the chunk writes, with `z` the gradient of the state after it: the rest of dṼ, da, and what is added to dK
    /// `[C, K]`. Returns dD.
    #[inline(always)]
    fn through_written<S: Simd>(
        &mut self,
        s: S,
        keys: &Keys,
        z: Option<&[f32]>,
        d_k: &mut [f32],
    ) -> f32 {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        if let Some(z) = z {
            let found = &mut self.d_found[..rows * v];
            let (a, b) = (View::new(&keys.k, k), View::new(z, v));
            Product { size: [rows, v, k], a, b, c: found, accumulate: false }.run(s);
            for i in 0..rows {
                let (row, decay) = (i * v..(i + 1) * v, self.head.decays.to_end[i]);
                let found = &self.d_found[row.clone()];
                self.d_log.to_end[i] =
                    decay * vector::dot(s, found, &self.head.values[row.clone()]);
                vector::add_scaled(s, decay, found, &mut self.d_values[row]);
            }
            self.head.values_to_end(s, rows);
            transpose(k, v, View::new(z, v), &mut self.state_transposed, k);
            let (a, b) = (View::new(&self.head.values, v), View::new(&self.state_transposed, k));
            Product { size: [rows, k, v], a, b, c: d_k, accumulate: true }.run(s);
        }
        let mut d_skip = 0.0;
        for i in 0..rows {
            let row = i * v..(i + 1) * v;
            let (d, values) = (&self.d_values[row.clone()], &self.v[row.clone()]);
            self.d_v_scale[i] = vector::dot(s, d, values);
            d_skip += vector::dot(s, &self.d_out[row], values);
        }
        d_skip
    }

    /// What the chunk reads of a bucket: dλ, and what is added to dQ `[C, K]`, to the gradient of its state, and to that
    /// of ℓ. Returns the gradient of the logarithm of what was left of it before the chunk.
    #[inline(always)]
    fn through_read<S: Simd, E: Element>(
        &mut self,
        s: S,
        keys: &Keys,
        state: &[f32],
        weights: Weights<E>,
        (z, d_q): (&mut [f32], &mut [f32]),
        to: &Shared<E>,
    ) -> f32 {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        let Weights { left, rule, head, level } = weights;
        for i in 0..rows {
            let (row, decay) =
                (i * v..(i + 1) * v, s.splat(left * self.head.decays.since_start[i]));
            convert(
                s,
                &self.d_out[row.clone()],
                &mut self.d_found[row],
                #[inline(always)]
                |d| s.mul(decay, d),
            );
        }
        transpose(k, v, View::new(state, v), &mut self.state_transposed, k);
        let (a, b) = (View::new(&self.d_found, v), View::new(&self.state_transposed, k));
        Product { size: [rows, k, v], a, b, c: &mut self.read[..rows * k], accumulate: false }
            .run(s);
        let mut through = 0.0;
        for i in 0..rows {
            let row = i * k..(i + 1) * k;
            let read = &self.read[row.clone()];
            let found = vector::dot(s, read, &keys.q[row.clone()]);
            let mut weight = 1.0;
            if let (Some(lambda), Some(d_lambda)) = (rule.lambda, &to.lambda) {
                let at = (keys.first + i) * self.shape.heads + head;
                weight = lambda.row(at)[level];
                // SAFETY: the rows of this head and sequence belong to one piece.
                unsafe { d_lambda.part(at * lambda.levels, lambda.levels)[level] += found };
                vector::scale(s, weight, &mut self.d_found[i * v..][..v]);
            }
            self.d_log.since_start[i] += weight * found;
            through += weight * found;
            vector::add_scaled(s, weight, read, &mut d_q[row]);
        }
        let (a, b) = (View::new(&keys.q, k).transposed(), View::new(&self.d_found, v));
        Product { size: [k, v, rows], a, b, c: z, accumulate: true }.run(s);
        through
    }

    #[inline(always)]
    fn write<S: Simd, E: Element>(
        &self,
        s: S,
        inputs: &Inputs<E>,
        keys: &Keys,
        head: usize,
        d_out: Rows<E>,
        to: &Shared<E>,
    ) {
        let Shape { heads, value_width: width, .. } = self.shape;
        let skip = s.splat(inputs.skip[head]);
        for i in 0..keys.rows {
            let row = (keys.first + i) * heads + head;
            // SAFETY: the rows of this head and sequence belong to one piece.
            let (d_v, d_v_scale, d_g) = unsafe {
                (to.v.part(row * width, width), to.v_scale.part(row, 1), to.g.part(row, 1))
            };
            d_v_scale[0] = self.d_v_scale[i];
            d_g[0] = self.d_log.g[i];
            let scale = s.splat(inputs.v_scale[row]);
            convert_two(
                s,
                &self.d_values[i * width..][..width],
                d_out.part(keys.first + i, head * width, width),
                d_v,
                #[inline(always)]
                |d_value, d_out| s.fma(skip, d_out, s.mul(scale, d_value)),
            );
        }
    }
}

/// From Γ_i in `gamma`, Q_i Kᵀ and dP_i: adds dP_i ⊙ Γ_i to `d_scores` and dP_i ⊙ P_i to `columns`, leaves P_i in `gamma`.
#[inline(always)]
fn decayed_scores<S: Simd>(
    s: S,
    scores: &[f32],
    d_p: &[f32],
    gamma: &mut [f32],
    (d_scores, columns): (&mut [f32], &mut [f32]),
) {
    let end = gamma.len();
    assert_eq!((scores.len(), d_p.len(), d_scores.len(), columns.len()), (end, end, end, end));
    let mut i = 0;
    while i < end {
        let n = S::LANES.min(end - i);
        // SAFETY: n values from i lie inside the five slices.
        unsafe {
            let decayed = f32::load(s, gamma.as_ptr().add(i), n);
            let d_p = f32::load(s, d_p.as_ptr().add(i), n);
            let p = s.mul(decayed, f32::load(s, scores.as_ptr().add(i), n));
            let columns = columns.as_mut_ptr().add(i);
            f32::store(s, columns, n, s.fma(d_p, p, f32::load(s, columns, n)));
            f32::store(s, gamma.as_mut_ptr().add(i), n, p);
            let d_scores = d_scores.as_mut_ptr().add(i);
            f32::store(s, d_scores, n, s.fma(d_p, decayed, f32::load(s, d_scores, n)));
        }
        i += n;
    }
}
