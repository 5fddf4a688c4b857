//! The Fenwick partition of the past as chunked forms see it: buckets that begin and end where chunks do, and spans of
//! the columns inside a chunk.
//!
//! A chunk begins at a multiple of its length, a power of two, so that all its positions see an earlier bucket at one
//! level.

use std::ops::Range;

use super::level;
use crate::cpu::chunk::CHUNK;

/// λ of every position, head and level.
#[derive(Debug, Clone, Copy)]
pub struct Lambda<'a> {
    /// `[B, T, H, L]`.
    pub values: &'a [f32],
    /// L, at least 1. The last level holds all that is further away.
    pub levels: usize,
}

impl<'a> Lambda<'a> {
    /// λ of `row`, which numbers positions and heads, `[L]`.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.levels..][..self.levels]
    }

    pub(crate) fn check(&self, rows: usize) {
        assert!(self.levels >= 1, "log-linear: at least one level");
        assert_eq!(
            self.values.len(),
            rows * self.levels,
            "log-linear: lambda must be [B, T, H, L]"
        );
    }
}

/// A piece of the past, a bucket of the paper (arXiv 2506.04761, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// The chunk before which it ends.
    pub(crate) end: usize,
    /// The level at which it is seen.
    pub(crate) level: usize,
}

/// The buckets that chunk `index` sees, the nearest first; the first of them ends before it.
pub(crate) fn buckets(index: usize, levels: usize) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    let mut end = index;
    while end > 0 {
        let level = level(index * CHUNK, end * CHUNK - 1, levels);
        buckets.push(Bucket { end, level });
        end = if level == levels - 1 { 0 } else { end & (end - 1) };
    }
    buckets
}

/// How many of the buckets that chunk `index` sees, from the nearest on, are one with it for the next chunk.
pub(crate) fn absorbed(index: usize, levels: usize) -> usize {
    let after = buckets(index + 1, levels);
    buckets(index, levels)
        .iter()
        .filter(|bucket| !after.iter().any(|p| p.end == bucket.end))
        .count()
}

/// The columns that row `i` of a chunk sees at one level, from the diagonal to the left.
#[inline(always)]
pub(crate) fn spans(i: usize, levels: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut rest = i;
    let earlier = std::iter::from_fn(move || {
        let bit = (rest > 0).then(|| rest.trailing_zeros() as usize)?;
        let (end, start) = (rest, rest & (rest - 1));
        rest = start;
        Some(((bit + 1).min(levels - 1), start..end))
    });
    std::iter::once((0, i..i + 1)).chain(earlier)
}

/// λ_i at the level of each column j ≤ i, into `out`.
#[inline(always)]
pub(crate) fn spread(lambda: &[f32], i: usize, out: &mut [f32]) {
    for (level, columns) in spans(i, lambda.len()) {
        out[columns].fill(lambda[level]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_spans_are_the_levels_of_all_positions() {
        for levels in [1, 2, 5, 7, 8, 9, 12] {
            for index in 0..70 {
                let buckets = buckets(index, levels);
                let of_chunk = |past: usize| buckets.iter().rfind(|p| past < p.end).expect("seen");
                for past in 0..index {
                    for (i, j) in [(0, 0), (63, 0), (17, 40), (63, 63)] {
                        let (position, past_position) = (index * CHUNK + i, past * CHUNK + j);
                        let expected = level(position, past_position, levels);
                        assert_eq!(
                            of_chunk(past).level,
                            expected,
                            "{position} sees {past_position}"
                        );
                    }
                }
                let after = super::buckets(index + 1, levels);
                assert_eq!(after[1..], buckets[absorbed(index, levels)..], "chunk {index}");
            }
            for i in 0..CHUNK {
                let mut seen = vec![usize::MAX; i + 1];
                spans(i, levels).for_each(|(level, columns)| seen[columns].fill(level));
                let expected: Vec<usize> = (0..=i).map(|j| level(i, j, levels)).collect();
                assert_eq!(seen, expected);
            }
        }
    }
}
