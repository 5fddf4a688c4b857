//! Scalar-gated linear attention for training: chunked forward and backward, with the dt and the skip of Mamba2.
//!
//! S ← e^{g_t} S + k_t (a_t v_t)ᵀ;  o_t = Sᵀ q_t + D v_t, where a (`v_scale`) is the dt of Mamba2, D its skip, and q
//! and k are shared by the heads. Within a chunk of C positions, with ℓ the running sum of g, Γ_ij = e^{ℓ_i − ℓ_j} for
//! i ≥ j, else 0, Ṽ = a ⊙ V, and S the state before the chunk (arXiv 2405.21060, section 6):
//!
//! ```text
//! P = Q Kᵀ ⊙ Γ        O = e^ℓ ⊙ (Q S) + P Ṽ + D V        S' = e^{ℓ_C} S + Kᵀ (e^{ℓ_C − ℓ} ⊙ Ṽ)
//! ```
//! The log-linear form (arXiv 2506.04761, section 3.2) has λ_i at the level of (i, j) as a further factor of P_ij, and
//! reads each bucket of the past at its own level: O = Σ_b λ^(b) ⊙ e^ℓ ⊙ (Q S_b). A state only fades while it is a bucket
//! by itself, by a number; so each is kept as it was when its bucket was closed, one for each chunk. The plain form is the
//! case of one bucket, which every chunk closes anew.
//!
//! Only the states before each chunk are kept for the backward pass; it forms everything else anew. A piece of work is
//! a group of heads of one sequence, so that Q Kᵀ is formed once for all of them.

mod backward;
mod chunk;
mod reads;
mod rule;

pub use backward::{Gradients, backward, backward_log_linear};

use crate::cpu::chunk::CHUNK;
use crate::cpu::gemm::View;
use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Kernel, Parallel, Rows, Simd, run, vector};
use crate::log_linear::Lambda;
use chunk::{Head, Keys};
use rule::{Fading, Rule};

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
    pub(super) fn check(&self) {
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
    let shape = inputs.shape;
    let all = shape.batch * shape.heads * shape.state_len();
    assert_eq!(state.len(), all, "linear attention: state must be [B, H, K, V]");
    forward_of(Rule { inputs, lambda: None }, Some(state), states, out, parallel);
}

/// As [`forward`], log-linear, from nothing: the output weighed by `lambda`, and in `states` `[B, H, ⌈T / C⌉, K, V]` for
/// each chunk but the first the state of the bucket that ends before it.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn forward_log_linear<E: Element>(
    inputs: &Inputs<E>,
    lambda: Lambda,
    states: &mut [f32],
    out: &mut [E],
    parallel: Parallel,
) {
    forward_of(Rule { inputs, lambda: Some(lambda) }, None, states, out, parallel);
}

fn forward_of<E: Element>(
    rule: Rule<E>,
    state: Option<&mut [f32]>,
    states: &mut [f32],
    out: &mut [E],
    parallel: Parallel,
) {
    rule.check();
    let shape = rule.inputs.shape;
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
    let (state, states, out) =
        (state.map(SharedMut::new), SharedMut::new(states), SharedMut::new(out));
    parallel(shape.batch * shape.groups(), &|piece| {
        run(Forward {
            rule,
            state: state.as_ref(),
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

struct Forward<'a, E> {
    rule: Rule<'a, E>,
    /// Of the plain form.
    state: Option<&'a SharedMut<'a>>,
    states: &'a SharedMut<'a>,
    out: &'a SharedMut<'a, E>,
    piece: Piece,
}

impl<E: Element> Kernel for Forward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { rule, state: at_ends, states, out, piece } = self;
        let (inputs, shape) = (rule.inputs, rule.inputs.shape);
        let (len, chunks) = (shape.state_len(), shape.chunks());
        let fading = Fading::new(inputs, piece);
        let mut keys = Keys::new(shape);
        let mut head = Head::new(shape);
        for index in 0..chunks {
            keys.load(s, inputs, piece.sequence, index);
            let (buckets, absorbed) = (rule.buckets(index), rule.absorbed(index));
            for h in piece.heads.0..piece.heads.1 {
                let at = piece.sequence * shape.heads + h;
                // SAFETY: a head of a sequence belongs to one piece, which holds one part of a state at a time.
                let at_ends = || at_ends.map(|state| unsafe { state.part(at * len, len) });
                // SAFETY: as above; no two parts of different chunks overlap.
                let state = |end: usize| unsafe { states.part((at * chunks + end) * len, len) };
                if let (0, Some(first)) = (index, at_ends()) {
                    state(0).copy_from_slice(first);
                }
                head.load(s, inputs, &keys, h);
                head.weigh(s, &keys, rule.lambda.map(|lambda| (lambda, h)));
                for (number, bucket) in buckets.iter().enumerate() {
                    let left = fading.left(h, bucket.end, index);
                    let weight = |i: usize| {
                        left * rule.weight((keys.first + i) * shape.heads + h, bucket.level)
                    };
                    head.read(s, &keys, state(bucket.end), weight, number > 0);
                }
                head.read_chunk(s, &keys, !buckets.is_empty());
                head.write_output(s, inputs, &keys, h, out);
                let next = if index + 1 < chunks { Some(state(index + 1)) } else { at_ends() };
                if let Some(next) = next {
                    next.fill(0.0);
                    for bucket in &buckets[..absorbed] {
                        let left = fading.left(h, bucket.end, index + 1);
                        vector::add_scaled(s, left, state(bucket.end), next);
                    }
                    head.add_written(s, &keys, next);
                }
            }
        }
    }
}
