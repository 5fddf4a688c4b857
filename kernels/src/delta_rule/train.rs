//! The gated delta rule for training: chunked forward and backward in f32, one head of one sequence at a time.
//!
//! Within a chunk of C positions, with ℓ the running sum of g, Γ_ij = e^{ℓ_i − ℓ_j} for i ≥ j, and S the state before
//! the chunk (arXiv 2412.06464, section 3.3, with the decays in log space):
//!
//! ```text
//! A_ij = β_i Γ_ij k_i·k_j  (i > j)          P_ij = Γ_ij q_i·k_j  (i ≥ j)
//! E = V − (e^ℓ ⊙ K) S                       (I + A) Δ = β ⊙ E
//! O = scale · ((e^ℓ ⊙ Q) S + P Δ)           S' = e^{ℓ_C} S + (e^{ℓ_C − ℓ} ⊙ K)ᵀ Δ
//! ```
//! Δ are the corrections that the delta rule writes. Only the states before each chunk are kept for the backward pass
//! (K·V/C values a position); it forms everything else anew. Nothing of size [T, T] exists.

mod backward;
mod chunk;
mod solve;

pub use backward::{Gradients, backward};

use crate::cpu::pool::SharedMut;
use chunk::Chunk;

/// C, positions of a chunk.
pub const CHUNK: usize = crate::cpu::chunk::CHUNK;

/// The extents of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// B, sequences.
    pub batch: usize,
    /// T, positions.
    pub tokens: usize,
    /// H, heads.
    pub heads: usize,
    /// K, rows of the state.
    pub key_width: usize,
    /// V, columns of the state.
    pub value_width: usize,
}

impl Shape {
    /// Independent pieces of work: one for each head of each sequence.
    pub fn pieces(&self) -> usize {
        self.batch * self.heads
    }

    /// Values of the states before every chunk, `[B, H, ⌈T / C⌉, K, V]`.
    pub fn states_len(&self) -> usize {
        self.pieces() * self.tokens.div_ceil(CHUNK) * self.state_len()
    }

    /// Values of one state, `[K, V]`.
    pub fn state_len(&self) -> usize {
        self.key_width * self.value_width
    }
}

/// What the rule reads. Rows of one position lie together, as torch lays them out.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The extents.
    pub shape: Shape,
    /// `[B, T, H, K]`.
    pub q: &'a [f32],
    /// `[B, T, H, K]`.
    pub k: &'a [f32],
    /// `[B, T, H, V]`.
    pub v: &'a [f32],
    /// `[B, T, H]`, logarithms of the decays, ≤ 0.
    pub g: &'a [f32],
    /// `[B, T, H]`.
    pub beta: &'a [f32],
    /// Factor of the output.
    pub scale: f32,
}

impl Inputs<'_> {
    fn check(&self) {
        let Shape { batch, tokens, heads, key_width, value_width } = self.shape;
        let rows = batch * tokens * heads;
        assert_eq!(self.q.len(), rows * key_width, "delta rule: q must be [B, T, H, K]");
        assert_eq!(self.k.len(), rows * key_width, "delta rule: k must be [B, T, H, K]");
        assert_eq!(self.v.len(), rows * value_width, "delta rule: v must be [B, T, H, V]");
        assert_eq!(self.g.len(), rows, "delta rule: g must be [B, T, H]");
        assert_eq!(self.beta.len(), rows, "delta rule: beta must be [B, T, H]");
    }
}

/// Calls its second argument for every index below its first, on as many threads as it likes, and returns when all are
/// done. Lets a caller lend its own threads.
pub type Parallel<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// Calls for every index, one after the other.
pub fn serial(pieces: usize, piece: &(dyn Fn(usize) + Sync)) {
    (0..pieces).for_each(piece);
}

/// The output `out` `[B, T, H, V]`, and in `states` `[B, H, ⌈T / C⌉, K, V]` the state before every chunk.
///
/// `state` `[B, H, K, V]` is the state before the first position and is left as it is after the last.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn forward(
    inputs: &Inputs,
    state: &mut [f32],
    states: &mut [f32],
    out: &mut [f32],
    parallel: Parallel,
) {
    inputs.check();
    let shape = inputs.shape;
    assert_eq!(
        state.len(),
        shape.pieces() * shape.state_len(),
        "delta rule: state must be [B, H, K, V]"
    );
    assert_eq!(states.len(), shape.states_len(), "delta rule: states must be [B, H, chunks, K, V]");
    assert_eq!(out.len(), inputs.v.len(), "delta rule: out must be [B, T, H, V]");
    let chunks = shape.tokens.div_ceil(CHUNK);
    let (state, states, out) = (SharedMut::new(state), SharedMut::new(states), SharedMut::new(out));
    parallel(shape.pieces(), &|piece| {
        // SAFETY: a piece touches the state of its own head and sequence only.
        let s = unsafe { state.part(piece * shape.state_len(), shape.state_len()) };
        let mut chunk = Chunk::new(shape);
        for index in 0..chunks {
            let at = (piece * chunks + index) * shape.state_len();
            // SAFETY: as above.
            unsafe { states.part(at, shape.state_len()) }.copy_from_slice(s);
            chunk.load(inputs, piece, index);
            chunk.correct(s);
            chunk.read(s);
            chunk.write_output(inputs.scale, &out);
            chunk.advance(s);
        }
    });
}
