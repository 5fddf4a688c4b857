//! The gradients of the states that a chunk sees, as the backward pass carries them from chunk to chunk.

use crate::cpu::{Simd, vector};
use crate::log_linear::chunks::Bucket;

/// The gradients of the buckets of a head that a chunk sees, the nearest first.
pub(super) struct Reads(pub(super) Vec<Read>);

/// What the chunks so far give to a bucket.
pub(super) struct Read {
    /// The chunk before which it ends.
    end: usize,
    /// `[K, V]`: the gradient of its state.
    pub(super) z: Vec<f32>,
    /// The gradient of the logarithm of what was left of it before the chunk.
    pub(super) through: f32,
}

impl Reads {
    /// After the last chunk, with the gradient of the last state.
    pub(super) fn new(chunks: usize, d_state: Option<&mut [f32]>) -> Self {
        let last = d_state.map(|z| Read { end: chunks, z: z.to_vec(), through: 0.0 });
        Self(last.into_iter().collect())
    }

    /// The gradient of the bucket that ends before chunk `end`, if it was read.
    pub(super) fn take(&mut self, end: usize) -> Option<Vec<f32>> {
        let first = self.0.first().is_some_and(|read| read.end == end);
        first.then(|| self.0.remove(0).z)
    }

    /// From those that the next chunk sees, without the nearest, to those that a chunk sees. The gradient of the nearest,
    /// `after`, goes to the first `absorbed`: `kept` is what was left of each of them in it, and its state.
    #[inline(always)]
    pub(super) fn go_back<'a, S: Simd>(
        &mut self,
        s: S,
        buckets: &[Bucket],
        absorbed: usize,
        mut after: Option<Vec<f32>>,
        kept: impl Fn(&Bucket) -> (f32, &'a [f32]),
    ) {
        let mut earlier = std::mem::take(&mut self.0).into_iter();
        for (number, bucket) in buckets.iter().enumerate() {
            let (left, state) = kept(bucket);
            let none = || Read { end: bucket.end, z: vec![0.0; state.len()], through: 0.0 };
            let z = if number + 1 == absorbed { after.take() } else { after.clone() };
            let read = match (number < absorbed, z) {
                (true, Some(mut z)) => {
                    let through = left * vector::dot(s, &z, state);
                    vector::scale(s, left, &mut z);
                    Read { end: bucket.end, z, through }
                }
                (true, None) => none(),
                (false, _) => earlier.next().unwrap_or_else(none),
            };
            debug_assert_eq!(read.end, bucket.end);
            self.0.push(read);
        }
    }
}
