//! The log-linear form of the gated delta rule for training (arXiv 2506.04761, section 3.3): one step a position.
//!
//! With the letters of the plain form (`train.rs`), T = (I + A)⁻¹, and Λ_ij = λ_i[level(i, j)], the chunk is solved once
//! for whatever states it reads:
//!
//! ```text
//! [W, U] = T [−β e^ℓ ⊙ K, β ⊙ V]                 D = P T
//! M = e^{ℓ_C} I + (e^{ℓ_C−ℓ} ⊙ K)ᵀ W             R = scale · e^ℓ ⊙ Q − D (β e^ℓ ⊙ K)
//! O = (D ⊙ Λ) (β ⊙ V) + Σ_b λ^(b) ⊙ (R S_b)      S_b' = M S_b,  and of the bucket that ends here (e^{ℓ_C−ℓ} ⊙ K)ᵀ U
//! ```
//! where b are the buckets of the Fenwick partition that the chunk sees, and what becomes one bucket is added up. The
//! states that each chunk sees are kept for the backward pass, about log₂(T / C) / 2 for a chunk; it forms everything else
//! anew.

mod backward;
mod chunk;

pub use backward::{Gradients, backward};

use super::chunk::Keys;
use super::{CHUNK, Inputs, Shape};
use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Kernel, Parallel, Simd, run, vector};
use crate::log_linear::Lambda;
use crate::log_linear::chunks::{Bucket, absorbed, buckets};
use chunk::Solved;

/// Values of the states that the chunks see, `[B, H, buckets of all chunks, K, V]`.
pub fn states_len(shape: Shape, levels: usize) -> usize {
    shape.batch * shape.heads * Partition::new(shape, levels).states * shape.state_len()
}

/// The buckets that every chunk sees, and where their states are kept.
struct Partition {
    chunks: Vec<Seen>,
    /// Of one head of one sequence.
    states: usize,
}

/// What a chunk sees of the past.
struct Seen {
    /// The nearest first.
    buckets: Vec<Bucket>,
    /// How many of them, from the nearest on, are one with this chunk after it.
    absorbed: usize,
    /// Place of the first bucket's state among those of the head; the others follow.
    first: usize,
}

impl Partition {
    fn new(shape: Shape, levels: usize) -> Self {
        let mut states = 0;
        let mut seen = |index: usize| {
            let (first, buckets) = (states, buckets(index, levels));
            states += buckets.len();
            Seen { buckets, absorbed: absorbed(index, levels), first }
        };
        let chunks = (0..shape.chunks()).map(&mut seen).collect();
        Self { chunks, states }
    }
}

fn check<E: Element>(inputs: &Inputs<E>, lambda: Lambda, states: &[f32]) {
    inputs.check();
    lambda.check(inputs.g.len());
    assert_eq!(inputs.shape.steps, 1, "log-linear delta rule: one step a position");
    assert_eq!(
        states.len(),
        states_len(inputs.shape, lambda.levels),
        "log-linear delta rule: states must be those of all buckets that chunks see"
    );
}

/// The output `out` `[B, T, H, V]` from nothing before the first position, and in `states`, see [`states_len`], what the
/// backward pass needs.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn forward<E: Element>(
    inputs: &Inputs<E>,
    lambda: Lambda,
    states: &mut [f32],
    out: &mut [E],
    parallel: Parallel,
) {
    check(inputs, lambda, states);
    let shape = inputs.shape;
    assert_eq!(
        out.len(),
        shape.batch * shape.tokens * shape.heads * shape.value_width,
        "log-linear delta rule: out must be [B, T, H, V]"
    );
    let partition = &Partition::new(shape, lambda.levels);
    let (states, out) = (&SharedMut::new(states), &SharedMut::new(out));
    parallel(shape.batch * shape.key_heads, &|piece| {
        run(Forward { inputs, lambda, partition, states, out, piece });
    });
}

/// `piece` = sequence · key heads + key head.
struct Forward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
    lambda: Lambda<'a>,
    partition: &'a Partition,
    states: &'a SharedMut<'a>,
    out: &'a SharedMut<'a, E>,
    piece: usize,
}

impl<E: Element> Kernel for Forward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { inputs, lambda, partition, states, out, piece } = self;
        let shape = inputs.shape;
        let (sequence, key_head) = (piece / shape.key_heads, piece % shape.key_heads);
        let len = shape.state_len();
        let mut keys = Keys::new(shape);
        let mut solved = Solved::new(shape);
        let mut sum = vec![0.0; len];
        for (index, seen) in partition.chunks.iter().enumerate() {
            keys.load(s, inputs, sequence, key_head, index);
            for h in key_head * shape.group()..(key_head + 1) * shape.group() {
                let at = (sequence * shape.heads + h) * partition.states;
                // SAFETY: the heads that share a key head of a sequence belong to one piece, and no two states overlap.
                let state = |place: usize| unsafe { states.part((at + place) * len, len) };
                solved.load(s, inputs, &keys, h);
                solved.read_chunk(s, &keys, lambda, h);
                for (number, bucket) in seen.buckets.iter().enumerate() {
                    let state = state(seen.first + number);
                    let weight =
                        |i: usize| lambda.row((keys.first + i) * shape.heads + h)[bucket.level];
                    solved.read(s, &keys, state, weight);
                }
                solved.write_output(s, &keys, h, out);
                let Some(after) = partition.chunks.get(index + 1) else { continue };
                solved.form_step(s, &keys);
                let (first, earlier) = (state(after.first), seen.absorbed..seen.buckets.len());
                for (number, place) in earlier.zip(after.first + 1..) {
                    solved.carry(s, state(seen.first + number), state(place), false);
                }
                solved.copy_written(first);
                if seen.absorbed > 0 {
                    sum.copy_from_slice(state(seen.first));
                    for number in 1..seen.absorbed {
                        vector::add_scaled(s, 1.0, state(seen.first + number), &mut sum);
                    }
                    solved.carry(s, &sum, first, true);
                }
            }
        }
    }
}
