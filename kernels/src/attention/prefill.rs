//! Softmax attention of prompts, its products in f32 or bf16; scores and sums are f32.
//!
//! Keys and values are put into the order in which register tiles read them once, by all threads. Then each takes some
//! consecutive queries of a head through the blocks of keys with a running maximum and sum (arXiv 2205.14135, alg. 1);
//! blocks wholly before the window or after the queries are never touched.

use super::Running;
use crate::cpu::gemm::View;
use crate::cpu::packed::{Diagonal, Factor, Packed, Triangle};
use crate::cpu::pool::SharedMut;
use crate::cpu::{Arithmetic, Kernel, Parallel, Precision, Rows, Simd, run_in, vector};

/// Keys of one block.
const KEYS: usize = 64;

/// Queries of one piece of work: whole strips of all instruction sets.
const QUERIES: usize = 48;

/// What attention over a prompt reads.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// T rows of `[H, K]`.
    pub q: Rows<'a, f32>,
    /// `[H_kv, S, K]`: the keys of S ≥ T positions, the last T of them those of the queries.
    pub keys: &'a [f32],
    /// `[H_kv, S, V]`
    pub values: &'a [f32],
    /// T.
    pub tokens: usize,
    /// H.
    pub heads: usize,
    /// H_kv, divides H.
    pub kv_heads: usize,
    /// K.
    pub key_width: usize,
    /// V.
    pub value_width: usize,
    /// The last positions attended to, the query's own included; none: all.
    pub window: Option<usize>,
    /// Factor of the scores.
    pub scale: f32,
}

impl Inputs<'_> {
    /// S.
    fn positions(&self) -> usize {
        self.keys.len() / (self.kv_heads * self.key_width)
    }

    /// The first position that any of the queries from `first` on sees.
    fn begin(&self, first: usize) -> usize {
        let position = self.positions() - self.tokens + first;
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    fn check(&self) {
        let Self { q, keys, values, tokens, heads, kv_heads, key_width, value_width, .. } = self;
        assert!(*kv_heads > 0 && heads.is_multiple_of(*kv_heads), "attention: H_kv must divide H");
        assert_ne!(self.window, Some(0), "attention: a window holds the current position at least");
        assert_eq!(q.width(), heads * key_width, "attention: rows of q must be [H, K]");
        let positions = self.positions();
        assert!(positions >= *tokens, "attention: as many keys as queries at least");
        assert_eq!(keys.len(), kv_heads * positions * key_width, "keys must be [H_kv, S, K]");
        assert_eq!(values.len(), kv_heads * positions * value_width, "values must be [H_kv, S, V]");
    }
}

/// The output `out`, `[T, H, V]`.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn prefill(arithmetic: Arithmetic, inputs: &Inputs, out: &mut [f32], parallel: Parallel) {
    inputs.check();
    let Inputs { tokens, heads, kv_heads, value_width, .. } = *inputs;
    assert_eq!(out.len(), tokens * heads * value_width, "attention: out must be [T, H, V]");
    // Of positions that no query sees there are no blocks.
    let first = inputs.begin(0) / KEYS;
    let blocks = inputs.positions().div_ceil(KEYS) - first;
    let mut keys: Vec<KeyBlock> = Vec::new();
    keys.resize_with(kv_heads * blocks, KeyBlock::default);
    let shared = SharedMut::new(&mut keys[..]);
    parallel(kv_heads * blocks, &|i| {
        // SAFETY: each index is handed out once.
        let block = unsafe { &mut shared.part(i, 1)[0] };
        let at = (i / blocks, first + i % blocks);
        run_in(arithmetic.level, arithmetic.precision, Load { arithmetic, inputs, at, block });
    });
    let out = SharedMut::new(out);
    let pieces = tokens.div_ceil(QUERIES);
    parallel(heads * pieces, &|i| {
        // The last queries see the most keys: first, so that the threads end together.
        let (head, query) = (i % heads, (pieces - 1 - i / heads) * QUERIES);
        let keys = &keys[head / (heads / kv_heads) * blocks..][..blocks];
        let piece = Piece { arithmetic, inputs, keys, skipped: first, head, query, out: &out };
        run_in(arithmetic.level, arithmetic.precision, piece);
    });
}

/// Some consecutive keys and values of a head.
#[derive(Debug, Default)]
struct KeyBlock {
    /// `[K, n]`
    keys: Factor,
    /// `[n, V]`
    values: Factor,
}

struct Load<'a> {
    arithmetic: Arithmetic,
    inputs: &'a Inputs<'a>,
    /// Head of keys, and block.
    at: (usize, usize),
    block: &'a mut KeyBlock,
}

impl Kernel for Load<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        match self.arithmetic.precision {
            Precision::F32 => self.in_words::<S, false>(s),
            Precision::Bf16 => self.in_words::<S, true>(s),
        }
    }
}

impl Load<'_> {
    #[inline(always)]
    fn in_words<S: Simd, const NARROW: bool>(self, s: S) {
        let Self { inputs, at: (head, index), block, .. } = self;
        let Inputs { key_width, value_width, .. } = *inputs;
        let positions = inputs.positions();
        let n = (positions - index * KEYS).min(KEYS);
        let row = head * positions + index * KEYS;
        let keys = View::new(&inputs.keys[row * key_width..], key_width);
        block.keys.pack_right::<S, NARROW>(s, keys.transposed(), n, key_width);
        let values = View::new(&inputs.values[row * value_width..], value_width);
        block.values.pack_right::<S, NARROW>(s, values, value_width, n);
    }
}

/// Some consecutive queries of one head.
struct Piece<'a> {
    arithmetic: Arithmetic,
    inputs: &'a Inputs<'a>,
    /// Of its head of keys.
    keys: &'a [KeyBlock],
    /// Blocks before the first of them.
    skipped: usize,
    head: usize,
    /// The first query.
    query: usize,
    out: &'a SharedMut<'a>,
}

impl Kernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        match self.arithmetic.precision {
            Precision::F32 => self.in_words::<S, false>(s),
            Precision::Bf16 => self.in_words::<S, true>(s),
        }
    }
}

impl Piece<'_> {
    #[inline(always)]
    fn in_words<S: Simd, const NARROW: bool>(self, s: S) {
        let Self { inputs, keys, skipped, head, query, out, .. } = self;
        let Inputs { tokens, heads, key_width, value_width, scale, .. } = *inputs;
        let n = (tokens - query).min(QUERIES);
        let mut q = vec![0.0; n * key_width];
        for (i, q) in q.chunks_exact_mut(key_width).enumerate() {
            q.copy_from_slice(inputs.q.part(query + i, head * key_width, key_width));
            vector::scale(s, scale, q);
        }
        let (mut left, mut weights) = (Factor::default(), Factor::default());
        left.pack_left::<S, NARROW>(s, View::new(&q, key_width), n, key_width);
        let mut scores = [0.0; QUERIES * KEYS];
        let mut o = vec![0.0; n * value_width];
        let mut softmax = [Running::BEGIN; QUERIES];
        let first = inputs.positions() - tokens + query;
        for block in inputs.begin(query) / KEYS..(first + n).div_ceil(KEYS) {
            let from = block * KEYS;
            let width = (inputs.positions() - from).min(KEYS);
            let KeyBlock { keys, values } = &keys[block - skipped];
            let scores = &mut scores[..n * width];
            let to = Diagonal { steps: 1, offset: first as isize - from as isize };
            let product = Packed::new([n, width, key_width], (&left, keys), scores, false);
            Packed { triangle: Triangle::Result(to), ..product }.run::<S, NARROW>(s);
            for (i, row) in scores.chunks_exact_mut(width).enumerate() {
                let seen_from = inputs.begin(query + i).saturating_sub(from).min(width);
                let seen_to = (first + i + 1).saturating_sub(from).min(width);
                row[..seen_from].fill(0.0);
                row[seen_to..].fill(0.0);
                if seen_from < seen_to {
                    let o = &mut o[i * value_width..][..value_width];
                    softmax[i].take(s, &mut row[seen_from..seen_to], o);
                }
            }
            weights.pack_left::<S, NARROW>(s, View::new(scores, width), n, width);
            let product = Packed::new([n, value_width, width], (&weights, values), &mut o, true);
            Packed { triangle: Triangle::Left(to), ..product }.run::<S, NARROW>(s);
        }
        for (i, (o, softmax)) in o.chunks_exact_mut(value_width).zip(&softmax).enumerate() {
            vector::scale(s, 1.0 / softmax.sum, o);
            let at = ((query + i) * heads + head) * value_width;
            // SAFETY: no other piece has these queries of this head.
            unsafe { out.part(at, value_width) }.copy_from_slice(o);
        }
    }
}
