//! What the rule reads, and how much of it at once.

use crate::cpu::{Element, Rows};

/// Positions from one state that is kept to the next.
pub const CHUNK: usize = crate::cpu::chunk::CHUNK;

/// C, the most positions of a block: a vector of every instruction set divides it, and it divides [`CHUNK`].
pub(super) const BLOCK: usize = 16;

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
    /// Values of the states before every chunk, `[B, H, chunks, K, V]`.
    pub fn states_len(&self) -> usize {
        self.batch * self.heads * self.chunks() * self.state_len()
    }

    /// Values of one state, `[K, V]`.
    pub fn state_len(&self) -> usize {
        self.key_width * self.value_width
    }

    pub(super) fn chunks(&self) -> usize {
        self.tokens.div_ceil(CHUNK)
    }
}

/// What the rule reads; E is f32 or bf16.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, E> {
    /// The extents.
    pub shape: Shape,
    /// B·T rows of `[H, K]`.
    pub q: Rows<'a, E>,
    /// B·T rows of `[H, K]`.
    pub k: Rows<'a, E>,
    /// B·T rows of `[H, V]`.
    pub v: Rows<'a, E>,
    /// B·T rows of `[H, K]`, logarithms of the decays, ≤ 0.
    pub g: Rows<'a, f32>,
    /// `[B, T, H]`.
    pub beta: &'a [f32],
    /// Factor of the output.
    pub scale: f32,
    /// Whether q and k are brought to unit L2 norm ([`crate::norm::l2_norm_definition`]) before they are used.
    pub normalise: bool,
}

impl<E: Element> Inputs<'_, E> {
    pub(super) fn check(&self) {
        let Shape { batch, tokens, heads, key_width, value_width } = self.shape;
        let keys = heads * key_width;
        assert_eq!(self.q.width(), keys, "KDA: rows of q must be [H, K]");
        assert_eq!(self.k.width(), keys, "KDA: rows of k must be [H, K]");
        assert_eq!(self.g.width(), keys, "KDA: rows of g must be [H, K]");
        assert_eq!(self.v.width(), heads * value_width, "KDA: rows of v must be [H, V]");
        assert_eq!(self.beta.len(), batch * tokens * heads, "KDA: beta must be [B, T, H]");
    }
}
