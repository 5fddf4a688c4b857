//! The backward pass: chunks from the last to the first, the gradient of the state carried along.
//!
//! With G the gradient that arrives at O times the scale, Z the one that arrives at S', and the letters of the forward
//! pass (`train.rs`):
//!
//! ```text
//! dΔ = Pᵀ G + (e^{ℓ_C−ℓ} ⊙ K) Z                  (I + A)ᵀ dR = dΔ
//! dE = β ⊙ dR = dV                               dA = −dR Δᵀ (i > j),  dP = G Δᵀ (i ≥ j)
//! dQ = e^ℓ ⊙ (G Sᵀ) + (dP ⊙ Γ) K
//! dK = (dP ⊙ Γ)ᵀ Q + (N + Nᵀ) K − e^ℓ ⊙ (dE Sᵀ) + e^{ℓ_C−ℓ} ⊙ (Δ Zᵀ),   N_ij = β_i Γ_ij dA_ij
//! dS = e^{ℓ_C} Z − (e^ℓ ⊙ K)ᵀ dE + (e^ℓ ⊙ Q)ᵀ G
//! dβ_i = dR_i·E_i + Σ_j dA_ij Γ_ij k_i·k_j
//! ```
//! The gradient of ℓ collects, for each of these, the product of a decayed quantity and its gradient, and
//! dg_r = Σ_{i ≥ r} dℓ_i.

use super::chunk::{Chunk, multiply};
use super::{CHUNK, Inputs, Parallel, Shape};
use crate::cpu::gemm::View;
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Kernel, Simd, run, vector};

/// Where the gradients go, each of the shape of its input. Everything is overwritten.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `[B, T, H, K]`.
    pub q: &'a mut [f32],
    /// `[B, T, H, K]`.
    pub k: &'a mut [f32],
    /// `[B, T, H, V]`.
    pub v: &'a mut [f32],
    /// `[B, T, H]`.
    pub g: &'a mut [f32],
    /// `[B, T, H]`.
    pub beta: &'a mut [f32],
}

/// Gradients from `d_out` `[B, T, H, V]` and the `states` that [`super::forward`] kept.
///
/// `d_state` `[B, H, K, V]` is the gradient that arrives at the last state, and is left as the one of the first.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn backward(
    inputs: &Inputs,
    states: &[f32],
    d_out: &[f32],
    d_state: &mut [f32],
    gradients: &mut Gradients,
    parallel: Parallel,
) {
    inputs.check();
    let shape = inputs.shape;
    assert_eq!(states.len(), shape.states_len(), "delta rule: states must be [B, H, chunks, K, V]");
    assert_eq!(d_out.len(), inputs.v.len(), "delta rule: d_out must be [B, T, H, V]");
    assert_eq!(
        d_state.len(),
        shape.pieces() * shape.state_len(),
        "delta rule: d_state must be [B, H, K, V]"
    );
    assert_eq!(gradients.q.len(), inputs.q.len(), "delta rule: dq must be [B, T, H, K]");
    assert_eq!(gradients.k.len(), inputs.k.len(), "delta rule: dk must be [B, T, H, K]");
    assert_eq!(gradients.v.len(), inputs.v.len(), "delta rule: dv must be [B, T, H, V]");
    assert_eq!(gradients.g.len(), inputs.g.len(), "delta rule: dg must be [B, T, H]");
    assert_eq!(gradients.beta.len(), inputs.beta.len(), "delta rule: dbeta must be [B, T, H]");
    let chunks = shape.tokens.div_ceil(CHUNK);
    let d_state = SharedMut::new(d_state);
    let to = Shared {
        q: SharedMut::new(gradients.q),
        k: SharedMut::new(gradients.k),
        v: SharedMut::new(gradients.v),
        g: SharedMut::new(gradients.g),
        beta: SharedMut::new(gradients.beta),
    };
    parallel(shape.pieces(), &|piece| {
        // SAFETY: a piece touches the state of its own head and sequence only.
        let z = unsafe { d_state.part(piece * shape.state_len(), shape.state_len()) };
        let mut chunk = Chunk::new(shape);
        let mut scratch = Scratch::new(shape);
        for index in (0..chunks).rev() {
            let s = &states[(piece * chunks + index) * shape.state_len()..][..shape.state_len()];
            chunk.load(inputs, piece, index);
            chunk.correct(s);
            scratch.load(&chunk, d_out, inputs.scale);
            scratch.run(&chunk, s, z);
            scratch.write(&chunk, &to);
        }
    });
}

/// [`Gradients`] that several threads write.
struct Shared<'a> {
    q: SharedMut<'a>,
    k: SharedMut<'a>,
    v: SharedMut<'a>,
    g: SharedMut<'a>,
    beta: SharedMut<'a>,
}

/// The quantities of the backward pass of one chunk.
struct Scratch {
    /// `[C, V]`: G.
    d_out: Vec<f32>,
    /// `[C, V]`: dΔ, then dR.
    d_r: Vec<f32>,
    /// `[C, V]`: dE = dV.
    d_e: Vec<f32>,
    /// `[V, C]`: Δᵀ.
    delta_transposed: Vec<f32>,
    /// `[V, K]`: Sᵀ, then Zᵀ.
    state_transposed: Vec<f32>,
    /// `[C, CHUNK]`: dP, then dP ⊙ Γ.
    d_p: Vec<f32>,
    /// `[C, CHUNK]`: −dA, then N + Nᵀ.
    d_a: Vec<f32>,
    /// `[C, K]`.
    d_q: Vec<f32>,
    /// `[C, K]`.
    d_k: Vec<f32>,
    /// `[C, K]`: dE Sᵀ.
    d_k_read: Vec<f32>,
    /// `[C, K]`: Δ Zᵀ.
    d_k_kept: Vec<f32>,
    /// `[C]`.
    d_beta: Vec<f32>,
    /// `[C]`: dℓ, then dg.
    d_g: Vec<f32>,
}

impl Scratch {
    fn new(shape: Shape) -> Self {
        let keys = || vec![0.0; CHUNK * shape.key_width];
        let values = || vec![0.0; CHUNK * shape.value_width];
        let square = || vec![0.0; CHUNK * CHUNK];
        Self {
            d_out: values(),
            d_r: values(),
            d_e: values(),
            delta_transposed: values(),
            state_transposed: vec![0.0; shape.state_len()],
            d_p: square(),
            d_a: square(),
            d_q: keys(),
            d_k: keys(),
            d_k_read: keys(),
            d_k_kept: keys(),
            d_beta: vec![0.0; CHUNK],
            d_g: vec![0.0; CHUNK],
        }
    }

    /// G, the chunk's rows of d_out times the scale.
    fn load(&mut self, chunk: &Chunk, d_out: &[f32], scale: f32) {
        let v = chunk.shape.value_width;
        for (i, to) in self.d_out.chunks_mut(v).take(chunk.rows).enumerate() {
            let from = &d_out[(chunk.first + i * chunk.shape.heads) * v..][..v];
            for (to, from) in to.iter_mut().zip(from) {
                *to = scale * from;
            }
        }
    }

    /// All gradients of the chunk; `z` is the gradient of the state after the chunk, then of the one before, `s`.
    fn run(&mut self, chunk: &Chunk, s: &[f32], z: &mut [f32]) {
        let (rows, k, v) = (chunk.rows, chunk.shape.key_width, chunk.shape.value_width);
        // dΔ, dR, dE
        multiply(
            (rows, v, rows),
            View::new(&chunk.p, CHUNK).transposed(),
            (&self.d_out, v),
            (&mut self.d_r, v),
            false,
        );
        multiply((rows, v, k), View::new(&chunk.k_kept, k), (z, v), (&mut self.d_r, v), true);
        super::solve::transposed(&chunk.minus_a, &mut self.d_r[..rows * v], rows, v);
        run(ScaleRows { by: &chunk.beta[..rows], from: &self.d_r, to: &mut self.d_e, width: v });
        // −dA and dP
        transpose(rows, v, View::new(&chunk.delta, v), &mut self.delta_transposed, CHUNK);
        let delta_transposed = (&self.delta_transposed[..], CHUNK);
        multiply(
            (rows, rows, v),
            View::new(&self.d_r, v),
            delta_transposed,
            (&mut self.d_a, CHUNK),
            false,
        );
        multiply(
            (rows, rows, v),
            View::new(&self.d_out, v),
            delta_transposed,
            (&mut self.d_p, CHUNK),
            false,
        );
        // What meets the states: G Sᵀ, dE Sᵀ, Δ Zᵀ
        transpose(k, v, View::new(s, v), &mut self.state_transposed, k);
        multiply(
            (rows, k, v),
            View::new(&self.d_out, v),
            (&self.state_transposed, k),
            (&mut self.d_q, k),
            false,
        );
        multiply(
            (rows, k, v),
            View::new(&self.d_e, v),
            (&self.state_transposed, k),
            (&mut self.d_k_read, k),
            false,
        );
        transpose(k, v, View::new(z, v), &mut self.state_transposed, k);
        multiply(
            (rows, k, v),
            View::new(&chunk.delta, v),
            (&self.state_transposed, k),
            (&mut self.d_k_kept, k),
            false,
        );
        run(Scalars { scratch: self, chunk, s, z });
        // dQ and dK
        multiply(
            (rows, k, rows),
            View::new(&self.d_p, CHUNK),
            (&chunk.k, k),
            (&mut self.d_q, k),
            true,
        );
        multiply(
            (rows, k, rows),
            View::new(&self.d_p, CHUNK).transposed(),
            (&chunk.q, k),
            (&mut self.d_k, k),
            true,
        );
        multiply(
            (rows, k, rows),
            View::new(&self.d_a, CHUNK),
            (&chunk.k, k),
            (&mut self.d_k, k),
            true,
        );
        // dS
        let decay = chunk.whole_decay();
        for z in z.iter_mut() {
            *z *= decay;
        }
        multiply(
            (k, v, rows),
            View::new(&chunk.k_decayed, k).transposed(),
            (&self.d_e, v),
            (z, v),
            true,
        );
        multiply(
            (k, v, rows),
            View::new(&chunk.q_decayed, k).transposed(),
            (&self.d_out, v),
            (z, v),
            true,
        );
    }

    fn write(&self, chunk: &Chunk, to: &Shared) {
        let (k, v) = (chunk.shape.key_width, chunk.shape.value_width);
        for i in 0..chunk.rows {
            let row = chunk.first + i * chunk.shape.heads;
            // SAFETY: the rows of this head and sequence belong to this piece alone.
            unsafe {
                to.q.part(row * k, k).copy_from_slice(&self.d_q[i * k..][..k]);
                to.k.part(row * k, k).copy_from_slice(&self.d_k[i * k..][..k]);
                to.v.part(row * v, v).copy_from_slice(&self.d_e[i * v..][..v]);
                to.g.part(row, 1)[0] = self.d_g[i];
                to.beta.part(row, 1)[0] = self.d_beta[i];
            }
        }
    }
}

/// to_i ← by_i · from_i, row by row.
struct ScaleRows<'a> {
    by: &'a [f32],
    from: &'a [f32],
    to: &'a mut [f32],
    width: usize,
}

impl Kernel for ScaleRows<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, _: S) {
        let rows = self.from.chunks_exact(self.width).zip(self.to.chunks_exact_mut(self.width));
        for ((from, to), by) in rows.zip(self.by) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = by * from;
            }
        }
    }
}

/// Everything between the products: dβ, dℓ and dg; the parts of dQ and dK that come from the states; dP ⊙ Γ; N + Nᵀ.
struct Scalars<'a> {
    scratch: &'a mut Scratch,
    chunk: &'a Chunk,
    s: &'a [f32],
    z: &'a [f32],
}

impl Kernel for Scalars<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, simd: S) {
        let Self { scratch, chunk, s, z } = self;
        let (rows, k, v) = (chunk.rows, chunk.shape.key_width, chunk.shape.value_width);
        scratch.d_g[..rows].fill(0.0);
        let mut d_last = chunk.whole_decay() * vector::dot(simd, z, s);
        for i in 0..rows {
            let keys = i * k..(i + 1) * k;
            let (q, key) = (&chunk.q_decayed[keys.clone()], &chunk.k_decayed[keys.clone()]);
            let read = vector::dot(simd, q, &scratch.d_q[keys.clone()]);
            let corrected = vector::dot(simd, key, &scratch.d_k_read[keys.clone()]);
            let kept =
                vector::dot(simd, &chunk.k_kept[keys.clone()], &scratch.d_k_kept[keys.clone()]);
            scratch.d_g[i] += read + corrected - kept;
            d_last += kept;
            for j in keys {
                scratch.d_q[j] *= chunk.decay[i];
                scratch.d_k[j] =
                    chunk.kept[i] * scratch.d_k_kept[j] - chunk.decay[i] * scratch.d_k_read[j];
            }

            let row = i * CHUNK..i * CHUNK + rows;
            let (d_a, d_p) = (&mut scratch.d_a[row.clone()], &mut scratch.d_p[row.clone()]);
            let (gamma, kk, p) = (&chunk.gamma[row.clone()], &chunk.kk[row.clone()], &chunk.p[row]);
            // Σ_j dA_ij Γ_ij k_i·k_j; d_a holds −dA, and kk is zero on and above the diagonal.
            let through_a = -vector::dot(simd, d_a, kk);
            scratch.d_beta[i] =
                vector::dot(simd, &scratch.d_r[i * v..][..v], &chunk.e[i * v..][..v]) + through_a;
            // Γ_ij grows with ℓ_i and falls with ℓ_j, in P and in A = β Γ ⊙ K Kᵀ.
            let beta = chunk.beta[i];
            scratch.d_g[i] += vector::dot(simd, d_p, p) + beta * through_a;
            for j in 0..rows {
                scratch.d_g[j] -= d_p[j] * p[j] - beta * d_a[j] * kk[j];
                d_p[j] *= gamma[j];
                d_a[j] *= -beta * gamma[j];
            }
            d_a[i] = 0.0; // A is zero on its diagonal, Γ is not
        }
        scratch.d_g[rows - 1] += d_last;
        for i in (1..rows).rev() {
            scratch.d_g[i - 1] += scratch.d_g[i];
        }
        // N + Nᵀ; N is strictly lower.
        for i in 0..rows {
            for j in 0..i {
                scratch.d_a[j * CHUNK + i] = scratch.d_a[i * CHUNK + j];
            }
        }
    }
}
