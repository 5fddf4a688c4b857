//! The backward pass: blocks from the last to the first, the gradient of each head's state carried along.
//!
//! With G the gradient that arrives at O, Z the one that arrives at S', and the letters of the forward pass (`train.rs`),
//! products of `[C, K]` with D and T channel by channel:
//!
//! ```text
//! dΔ = Pᵀ G + (T ⊙ K) Z                         (I + A)ᵀ dR = dΔ
//! dV = β ⊙ dR                                    dA = −dR Δᵀ (i > j),  dP = G Δᵀ (i ≥ j)
//! X = −D ⊙ (dV Sᵀ),  Y = scale · D ⊙ (G Sᵀ),  W = T ⊙ (Δ Zᵀ)
//! M_ij = β_i dA_ij,  N_ij = scale · dP_ij
//! dq_i = Y_i + Σ_{j≤i} N_ij k_j ⊙ Γ_ij
//! dk_i = X_i + W_i + Σ_{j<i} M_ij k_j ⊙ Γ_ij + Σ_{m>i} (M_mi k_m + N_mi q_m) ⊙ Γ_mi + N_ii q_i
//! dS = Diag(w) Z − (D ⊙ K)ᵀ dV + scale · (D ⊙ Q)ᵀ G
//! dβ_i = dR_i·E_i + Σ_j dA_ij Σ_c k_ic k_jc Γ_ijc
//! ```
//! g_r stands in the exponent of every Γ_ij with j < r ≤ i, of D_i with i ≥ r, of T_j with j < r, and of w:
//!
//! ```text
//! dg_r = Σ_{j<r≤i} (M_ij k_i + N_ij q_i) ⊙ k_j ⊙ Γ_ij + Σ_{i≥r} (k_i ⊙ X_i + q_i ⊙ Y_i) + Σ_{j<r} k_j ⊙ W_j + w ⊙ Σ_v Z ⊙ S
//! ```
//! The shorter dg_r = Σ_{i≥r} (q_i ⊙ dq_i + …) − k_i ⊙ dk_i of gated linear attention is equal, but holds every pair of
//! positions after r with both signs: where the decays are strong, what is left of its own terms drowns in their rounding.
//! Here each term has the decay a_r as a factor, so that dg_r is as exact as it is small.

use super::block::{Block, copy};
use super::extents::{BLOCK, CHUNK, Inputs, Shape};
use super::pairs::Channels;
use crate::cpu::chunk::Product;
use crate::cpu::gemm::{Gemm, View};
use crate::cpu::transpose::transpose;
use crate::cpu::{Element, Flushed, Kernel, Parallel, Rows, Simd, run, vector};
use crate::delta_rule::train::{Gradients, Shared, solve};

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
    let Shape { batch, tokens, heads, key_width, value_width } = shape;
    let (all, rows) = (batch * heads, batch * tokens * heads);
    assert_eq!(states.len(), shape.states_len(), "KDA: states must be [B, H, chunks, K, V]");
    assert_eq!(d_out.width(), heads * value_width, "KDA: rows of d_out must be [H, V]");
    assert_eq!(d_state.len(), all * shape.state_len(), "KDA: d_state must be [B, H, K, V]");
    assert_eq!(gradients.q.len(), rows * key_width, "KDA: dq must have the shape of q");
    assert_eq!(gradients.k.len(), rows * key_width, "KDA: dk must have the shape of k");
    assert_eq!(gradients.v.len(), rows * value_width, "KDA: dv must have the shape of v");
    assert_eq!(gradients.g.len(), rows * key_width, "KDA: dg must have the shape of g");
    assert_eq!(gradients.beta.len(), rows, "KDA: dbeta must have the shape of beta");
    let to = gradients.shared(d_state);
    parallel(all, &|piece| {
        let _flushed = Flushed::begin(); // as forward
        run(Backward { inputs, states, d_out, to: &to, piece });
    });
}

/// `piece` = sequence · heads + head.
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
        let (sequence, head) = (piece / shape.heads, piece % shape.heads);
        let len = shape.state_len();
        // SAFETY: a head of a sequence belongs to one piece.
        let z = unsafe { to.state.part(piece * len, len) };
        let mut blocks: Vec<Block> = (0..CHUNK / BLOCK).map(|_| Block::new(shape)).collect();
        let mut before = vec![0.0; blocks.len() * len]; // the state before each block
        let mut scratch = Scratch::new(shape);
        for index in (0..shape.chunks()).rev() {
            let first = index * CHUNK;
            let count = CHUNK.min(shape.tokens - first).div_ceil(BLOCK);
            before[..len].copy_from_slice(&states[(piece * shape.chunks() + index) * len..][..len]);
            for (b, block) in blocks.iter_mut().enumerate().take(count) {
                let (state, after) = before[b * len..].split_at_mut(len);
                block.load(s, inputs, sequence, head, first + b * BLOCK);
                block.correct(s, state);
                if b + 1 < count {
                    after[..len].copy_from_slice(state);
                    block.advance(s, &mut after[..len]);
                }
            }
            for (block, state) in blocks.iter().zip(before.chunks_exact(len)).take(count).rev() {
                scratch.load(s, block, d_out, head);
                scratch.run(s, inputs.scale, block, state, z);
                scratch.write(s, inputs.normalise, block, head, to);
            }
        }
    }
}

/// The quantities of the backward pass of one block.
struct Scratch {
    shape: Shape,
    /// `[2C, V]`: dΔ, dR and at last dV; below it G.
    x: Vec<f32>,
    /// `[V, 2·BLOCK]`: dVᵀ, and beside it Gᵀ.
    x_transposed: Vec<f32>,
    /// `[V, BLOCK]`: Δᵀ.
    delta_transposed: Vec<f32>,
    /// `[C, BLOCK]`: dR Δᵀ, then M.
    d_kk: [f32; BLOCK * BLOCK],
    /// `[C, BLOCK]`: dP, then N.
    d_qk: [f32; BLOCK * BLOCK],
    /// `[K, 2·BLOCK]`: a product with a state, before it is transposed.
    product: Vec<f32>,
    /// `[2C, K]`: dV Sᵀ, and below it G Sᵀ.
    from_start: Vec<f32>,
    /// `[C, K]`: Δ Zᵀ.
    from_end: Vec<f32>,
    /// `[K]`: w ⊙ Σ_v Z ⊙ S.
    d_log_whole: Vec<f32>,
    /// `[C, K]`
    d_q: Vec<f32>,
    /// `[C, K]`
    d_k: Vec<f32>,
    /// `[C, K]`
    d_g: Vec<f32>,
    d_beta: [f32; BLOCK],
}

impl Scratch {
    fn new(shape: Shape) -> Self {
        let keys = |rows: usize| vec![0.0; rows * BLOCK * shape.key_width];
        let values = |rows: usize| vec![0.0; rows * BLOCK * shape.value_width];
        Self {
            shape,
            x: values(2),
            x_transposed: values(2),
            delta_transposed: values(1),
            d_kk: [0.0; BLOCK * BLOCK],
            d_qk: [0.0; BLOCK * BLOCK],
            product: keys(2),
            from_start: keys(2),
            from_end: keys(1),
            d_log_whole: vec![0.0; shape.key_width],
            d_q: keys(1),
            d_k: keys(1),
            d_g: keys(1),
            d_beta: [0.0; BLOCK],
        }
    }

    /// G.
    #[inline(always)]
    fn load<S: Simd, E: Element>(&mut self, s: S, block: &Block, d_out: Rows<E>, head: usize) {
        let width = self.shape.value_width;
        let g = self.x[block.rows * width..].chunks_exact_mut(width);
        for (i, to) in g.take(block.rows).enumerate() {
            copy(s, d_out.part(block.first + i, head * width, width), to);
        }
    }

    /// All gradients; `z` is the gradient of the state after the block, then of the one before, `state`.
    #[inline(always)]
    fn run<S: Simd>(&mut self, s: S, scale: f32, block: &Block, state: &[f32], z: &mut [f32]) {
        self.through_corrections(s, scale, block, z);
        self.through_states(s, block, state, z);
        let width = self.shape.key_width;
        for at in (0..width).step_by(S::LANES) {
            self.channels(s, scale, block, [at, S::LANES.min(width - at)]);
        }
    }

    /// dV, dβ, M and N.
    #[inline(always)]
    fn through_corrections<S: Simd>(&mut self, s: S, scale: f32, block: &Block, z: &[f32]) {
        let (rows, k, v) = (block.rows, self.shape.key_width, self.shape.value_width);
        let (d_r, g) = self.x.split_at_mut(rows * v);
        let g = View::new(g, v);
        let (a, b) = (View::new(&block.writers, k), View::new(z, v));
        Product { size: [rows, v, k], a, b, c: d_r, accumulate: false }.run(s);
        let a = View::new(&block.p, BLOCK).transposed();
        Product { size: [rows, v, rows], a, b: g, c: d_r, accumulate: true }.run(s);
        solve::transposed(View::new(&block.minus_a, BLOCK), d_r, rows, v);

        transpose(rows, v, View::new(&block.delta, v), &mut self.delta_transposed, BLOCK);
        let b = View::new(&self.delta_transposed, BLOCK);
        for (a, c) in [(View::new(d_r, v), &mut self.d_kk), (g, &mut self.d_qk)] {
            let (n, c_stride) = (BLOCK, BLOCK);
            Gemm { m: rows, n, k: v, a, b, c, c_stride, accumulate: false }.run_at(S::LEVEL);
        }
        for (i, d_r) in d_r.chunks_exact_mut(v).enumerate() {
            let earlier = i * BLOCK..i * BLOCK + i;
            let through_a = vector::dot(s, &self.d_kk[earlier.clone()], &block.kk[earlier.clone()]);
            self.d_beta[i] = vector::dot(s, d_r, &block.e[i * v..][..v]) - through_a;
            vector::scale(s, -block.beta[i], &mut self.d_kk[earlier]);
            vector::scale(s, scale, &mut self.d_qk[i * BLOCK..][..=i]);
            vector::scale(s, block.beta[i], d_r);
        }
    }

    /// dS, and the products with the states at both ends that the gradients of q, k and g need.
    #[inline(always)]
    fn through_states<S: Simd>(&mut self, s: S, block: &Block, state: &[f32], z: &mut [f32]) {
        let (rows, k, v) = (block.rows, self.shape.key_width, self.shape.value_width);
        // Sums over the columns of a state: its rows are read element by element, and what is small is transposed.
        let wide = 2 * BLOCK;
        transpose(2 * rows, v, View::new(&self.x, v), &mut self.x_transposed, wide);
        let (a, b) = (View::new(state, v), View::new(&self.x_transposed, wide));
        let c = &mut self.product;
        Gemm { m: k, n: 2 * rows, k: v, a, b, c, c_stride: wide, accumulate: false }
            .run_at(S::LEVEL);
        transpose(k, 2 * rows, View::new(&self.product, wide), &mut self.from_start, k);
        let (a, b) = (View::new(z, v), View::new(&self.delta_transposed, BLOCK));
        let c = &mut self.product;
        Gemm { m: k, n: rows, k: v, a, b, c, c_stride: wide, accumulate: false }.run_at(S::LEVEL);
        transpose(k, rows, View::new(&self.product, wide), &mut self.from_end, k);

        let rows_of = z.chunks_exact(v).zip(state.chunks_exact(v));
        for ((d, w), (z, state)) in self.d_log_whole.iter_mut().zip(&block.whole).zip(rows_of) {
            *d = w * vector::dot(s, z, state);
        }
        block.decay_state(s, z);
        let (a, b) = (View::new(&block.readers, k).transposed(), View::new(&self.x, v));
        Product { size: [k, v, 2 * rows], a, b, c: z, accumulate: true }.run(s);
    }

    /// dq, dk and dg of `n` ≤ LANES channels from `at`.
    #[inline(always)]
    fn channels<S: Simd>(&mut self, s: S, scale: f32, block: &Block, [at, n]: [usize; 2]) {
        let (rows, width) = (block.rows, self.shape.key_width);
        let channels = Channels {
            width,
            at,
            n,
            k: &block.k,
            decays: &block.decays,
            d_kk: &self.d_kk,
            d_qk: &self.d_qk,
        };
        let (minus, scale) = (s.splat(-1.0), s.splat(scale));
        let mut columns = [s.splat(0.0); BLOCK];
        let mut written = [s.splat(0.0); BLOCK]; // k ⊙ W
        let mut after = channels.load(s, &self.d_log_whole, 0);
        for i in (0..rows).rev() {
            let (q, k) = (channels.load(s, &block.q, i), channels.load(s, &block.k, i));
            let decay = channels.load(s, &block.since_start, i);
            let x = s.mul(s.mul(minus, decay), channels.load(s, &self.from_start, i));
            let y = s.mul(s.mul(scale, decay), channels.load(s, &self.from_start, rows + i));
            let w = s.mul(channels.load(s, &block.to_end, i), channels.load(s, &self.from_end, i));
            after = s.fma(k, x, s.fma(q, y, after));
            written[i] = s.mul(k, w);
            let pairs = channels.row(s, i, q, &mut columns);
            channels.store(s, &mut self.d_q, i, s.add(y, pairs.q));
            channels.store(s, &mut self.d_k, i, s.add(s.add(x, w), pairs.k));
            channels.store(s, &mut self.d_g, i, s.add(after, pairs.g));
        }
        let mut before = s.splat(0.0);
        for (i, (column, written)) in columns.into_iter().zip(written).enumerate().take(rows) {
            let (d_k, d_g) = (channels.load(s, &self.d_k, i), channels.load(s, &self.d_g, i));
            channels.store(s, &mut self.d_k, i, s.add(d_k, column));
            channels.store(s, &mut self.d_g, i, s.add(d_g, before));
            before = s.add(before, written);
        }
    }

    /// The gradients into their rows.
    #[inline(always)]
    fn write<S: Simd, E: Element>(
        &mut self,
        s: S,
        normalise: bool,
        block: &Block,
        head: usize,
        to: &Shared<E>,
    ) {
        let Shape { heads, key_width: k, value_width: v, .. } = self.shape;
        for i in 0..block.rows {
            let row = (block.first + i) * heads + head;
            let keys = i * k..(i + 1) * k;
            let each =
                [(&mut self.d_q, &block.q, &to.q), (&mut self.d_k, &block.k, &to.k)].into_iter();
            for ((d, normed, to), factor) in each.zip(block.factors[i]) {
                let d = &mut d[keys.clone()];
                if normalise {
                    // of x / √(Σ x² + ε) = f x: f (d − x̂ (x̂·d))
                    let normed = &normed[keys.clone()];
                    vector::add_scaled(s, -vector::dot(s, normed, d), normed, d);
                    vector::scale(s, factor, d);
                }
                // SAFETY: the rows of this head and sequence belong to one piece.
                copy(s, d, unsafe { to.part(row * k, k) });
            }
            // SAFETY: as above.
            let (d_v, d_g, d_beta) =
                unsafe { (to.v.part(row * v, v), to.g.part(row * k, k), to.beta.part(row, 1)) };
            copy(s, &self.x[i * v..][..v], d_v);
            d_g.copy_from_slice(&self.d_g[keys]);
            d_beta[0] = self.d_beta[i];
        }
    }
}
