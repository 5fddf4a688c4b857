//! The gated delta rule for training: chunked forward and backward in f32.
//!
//! Within a chunk of C steps, with ℓ the running sum of g, Γ_ij = e^{ℓ_i − ℓ_j} for i ≥ j, and S the state before the
//! chunk (arXiv 2412.06464, section 3.3, with the decays in log space):
//!
//! ```text
//! A_ij = β_i Γ_ij k_i·k_j  (i > j)          P_ij = scale · Γ_ij q_i·k_j  (i ≥ j)
//! E = V − e^ℓ ⊙ (K S)                       (I + A) Δ = β ⊙ E
//! O = scale · e^ℓ ⊙ (Q S) + P Δ             S' = e^{ℓ_C} S + Kᵀ (e^{ℓ_C − ℓ} ⊙ Δ)
//! ```
//! Δ are the corrections that the delta rule writes. Only the states before each chunk are kept for the backward pass
//! (K·V/C values a position); it forms everything else anew. Nothing of size [T, T] exists.
//!
//! A position may have several steps (DeltaProduct, arXiv 2502.10297), each with its own k, v and β: the decay comes
//! before the first of them, the read after the last. Neighbouring value heads may share a key head, and a piece of work
//! is a key head of one sequence, so that K Kᵀ and Q Kᵀ are formed once for all of them. Queries and keys may be brought
//! to unit L2 norm on the way.

mod backward;
mod chunk;
pub mod log_linear;
pub(crate) mod solve;

pub(crate) use backward::Shared;
pub use backward::{Gradients, backward};

use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Kernel, Parallel, Rows, Simd, run};
use chunk::{Head, Keys};

/// C, the most steps of a chunk.
pub const CHUNK: usize = crate::cpu::chunk::CHUNK;

/// The extents of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// B, sequences.
    pub batch: usize,
    /// T, positions.
    pub tokens: usize,
    /// Steps of a position, at most [`CHUNK`]; 1 for all but DeltaProduct.
    pub steps: usize,
    /// Heads of q and k.
    pub key_heads: usize,
    /// H, heads of v and of the state, a multiple of the key heads.
    pub heads: usize,
    /// K, rows of the state.
    pub key_width: usize,
    /// V, columns of the state.
    pub value_width: usize,
}

impl Shape {
    /// Values of the states before every chunk, `[B, H, chunks, K, V]`.
    pub fn states_len(&self) -> usize {
        self.batch * self.heads * self.chunks() * self.state_len()
    }

    /// Values of one state, `[K, V]`.
    pub fn state_len(&self) -> usize {
        self.key_width * self.value_width
    }

    /// Value heads that share a key head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.key_heads
    }

    /// Positions of a chunk.
    pub(super) fn chunk_tokens(&self) -> usize {
        CHUNK / self.steps
    }

    pub(super) fn chunks(&self) -> usize {
        self.tokens.div_ceil(self.chunk_tokens())
    }

    fn check(&self) {
        assert!(
            self.steps >= 1 && self.steps <= CHUNK,
            "delta rule: 1 to {CHUNK} steps, not {}",
            self.steps
        );
        assert!(
            self.key_heads >= 1 && self.heads.is_multiple_of(self.key_heads),
            "delta rule: {} value heads cannot share {} key heads",
            self.heads,
            self.key_heads
        );
    }
}

/// What the rule reads; E is f32 or bf16.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, E> {
    /// The extents.
    pub shape: Shape,
    /// B·T rows of `[key heads, K]`.
    pub q: Rows<'a, E>,
    /// B·T·steps rows of `[key heads, K]`.
    pub k: Rows<'a, E>,
    /// B·T·steps rows of `[H, V]`.
    pub v: Rows<'a, E>,
    /// `[B, T, H]`, logarithms of the decays, ≤ 0.
    pub g: &'a [f32],
    /// `[B, T·steps, H]`.
    pub beta: &'a [f32],
    /// Factor of the output.
    pub scale: f32,
    /// Whether q and k are brought to unit L2 norm ([`crate::norm::l2_norm_definition`]) before they are used.
    pub normalise: bool,
}

impl<E: Element> Inputs<'_, E> {
    pub(super) fn check(&self) {
        self.shape.check();
        let Shape { batch, tokens, steps, key_heads, heads, key_width, value_width } = self.shape;
        let (keys, values, rows) = (key_heads * key_width, heads * value_width, batch * tokens);
        assert_eq!(self.q.width(), keys, "delta rule: rows of q must be [key heads, K]");
        assert_eq!(self.k.width(), keys, "delta rule: rows of k must be [key heads, K]");
        assert_eq!(self.v.width(), values, "delta rule: rows of v must be [H, V]");
        assert_eq!(self.g.len(), rows * heads, "delta rule: g must be [B, T, H]");
        assert_eq!(
            self.beta.len(),
            rows * steps * heads,
            "delta rule: beta must be [B, T·steps, H]"
        );
    }
}

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
    let all = shape.batch * shape.heads * shape.state_len();
    assert_eq!(state.len(), all, "delta rule: state must be [B, H, K, V]");
    assert_eq!(states.len(), shape.states_len(), "delta rule: states must be [B, H, chunks, K, V]");
    assert_eq!(
        out.len(),
        shape.batch * shape.tokens * shape.heads * shape.value_width,
        "delta rule: out must be [B, T, H, V]"
    );
    let (state, states, out) = (SharedMut::new(state), SharedMut::new(states), SharedMut::new(out));
    parallel(shape.batch * shape.key_heads, &|piece| {
        run(Forward { inputs, state: &state, states: &states, out: &out, piece });
    });
}

/// `piece` = sequence · key heads + key head.
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
        let (sequence, key_head) = (piece / shape.key_heads, piece % shape.key_heads);
        let len = shape.state_len();
        let mut keys = Keys::new(shape);
        let mut head = Head::new(shape);
        for index in 0..shape.chunks() {
            keys.load(s, inputs, sequence, key_head, index);
            for h in key_head * shape.group()..(key_head + 1) * shape.group() {
                let at = sequence * shape.heads + h;
                // SAFETY: the heads that share a key head of a sequence belong to one piece.
                let (state, kept) = unsafe {
                    (
                        state.part(at * len, len),
                        states.part((at * shape.chunks() + index) * len, len),
                    )
                };
                kept.copy_from_slice(state);
                head.load(s, inputs, &keys, h);
                head.correct(s, &keys, state, keys.rows + keys.tokens);
                head.write_output(s, inputs, &keys, h, out);
                head.advance(s, &keys, state);
            }
        }
    }
}
