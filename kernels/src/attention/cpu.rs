//! Softmax attention on the CPU: one token against a cache, and blocks of queries.

use super::Running;
use crate::cpu::chunk::Product;
use crate::cpu::gemm::View;
use crate::cpu::{Kernel, Simd, vector};

/// One position, the query heads that share one key/value head, against that head's cache.
///
/// The order of the cached positions does not matter, so a ring buffer serves a window as it is.
#[derive(Debug)]
pub struct Decode<'a> {
    /// `[G, K]`
    pub q: &'a [f32],
    /// `[C, K]`, the current position's included.
    pub keys: &'a [f32],
    /// `[C, V]`
    pub values: &'a [f32],
    /// K.
    pub key_width: usize,
    /// V.
    pub value_width: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// `[C]`, overwritten.
    pub scores: &'a mut [f32],
    /// o, `[G, V]`, overwritten.
    pub o: &'a mut [f32],
}

impl Kernel for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { q, keys, values, key_width, value_width, scale, scores, o } = self;
        assert_eq!(keys.len(), scores.len() * key_width, "attention decode: keys must be [C, K]");
        assert_eq!(
            values.len(),
            scores.len() * value_width,
            "attention decode: values must be [C, V]"
        );
        for (q, o) in q.chunks_exact(key_width).zip(o.chunks_exact_mut(value_width)) {
            vector::dots(s, q, keys, scores);
            vector::scale(s, scale, scores);
            let sum = vector::exp_and_sum(s, vector::largest(s, scores), scores);
            vector::weighted_sum(s, scores, values, o);
            vector::scale(s, 1.0 / sum, o);
        }
    }
}

/// Keys of one block.
const KEY_BLOCK: usize = 128;

/// Some consecutive queries of one head against the keys up to the last of them.
///
/// Softmax runs over blocks of keys with a running maximum and sum (arXiv 2205.14135, alg. 1); blocks wholly before the
/// window or after the queries are never touched.
#[derive(Debug)]
pub struct Block<'a> {
    /// Queries.
    pub tokens: usize,
    /// Position of the first query among the keys.
    pub first: usize,
    /// K.
    pub key_width: usize,
    /// V.
    pub value_width: usize,
    /// `[tokens, K]`
    pub q: View<'a>,
    /// The keys transposed, `[K, C]`, C ≥ first + tokens.
    pub keys: View<'a>,
    /// `[C, V]`
    pub values: View<'a>,
    /// The last positions attended to, the query's own included.
    pub window: Option<usize>,
    /// Factor of the scores.
    pub scale: f32,
    /// o, `[tokens, V]`, overwritten.
    pub o: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { tokens, first, key_width, value_width, q, keys, values, window, scale, o } =
            self;
        assert_eq!(o.len(), tokens * value_width, "attention: o must be [T, V]");
        let window = window.unwrap_or(usize::MAX);
        let mut scores = vec![0.0; tokens * KEY_BLOCK];
        let mut softmax = vec![Running::BEGIN; tokens];
        o.fill(0.0);
        let begin = (first + 1).saturating_sub(window);
        let end = first + tokens;
        for block in (begin..end).step_by(KEY_BLOCK) {
            let n = (end - block).min(KEY_BLOCK);
            let scores = &mut scores[..tokens * n];
            let keys = View::new(&keys.data[block..], keys.rows);
            Product { size: [tokens, n, key_width], a: q, b: keys, c: scores, accumulate: false }
                .run(s);
            for (i, row) in scores.chunks_exact_mut(n).enumerate() {
                let position = first + i;
                let from = (position + 1).saturating_sub(window).saturating_sub(block).min(n);
                let to = (position + 1).saturating_sub(block).min(n);
                row[..from].fill(0.0);
                row[to..].fill(0.0);
                if from >= to {
                    continue;
                }
                let seen = &mut row[from..to];
                vector::scale(s, scale, seen);
                softmax[i].take(s, seen, &mut o[i * value_width..][..value_width]);
            }
            let (a, b) = (View::new(scores, n), values.from_row(block));
            Product { size: [tokens, value_width, n], a, b, c: o, accumulate: true }.run(s);
        }
        for (o, softmax) in o.chunks_exact_mut(value_width).zip(&softmax) {
            vector::scale(s, 1.0 / softmax.sum, o);
        }
    }
}
