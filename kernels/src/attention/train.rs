//! Softmax attention for training: forward and backward in blocks of queries and keys, one head at a time.
//!
//! Only blocks of scores that the mask lets through are formed, and none is kept: the forward pass runs over the keys
//! with a running maximum and sum (arXiv 2205.14135, alg. 1) and keeps L_t = ln Σ_s e^{score_ts} of every query; the
//! backward pass forms P_ts = e^{score_ts − L_t} anew (arXiv 2307.08691, alg. 2):
//!
//! ```text
//! dV = Pᵀ dO     dP = dO Vᵀ     D_t = dO_t · O_t     dS = P ⊙ (dP − D)
//! dQ = scale · dS K             dK = scale · dSᵀ Q
//! ```
//! In bf16 the factors of the five products are rounded; scores, sums and gradients are f32.
//! Query heads that share a key head are summed where its gradient is. The work of a window grows with T · window.

mod backward;
mod forward;

pub use backward::{Gradients, backward};
pub use forward::forward;

use crate::cpu::chunk::Product;
use crate::cpu::gemm::View;
use crate::cpu::packed::{Space, multiply_bf16};
use crate::cpu::{Precision, Simd};

/// Queries and keys of a block of scores.
const BLOCK: usize = 64;

/// The extents of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// B, sequences.
    pub batch: usize,
    /// T, queries.
    pub tokens: usize,
    /// S ≥ T, keys; the last T of them stand at the positions of the queries.
    pub keys: usize,
    /// H, heads of queries.
    pub heads: usize,
    /// H_kv, heads of keys and values; divides H.
    pub kv_heads: usize,
    /// K.
    pub key_width: usize,
    /// V.
    pub value_width: usize,
    /// The last positions attended to, the query's own included; none: all.
    pub window: Option<usize>,
}

impl Shape {
    /// Keys before the first query.
    fn past(&self) -> usize {
        self.keys - self.tokens
    }

    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn window(&self) -> usize {
        self.window.unwrap_or(usize::MAX)
    }

    /// Which of `count` keys from `first` on query t sees.
    fn seen(&self, t: usize, first: usize, count: usize) -> (usize, usize) {
        let position = self.past() + t;
        let from = (position + 1).saturating_sub(self.window()).saturating_sub(first).min(count);
        (from, (position + 1).saturating_sub(first).min(count).max(from))
    }
}

/// What attention reads. Rows of one position lie together.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The extents.
    pub shape: Shape,
    /// `[B, T, H, K]`.
    pub q: &'a [f32],
    /// `[B, S, H_kv, K]`.
    pub k: &'a [f32],
    /// `[B, S, H_kv, V]`.
    pub v: &'a [f32],
    /// Factor of the scores.
    pub scale: f32,
}

impl<'a> Inputs<'a> {
    fn check(&self) {
        let Shape { batch, tokens, keys, heads, kv_heads, key_width, value_width, window } =
            self.shape;
        assert!(keys >= tokens, "attention: as many keys as queries at least");
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "attention: H_kv must divide H");
        assert_ne!(window, Some(0), "attention: a window holds the current position at least");
        assert_eq!(self.q.len(), batch * tokens * heads * key_width, "q must be [B, T, H, K]");
        assert_eq!(self.k.len(), batch * keys * kv_heads * key_width, "k must be [B, S, H_kv, K]");
        let values = batch * keys * kv_heads * value_width;
        assert_eq!(self.v.len(), values, "attention: v must be [B, S, H_kv, V]");
    }

    /// Queries `[T, K]` of head `head` of sequence `b`.
    fn queries(&self, b: usize, head: usize) -> View<'a> {
        let Shape { tokens, heads, key_width, .. } = self.shape;
        rows_of(self.q, [tokens, heads, key_width], b, head)
    }

    /// Keys `[S, K]` of key head `head` of sequence `b`.
    fn keys(&self, b: usize, head: usize) -> View<'a> {
        let Shape { keys, kv_heads, key_width, .. } = self.shape;
        rows_of(self.k, [keys, kv_heads, key_width], b, head)
    }

    /// Values `[S, V]` of key head `head` of sequence `b`.
    fn values(&self, b: usize, head: usize) -> View<'a> {
        let Shape { keys, kv_heads, value_width, .. } = self.shape;
        rows_of(self.v, [keys, kv_heads, value_width], b, head)
    }
}

/// `[tokens, width]` of one head of `[B, tokens, heads, width]`.
fn rows_of(x: &[f32], [tokens, heads, width]: [usize; 3], b: usize, head: usize) -> View<'_> {
    let from = (b * tokens * heads + head) * width;
    View::new(&x[from.min(x.len())..], heads * width)
}

/// C `[m, n]` ← A · B, or +=, in either precision; B and C have rows without gaps but those of B's view.
struct Block<'a> {
    size: [usize; 3],
    a: View<'a>,
    b: View<'a>,
    c: &'a mut [f32],
    accumulate: bool,
}

impl Block<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S, precision: Precision, space: &mut Space) {
        let Self { size, a, b, c, accumulate } = self;
        match precision {
            Precision::F32 => Product { size, a, b, c, accumulate }.run(s),
            Precision::Bf16 => multiply_bf16(s, size, a, b, c, accumulate, space),
        }
    }
}

/// Copies `count` rows from `first` on together.
fn gather(x: View<'_>, first: usize, count: usize, width: usize, to: &mut [f32]) {
    for (i, row) in to.chunks_exact_mut(width).enumerate().take(count) {
        row.copy_from_slice(x.row(first + i, width));
    }
}
