//! Kimi Delta Attention for training: chunked forward and backward in f32.
//!
//! In a block of C positions, with a_s = e^{g_s} the decays `[K]` of position s, products of decays channel by channel
//! (Kimi Linear, arXiv 2510.26692, section 3.1)
//!
//! ```text
//! Γ_ij = Π_{j < s ≤ i} a_s        D_i = Π_{s ≤ i} a_s        T_j = Π_{s > j} a_s        w = Π a_s
//! ```
//!
//! and S the state before the block:
//!
//! ```text
//! A_ij = β_i Σ_c k_ic k_jc Γ_ijc  (i > j)      P_ij = scale Σ_c q_ic k_jc Γ_ijc  (i ≥ j)
//! E = V − (D ⊙ K) S                            (I + A) Δ = β ⊙ E
//! O = scale · (D ⊙ Q) S + P Δ                  S' = Diag(w) S + (T ⊙ K)ᵀ Δ
//! ```
//! Δ are the corrections that the delta rule writes. Chunked forms of large chunks split Γ_ij into D_i / D_j, of which the
//! divisor soon underflows. In a block as short as here each pair of positions has its own Γ, a product that goes on from
//! pair to pair, and D, T and w reach to the block's ends: no factor is above 1, nothing is divided, and a decay that
//! underflows to 0 is forgotten, as it should be. w, by which a state is multiplied time and again, is the exponential
//! of a sum.
//!
//! Only the states before each [`CHUNK`] are kept for the backward pass (K·V/64 values a position); it forms everything
//! else anew, block by block. A piece of work is a head of one sequence. Queries and keys may be brought to unit L2 norm
//! on the way.

mod backward;
mod block;
pub mod decays;
mod extents;
mod pairs;

pub use backward::backward;
pub use extents::{CHUNK, Inputs, Shape};

pub use crate::delta_rule::train::Gradients;

use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Flushed, Kernel, Parallel, Simd, run};
use block::Block;
use extents::BLOCK;

/// The output `out` `[B, T, H, V]`, and in `states` `[B, H, chunks, K, V]` the state before every chunk.
///
/// `state` `[B, H, K, V]` is the state before the first position and is left as it is after the last.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn forward<E: Element>(
    inputs: &Inputs<E>,
    state: &mut [f32],
    states: &mut [f32],
    out: &mut [E],
    parallel: Parallel,
) {
    inputs.check();
    let shape = inputs.shape;
    let Shape { batch, tokens, heads, value_width, .. } = shape;
    let heads_of_all = batch * heads;
    assert_eq!(state.len(), heads_of_all * shape.state_len(), "KDA: state must be [B, H, K, V]");
    assert_eq!(states.len(), shape.states_len(), "KDA: states must be [B, H, chunks, K, V]");
    assert_eq!(out.len(), heads_of_all * tokens * value_width, "KDA: out must be [B, T, H, V]");
    let (state, states, out) = (SharedMut::new(state), SharedMut::new(states), SharedMut::new(out));
    parallel(heads_of_all, &|piece| {
        let _flushed = Flushed::begin(); // what decays to a subnormal number has decayed
        run(Forward { inputs, state: &state, states: &states, out: &out, piece });
    });
}

/// `piece` = sequence · heads + head.
struct Forward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
    state: &'a SharedMut<'a>,
    states: &'a SharedMut<'a>,
    out: &'a SharedMut<'a, E>,
    piece: usize,
}

impl<E: Element> Kernel for Forward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { inputs, state, states, out, piece } = self;
        let shape = inputs.shape;
        let (sequence, head) = (piece / shape.heads, piece % shape.heads);
        let len = shape.state_len();
        // SAFETY: a head of a sequence belongs to one piece.
        let state = unsafe { state.part(piece * len, len) };
        let mut block = Block::new(shape);
        for position in (0..shape.tokens).step_by(BLOCK) {
            if position.is_multiple_of(CHUNK) {
                let at = piece * shape.chunks() + position / CHUNK;
                // SAFETY: as above.
                unsafe { states.part(at * len, len) }.copy_from_slice(state);
            }
            block.load(s, inputs, sequence, head, position);
            block.correct(s, state);
            block.write_output(s, head, state, out);
            block.advance(s, state);
        }
    }
}
