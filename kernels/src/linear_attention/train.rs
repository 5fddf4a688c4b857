//! Scalar-gated linear attention for training: chunked forward and backward, with the dt and the skip of Mamba2.
//!
//! S ← e^{g_t} S + k_t (a_t v_t)ᵀ;  o_t = Sᵀ q_t + D v_t, where a (`v_scale`) is the dt of Mamba2, D its skip, and q
//! and k are shared by the heads. Within a chunk of C positions, with ℓ the running sum of g, Γ_ij = e^{ℓ_i − ℓ_j} for
//! i ≥ j, else 0, Ṽ = a ⊙ V, and S the state before the chunk (arXiv 2405.21060, section 6):
//!
//! ```text
//! P = Q Kᵀ ⊙ Γ        O = e^ℓ ⊙ (Q S) + P Ṽ + D V        S' = e^{ℓ_C} S + Kᵀ (e^{ℓ_C − ℓ} ⊙ Ṽ)
//! ```
//! Only the states before each chunk are kept for the backward pass; it forms everything else anew. A piece of work is
//! a group of heads of one sequence, so that Q Kᵀ is formed once for all of them.

mod backward;
mod chunk;

pub use backward::{Gradients, backward};

use crate::cpu::chunk::CHUNK;
use crate::cpu::gemm::View;
use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Kernel, Parallel, Rows, Simd, run};
use chunk::{Head, Keys};

/// Heads that a piece of work takes at most, and pieces that there should be for several threads.
const MOST_HEADS: usize = 8;
const ENOUGH_PIECES: usize = 8;

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
    /// Values of one state, `[K, V]`.
    pub fn state_len(&self) -> usize {
        self.key_width * self.value_width
    }

    /// Values of the states before every chunk, `[B, H, ⌈T / C⌉, K, V]`.
    pub fn states_len(&self) -> usize {
        self.batch * self.heads * self.chunks() * self.state_len()
    }

    fn chunks(&self) -> usize {
        self.tokens.div_ceil(CHUNK)
    }

    /// B·T.
    fn rows(&self) -> usize {
        self.batch * self.tokens
    }

    /// Heads of a piece: as many as leave enough pieces. It depends on the shape only, so that results do not depend
    /// on the number of threads.
    fn heads_of_piece(&self) -> usize {
        let mut heads = MOST_HEADS.min(self.heads).max(1);
        while heads > 1 && self.batch * self.heads.div_ceil(heads) < ENOUGH_PIECES {
            heads = heads.div_ceil(2);
        }
        heads
    }

    fn groups(&self) -> usize {
        self.heads.div_ceil(self.heads_of_piece())
    }
}

/// What the rule reads; E is f32 or bf16.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, E> {
    /// The extents.
    pub shape: Shape,
    /// B·T rows of K.
    pub q: Rows<'a, E>,
    /// B·T rows of K.
    pub k: Rows<'a, E>,
    /// B·T rows of H·V.
    pub v: Rows<'a, E>,
    /// a, `[B, T, H]`.
    pub v_scale: &'a [f32],
    /// Logarithms of the decays, at most 0, `[B, T, H]`.
    pub g: &'a [f32],
    /// D, `[H]`.
    pub skip: &'a [f32],
}

impl<E: Element> Inputs<'_, E> {
    fn check(&self) {
        let Shape { heads, key_width, value_width, .. } = self.shape;
        let rows = self.shape.rows();
        assert_eq!(self.q.width(), key_width, "linear attention: rows of q must be [K]");
        assert_eq!(self.k.width(), key_width, "linear attention: rows of k must be [K]");
        assert_eq!(
            self.v.width(),
            heads * value_width,
            "linear attention: rows of v must be [H, V]"
        );
        assert_eq!(self.g.len(), rows * heads, "linear attention: g must be [B, T, H]");
        assert_eq!(self.v_scale.len(), rows * heads, "linear attention: v_scale must be [B, T, H]");
        assert_eq!(self.skip.len(), heads, "linear attention: skip must be [H]");
    }
}

/// The output `out` `[B, T, H, V]`, and in `states` `[B, H, ⌈T / C⌉, K, V]` the state before every chunk.
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
    assert_eq!(state.len(), all, "linear attention: state must be [B, H, K, V]");
    assert_eq!(
        states.len(),
        shape.states_len(),
        "linear attention: states must be [B, H, chunks, K, V]"
    );
    assert_eq!(
        out.len(),
        shape.rows() * shape.heads * shape.value_width,
        "linear attention: out must be [B, T, H, V]"
    );
    let (state, states, out) = (SharedMut::new(state), SharedMut::new(states), SharedMut::new(out));
    parallel(shape.batch * shape.groups(), &|piece| {
        run(Forward {
            inputs,
            state: &state,
            states: &states,
            out: &out,
            piece: Piece::new(shape, piece),
        });
    });
}

/// Some heads of one sequence.
#[derive(Debug, Clone, Copy)]
struct Piece {
    sequence: usize,
    group: usize,
    heads: (usize, usize),
}

impl Piece {
    fn new(shape: Shape, piece: usize) -> Self {
        let (sequence, group) = (piece / shape.groups(), piece % shape.groups());
        let first = group * shape.heads_of_piece();
        Self { sequence, group, heads: (first, (first + shape.heads_of_piece()).min(shape.heads)) }
    }
}

struct Forward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
    state: &'a SharedMut<'a>,
    states: &'a SharedMut<'a>,
    out: &'a SharedMut<'a, E>,
    piece: Piece,
}

impl<E: Element> Kernel for Forward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { inputs, state, states, out, piece } = self;
        let shape = inputs.shape;
        let mut keys = Keys::new(shape);
        let mut head = Head::new(shape);
        for index in 0..shape.chunks() {
            keys.load(s, inputs, piece.sequence, index);
            for h in piece.heads.0..piece.heads.1 {
                let at = piece.sequence * shape.heads + h;
                // SAFETY: a head of a sequence belongs to one piece.
                let (state, kept) = unsafe {
                    (
                        state.part(at * shape.state_len(), shape.state_len()),
                        states.part(
                            (at * shape.chunks() + index) * shape.state_len(),
                            shape.state_len(),
                        ),
                    )
                };
                kept.copy_from_slice(state);
                head.load(s, inputs, &keys, h);
                head.read(s, &keys, state);
                head.write_output(s, inputs, &keys, h, out);
                head.advance(s, &keys, state);
            }
        }
    }
}
