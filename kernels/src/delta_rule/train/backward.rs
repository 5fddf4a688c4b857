//! The backward pass: chunks from the last to the first, the gradient of each head's state carried along.
//!
//! With G the gradient that arrives at O, Z the one that arrives at S', and the letters of the forward pass
//! (`train.rs`), sums over the heads that share a key head in dQ and dK:
//!
//! ```text
//! dΔ = Pᵀ G + e^{ℓ_C−ℓ} ⊙ (K Z)                  (I + A)ᵀ dR = dΔ
//! dV = β ⊙ dR                                    dA = −dR Δᵀ (i > j),  dP = G Δᵀ (i ≥ j)
//! X = −e^ℓ ⊙ dV,  Y = scale · e^ℓ ⊙ G
//! dQ = Y Sᵀ + (scale · Γ ⊙ dP) K
//! dK = X Sᵀ + (scale · Γ ⊙ dP)ᵀ Q + (N + Nᵀ) K + (e^{ℓ_C−ℓ} ⊙ Δ) Zᵀ,   N_ij = β_i Γ_ij dA_ij
//! dS = e^{ℓ_C} Z + Kᵀ X + Qᵀ Y
//! dβ_i = dR_i·E_i + Σ_j dA_ij Γ_ij k_i·k_j
//! ```
//! dg collects, from each of these, the product of a decayed quantity and its gradient: see [`LogGradients`]. (The shorter
//! dg_r = Σ_{i ≥ r} G_i·O_i − dV_i·V_i is equal, but what should cancel in its sums is rounded in two ways.)

use super::chunk::{Head, Keys};
use super::{CHUNK, Inputs, Shape, solve};
use crate::cpu::chunk::{
    LogGradients, Product, lower_of_product, lower_times, lower_transposed_times,
};
use crate::cpu::element::{Rows, convert};
use crate::cpu::gemm::View;
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Element, Kernel, Parallel, Simd, run, vector};

/// Where the gradients go, each of the shape of its input, without gaps. Everything is overwritten. Those of
/// [`crate::kda::train`], too.
#[derive(Debug)]
pub struct Gradients<'a, E> {
    /// `[B, T, key heads, K]`.
    pub q: &'a mut [E],
    /// `[B, T·steps, key heads, K]`.
    pub k: &'a mut [E],
    /// `[B, T·steps, H, V]`.
    pub v: &'a mut [E],
    /// `[B, T, H]`; with a decay for each channel `[B, T, H, K]`.
    pub g: &'a mut [f32],
    /// `[B, T·steps, H]`.
    pub beta: &'a mut [f32],
}

impl<E: Element> Gradients<'_, E> {
    /// For several threads, with the gradient of the state.
    pub(crate) fn shared<'a>(&'a mut self, d_state: &'a mut [f32]) -> Shared<'a, E> {
        Shared {
            state: SharedMut::new(d_state),
            q: SharedMut::new(self.q),
            k: SharedMut::new(self.k),
            v: SharedMut::new(self.v),
            g: SharedMut::new(self.g),
            beta: SharedMut::new(self.beta),
        }
    }

    pub(super) fn check(&self, inputs: &Inputs<E>) {
        let Shape { batch, tokens, steps, key_heads, heads, key_width, value_width } = inputs.shape;
        let (keys, values) =
            (batch * tokens * key_heads * key_width, batch * tokens * steps * heads * value_width);
        assert_eq!(self.q.len(), keys, "delta rule: dq must have the shape of q");
        assert_eq!(self.k.len(), keys * steps, "delta rule: dk must have the shape of k");
        assert_eq!(self.v.len(), values, "delta rule: dv must have the shape of v");
        assert_eq!(self.g.len(), inputs.g.len(), "delta rule: dg must have the shape of g");
        assert_eq!(
            self.beta.len(),
            inputs.beta.len(),
            "delta rule: dbeta must have the shape of beta"
        );
    }
}

/// Gradients from `d_out`, B·T rows of `[H, V]`, and the `states` that [`super::forward`] kept.
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
    inputs.check();
    let shape = inputs.shape;
    let Shape { batch, key_heads, heads, value_width, .. } = shape;
    let all = batch * heads * shape.state_len();
    assert_eq!(states.len(), shape.states_len(), "delta rule: states must be [B, H, chunks, K, V]");
    assert_eq!(d_out.width(), heads * value_width, "delta rule: rows of d_out must be [H, V]");
    assert_eq!(d_state.len(), all, "delta rule: d_state must be [B, H, K, V]");
    gradients.check(inputs);
    let to = gradients.shared(d_state);
    parallel(batch * key_heads, &|piece| run(Backward { inputs, states, d_out, to: &to, piece }));
}

/// What several threads write.
pub(crate) struct Shared<'a, E> {
    pub(crate) state: SharedMut<'a>,
    pub(crate) q: SharedMut<'a, E>,
    pub(crate) k: SharedMut<'a, E>,
    pub(crate) v: SharedMut<'a, E>,
    pub(crate) g: SharedMut<'a>,
    pub(crate) beta: SharedMut<'a>,
}

/// `piece` = sequence · key heads + key head.
struct Backward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
    states: &'a [f32],
    d_out: Rows<'a, E>,
    to: &'a Shared<'a, E>,
    piece: usize,
}

impl<E: Element> Kernel for Backward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { inputs, states, d_out, to, piece } = self;
        let shape = inputs.shape;
        let (sequence, key_head) = (piece / shape.key_heads, piece % shape.key_heads);
        let len = shape.state_len();
        let mut keys = Keys::new(shape);
        let mut scratch = Scratch::new(shape);
        for index in (0..shape.chunks()).rev() {
            keys.load(s, inputs, sequence, key_head, index);
            scratch.sums.clear();
            for h in key_head * shape.group()..(key_head + 1) * shape.group() {
                let at = sequence * shape.heads + h;
                let state = &states[(at * shape.chunks() + index) * len..][..len];
                // SAFETY: the heads that share a key head of a sequence belong to one piece.
                let z = unsafe { to.state.part(at * len, len) };
                scratch.head.load(s, inputs, &keys, h);
                scratch.head.correct(s, &keys, state, keys.rows);
                scratch.load(s, &keys, d_out, h);
                scratch.run(s, inputs.scale, &keys, state, z);
                scratch.write(s, &keys, h, to);
            }
            scratch.sums.write(s, inputs, &keys, key_head, (&to.q, &to.k));
        }
    }
}

/// The quantities of the backward pass of one chunk; all but the sums are of one head.
struct Scratch {
    shape: Shape,
    head: Head,
    sums: KeyGradients,
    /// `[C + R, V]`: dΔ, dR and at last X; below it G and at last Y.
    x: Vec<f32>,
    /// `[C, V]`
    d_v: Vec<f32>,
    /// `[V, CHUNK]`: Δᵀ.
    delta_transposed: Vec<f32>,
    /// `[V, K]`: Sᵀ, then Zᵀ.
    state_transposed: Vec<f32>,
    /// `[C + R, CHUNK]`: −dA, and below it dP.
    d_scores: Vec<f32>,
    /// `[R, K]`: Y Sᵀ.
    d_q_read: Vec<f32>,
    /// `[C]`
    d_beta: [f32; CHUNK],
    d_log: LogGradients,
}

impl Scratch {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            head: Head::new(shape),
            sums: KeyGradients::new(shape),
            x: vec![0.0; 2 * CHUNK * shape.value_width],
            d_v: vec![0.0; CHUNK * shape.value_width],
            delta_transposed: vec![0.0; CHUNK * shape.value_width],
            state_transposed: vec![0.0; shape.state_len()],
            d_scores: vec![0.0; 2 * CHUNK * CHUNK],
            d_q_read: vec![0.0; CHUNK * shape.key_width],
            d_beta: [0.0; CHUNK],
            d_log: LogGradients::new(),
        }
    }

    /// G.
    #[inline(always)]
    fn load<S: Simd, E: Element>(&mut self, s: S, keys: &Keys, d_out: Rows<E>, head: usize) {
        let width = self.shape.value_width;
        let g = self.x[keys.rows * width..].chunks_exact_mut(width);
        for (i, to) in g.take(keys.tokens).enumerate() {
            let from = d_out.part(keys.first + i, head * width, width);
            convert(
                s,
                from,
                to,
                #[inline(always)]
                |x| x,
            );
        }
    }

    /// All gradients of a head; `z` is the gradient of the state after the chunk, then of the one before, `state`.
    #[inline(always)]
    fn run<S: Simd>(&mut self, s: S, scale: f32, keys: &Keys, state: &[f32], z: &mut [f32]) {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        let (tokens, steps) = (keys.tokens, self.shape.steps);
        let head = &mut self.head;
        let (d_r, g) = self.x.split_at_mut(rows * v);
        let g = &mut g[..tokens * v];
        // dΔ
        let (a, b) = (View::new(&keys.stacked, k), View::new(&*z, v));
        Product { size: [rows, v, k], a, b, c: d_r, accumulate: false }.run(s);
        let through_whole = head.decays.whole() * vector::dot(s, z, state);
        for (i, row) in d_r.chunks_exact_mut(v).enumerate() {
            vector::scale(s, head.decays.to_end[i], row);
            self.d_log.to_end[i] = vector::dot(s, row, &head.delta[i * v..][..v]);
        }
        let p = View::new(&head.p, CHUNK);
        lower_transposed_times(s, ([tokens, v], steps), p, View::new(&*g, v), d_r, true);
        solve::transposed(View::new(&head.minus_a, CHUNK), d_r, rows, v);
        // −dA and dP
        transpose(rows, v, View::new(&head.delta, v), &mut self.delta_transposed, CHUNK);
        let transposed = View::new(&self.delta_transposed, CHUNK);
        let (minus_d_a, d_p) = self.d_scores.split_at_mut(CHUNK * CHUNK);
        lower_of_product(s, ([rows, v], 1), View::new(&*d_r, v), transposed, minus_d_a, CHUNK);
        lower_of_product(s, ([tokens, v], steps), View::new(&*g, v), transposed, d_p, CHUNK);
        self.d_log.clear();
        for i in (0..rows).rev() {
            let values = i * v..(i + 1) * v;
            let row = i * CHUNK..i * CHUNK + i;
            head.decays.between(s, i, &mut head.gamma);
            let beta = head.beta[i];
            let through_a = through_scores(
                s,
                -beta,
                &head.gamma[..i],
                &keys.kk[row.clone()],
                &minus_d_a[row.clone()],
                (&mut self.sums.d_kk[row], &mut self.d_log.columns[..i]),
            );
            let d_r = &mut d_r[values.clone()];
            self.d_beta[i] = vector::dot(s, d_r, &head.e[values.clone()]) - through_a;
            // dV and X
            let d_v = &mut self.d_v[values.clone()];
            let (beta, decay) = (s.splat(beta), s.splat(-head.decays.since_start[i]));
            vector::update(
                s,
                d_r,
                d_v,
                #[inline(always)]
                |d_r, _| s.mul(beta, d_r),
            );
            vector::update(
                s,
                d_v,
                d_r,
                #[inline(always)]
                |d_v, _| s.mul(decay, d_v),
            );
            self.d_log.since_start[i] = vector::dot(s, d_r, &head.read[values]); // X_i·(K S)_i
            if i % steps == steps - 1 {
                let position = i / steps;
                let (row, end) = (position * CHUNK, position * CHUNK + i + 1);
                let row = row..end;
                through_scores(
                    s,
                    scale,
                    &head.gamma[..=i],
                    &keys.qk[row.clone()],
                    &d_p[row.clone()],
                    (&mut self.sums.d_qk[row], &mut self.d_log.columns[..=i]),
                );
                let decay = scale * head.decays.since_start[i];
                vector::scale(s, decay, &mut g[position * v..][..v]);
            }
            self.d_log.close_row(s, i);
        }
        self.through_states(s, keys, state, z);
        self.d_log.finish(rows, through_whole);
    }

    /// What meets the states: dQ, dK, dS, and the gradient of ℓ from the read of S.
    #[inline(always)]
    fn through_states<S: Simd>(&mut self, s: S, keys: &Keys, state: &[f32], z: &mut [f32]) {
        let (rows, k, v) = (keys.rows, self.shape.key_width, self.shape.value_width);
        let tokens = keys.tokens;
        let (d_k, d_q) = self.sums.d_keys.split_at_mut(rows * k);
        transpose(k, v, View::new(state, v), &mut self.state_transposed, k);
        let (x, transposed) = (View::new(&self.x, v), View::new(&self.state_transposed, k));
        Product { size: [rows, k, v], a: x, b: transposed, c: d_k, accumulate: true }.run(s);
        let (a, c) = (x.from_row(rows), &mut self.d_q_read[..tokens * k]);
        Product { size: [tokens, k, v], a, b: transposed, c, accumulate: false }.run(s);
        let each = self.d_q_read.chunks_exact(k).zip(d_q.chunks_exact_mut(k));
        for (i, (read, d_q)) in each.take(tokens).enumerate() {
            self.d_log.since_start[keys.read_step(i)] +=
                vector::dot(s, read, &keys.q()[i * k..][..k]);
            vector::update(
                s,
                read,
                d_q,
                #[inline(always)]
                |read, d_q| s.add(read, d_q),
            );
        }
        self.head.delta_to_end(s, rows);
        transpose(k, v, View::new(&*z, v), &mut self.state_transposed, k);
        let (a, b) = (View::new(&self.head.delta, v), View::new(&self.state_transposed, k));
        Product { size: [rows, k, v], a, b, c: d_k, accumulate: true }.run(s);
        vector::scale(s, self.head.decays.whole(), z);
        let a = View::new(&keys.stacked, k).transposed();
        Product { size: [k, v, rows + tokens], a, b: x, c: z, accumulate: true }.run(s);
    }

    /// dV, dg and dβ of a head.
    #[inline(always)]
    fn write<S: Simd, E: Element>(&self, s: S, keys: &Keys, head: usize, to: &Shared<E>) {
        let Shape { steps, heads, value_width: width, .. } = self.shape;
        for i in 0..keys.rows {
            let row = (keys.first * steps + i) * heads + head;
            // SAFETY: the rows of this head and sequence belong to one piece.
            let (d_v, d_beta) = unsafe { (to.v.part(row * width, width), to.beta.part(row, 1)) };
            d_beta[0] = self.d_beta[i];
            convert(
                s,
                &self.d_v[i * width..][..width],
                d_v,
                #[inline(always)]
                |x| x,
            );
        }
        for i in 0..keys.tokens {
            // SAFETY: as above.
            unsafe { to.g.part((keys.first + i) * heads + head, 1)[0] = self.d_log.g[i * steps] };
        }
    }
}

/// dQ and dK of a chunk, summed over the heads that share a key head.
pub(super) struct KeyGradients {
    shape: Shape,
    /// `[C, CHUNK]`: N below the diagonal.
    pub(super) d_kk: Vec<f32>,
    /// `[R, CHUNK]`: scale · Γ ⊙ dP.
    pub(super) d_qk: Vec<f32>,
    /// `[C + R, K]`: dK, and below it dQ, without what comes through N and scale · Γ ⊙ dP.
    pub(super) d_keys: Vec<f32>,
}

impl KeyGradients {
    pub(super) fn new(shape: Shape) -> Self {
        let square = || vec![0.0; CHUNK * CHUNK];
        Self {
            shape,
            d_kk: square(),
            d_qk: square(),
            d_keys: vec![0.0; 2 * CHUNK * shape.key_width],
        }
    }

    pub(super) fn clear(&mut self) {
        self.d_kk.fill(0.0);
        self.d_qk.fill(0.0);
        self.d_keys.fill(0.0);
    }

    /// dQ and dK, after all heads.
    #[inline(always)]
    pub(super) fn write<S: Simd, E: Element>(
        &mut self,
        s: S,
        inputs: &Inputs<E>,
        keys: &Keys,
        key_head: usize,
        (to_q, to_k): (&SharedMut<E>, &SharedMut<E>),
    ) {
        let Shape { steps, key_heads, key_width: k, .. } = self.shape;
        let (rows, tokens) = (keys.rows, keys.tokens);
        let (d_k, d_q) = self.d_keys.split_at_mut(rows * k);
        let (keys_view, d_qk) = (View::new(&keys.stacked, k), View::new(&self.d_qk, CHUNK));
        lower_times(s, ([tokens, k], steps), d_qk, keys_view, &mut d_q[..tokens * k], true);
        lower_transposed_times(s, ([tokens, k], steps), d_qk, View::new(keys.q(), k), d_k, true);
        // N + Nᵀ
        for i in 0..rows {
            for j in 0..i {
                self.d_kk[j * CHUNK + i] = self.d_kk[i * CHUNK + j];
            }
        }
        let a = View::new(&self.d_kk, CHUNK);
        Product { size: [rows, k, rows], a, b: keys_view, c: d_k, accumulate: true }.run(s);
        for i in 0..rows + tokens {
            let d = &mut self.d_keys[i * k..][..k];
            let mut factor = 1.0;
            if inputs.normalise {
                // of x / √(Σ x² + ε) = f x: f (d − x̂ (x̂·d))
                let normed = &keys.stacked[i * k..][..k];
                vector::add_scaled(s, -vector::dot(s, normed, d), normed, d);
                factor = keys.factors[i];
            }
            let (to, row) = if i < rows {
                (to_k, keys.first * steps + i)
            } else {
                (to_q, keys.first + i - rows)
            };
            let factor = s.splat(factor);
            // SAFETY: the rows of this key head and sequence belong to one piece.
            let to = unsafe { to.part((row * key_heads + key_head) * k, k) };
            convert(
                s,
                d,
                to,
                #[inline(always)]
                |x| s.mul(factor, x),
            );
        }
    }
}

/// Adds factor · γ ⊙ d to `d_scores`, and its product with the scores to `columns`; returns Σ γ d score.
#[inline(always)]
pub(super) fn through_scores<S: Simd>(
    s: S,
    factor: f32,
    gamma: &[f32],
    scores: &[f32],
    d: &[f32],
    (d_scores, columns): (&mut [f32], &mut [f32]),
) -> f32 {
    let (factor, end) = (s.splat(factor), gamma.len());
    assert_eq!((scores.len(), d.len(), d_scores.len(), columns.len()), (end, end, end, end));
    let mut sum = s.splat(0.0);
    let mut i = 0;
    while i < end {
        let n = S::LANES.min(end - i);
        // SAFETY: n values from i lie inside the five slices.
        unsafe {
            let decayed =
                s.mul(f32::load(s, gamma.as_ptr().add(i), n), f32::load(s, d.as_ptr().add(i), n));
            let product = s.mul(decayed, f32::load(s, scores.as_ptr().add(i), n));
            sum = s.add(sum, product);
            let to = d_scores.as_mut_ptr().add(i);
            f32::store(s, to, n, s.fma(factor, decayed, f32::load(s, to, n)));
            let to = columns.as_mut_ptr().add(i);
            f32::store(s, to, n, s.fma(factor, product, f32::load(s, to, n)));
        }
        i += n;
    }
    s.sum(sum)
}
