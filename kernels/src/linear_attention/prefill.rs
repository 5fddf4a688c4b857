//! Scalar-gated linear attention of prompts: the chunked form of [`super::train`] without what a backward pass needs, its
//! products in f32 or bf16. States and all that is exponentiated stay f32.
//!
//! What the heads share of a chunk (Q Kᵀ, and Q and K in the order in which register tiles read them) is made once, by
//! all threads, for a segment of chunks; then each thread takes some columns of the states of some heads through it.

use super::train::{Inputs, Shape};
use crate::cpu::chunk::{CHUNK, Columns, Decays, SEGMENT, columns_of_piece};
use crate::cpu::gemm::View;
use crate::cpu::packed::{Diagonal, Factor, Packed, Triangle};
use crate::cpu::pool::SharedMut;
use crate::cpu::{Arithmetic, Kernel, Parallel, Precision, Simd, run_in, vector};

/// The output `out` `[B, T, H, V]`; `state` `[B, H, K, V]` is the state before the first position and is left as it is
/// after the last.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn prefill(
    arithmetic: Arithmetic,
    inputs: &Inputs<f32>,
    state: &mut [f32],
    out: &mut [f32],
    parallel: Parallel,
) {
    inputs.check();
    let shape = inputs.shape;
    let Shape { batch, tokens, heads, value_width, .. } = shape;
    assert_eq!(
        state.len(),
        batch * heads * shape.state_len(),
        "linear attention: state must be [B, H, K, V]"
    );
    assert_eq!(
        out.len(),
        batch * tokens * heads * value_width,
        "linear attention: out must be [B, T, H, V]"
    );
    let columns = columns_of_piece(batch * heads, value_width);
    let pieces = value_width.div_ceil(columns);
    let chunks = tokens.div_ceil(CHUNK);
    let (state, out) = (SharedMut::new(state), SharedMut::new(out));
    let mut keys: Vec<Keys> = Vec::new();
    for first in (0..chunks).step_by(SEGMENT) {
        let count = (chunks - first).min(SEGMENT);
        keys.resize_with(batch * count, Keys::default);
        let shared = SharedMut::new(&mut keys[..]);
        parallel(batch * count, &|i| {
            // SAFETY: each index is handed out once.
            let keys = unsafe { &mut shared.part(i, 1)[0] };
            let at = (i / count, first + i % count);
            run_in(arithmetic.level, arithmetic.precision, Load { arithmetic, inputs, at, keys });
        });
        parallel(batch * heads * pieces, &|i| {
            let (head, piece) = (i / pieces, i % pieces);
            let columns = Columns::new(piece * columns, columns, value_width);
            let keys = &keys[head / heads * count..][..count];
            let piece = Piece { arithmetic, inputs, keys, head, columns, state: &state, out: &out };
            run_in(arithmetic.level, arithmetic.precision, piece);
        });
    }
}

/// What the heads share of a chunk. C below is `rows`.
#[derive(Debug, Default)]
struct Keys {
    /// Positions of this chunk, at most [`CHUNK`].
    rows: usize,
    /// The first of them, counted over all sequences.
    first: usize,
    /// `[C, K]`
    q: Factor,
    /// `[K, C]`
    k_transposed: Factor,
    /// `[C, CHUNK]`: Q Kᵀ, of meaning up to the diagonal.
    scores: Vec<f32>,
}

struct Load<'a> {
    arithmetic: Arithmetic,
    inputs: &'a Inputs<'a, f32>,
    /// Sequence and chunk.
    at: (usize, usize),
    keys: &'a mut Keys,
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
        let Self { inputs, at: (sequence, index), keys, .. } = self;
        let Shape { tokens, key_width, .. } = inputs.shape;
        keys.rows = CHUNK.min(tokens - index * CHUNK);
        keys.first = sequence * tokens + index * CHUNK;
        let (rows, first) = (keys.rows, keys.first);
        let (q, k) = (inputs.q.view(first, 0), inputs.k.view(first, 0));
        keys.q.pack_left::<S, NARROW>(s, q, rows, key_width);
        keys.k_transposed.pack_left::<S, NARROW>(s, k.transposed(), key_width, rows);
        let mut right = Factor::default();
        right.pack_right::<S, NARROW>(s, k.transposed(), rows, key_width);
        keys.scores.resize(CHUNK * CHUNK, 0.0);
        Packed {
            size: [rows, rows, key_width],
            left: &keys.q,
            right: &right,
            triangle: Triangle::Result(Diagonal::steps(1)),
            c: &mut keys.scores,
            c_stride: CHUNK,
            accumulate: false,
        }
        .run::<S, NARROW>(s);
    }
}

/// Some columns of one head of one sequence through some chunks.
struct Piece<'a> {
    arithmetic: Arithmetic,
    inputs: &'a Inputs<'a, f32>,
    keys: &'a [Keys],
    /// Counted over all sequences.
    head: usize,
    columns: Columns,
    state: &'a SharedMut<'a>,
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
        let Self { inputs, keys, head, columns, state, out, .. } = self;
        let Shape { heads, key_width, value_width, .. } = inputs.shape;
        let Columns { from, width } = columns;
        let (at, head) = (head * inputs.shape.state_len(), head % heads);
        let mut s_columns = vec![0.0; key_width * width];
        columns.read(state, at, value_width, &mut s_columns);
        let mut decays = Decays::new();
        let mut p = vec![0.0; CHUNK * CHUNK];
        let (mut values, mut read) = (vec![0.0; CHUNK * width], vec![0.0; CHUNK * width]);
        let (mut left, mut right) = (Factor::default(), Factor::default());
        let skip = s.splat(inputs.skip[head]);
        for keys in keys {
            let (rows, first) = (keys.rows, keys.first);
            let scalar = |i: usize| (first + i) * heads + head;
            decays.load(s, (0..rows).map(|i| inputs.g[scalar(i)]));
            let (values, read) = (&mut values[..rows * width], &mut read[..rows * width]);
            let v = |i: usize| inputs.v.part(first + i, head * value_width + from, width);
            for (i, values) in values.chunks_exact_mut(width).enumerate() {
                values.copy_from_slice(v(i));
                vector::scale(s, inputs.v_scale[scalar(i)], values);
            }
            for (i, p) in p.chunks_exact_mut(CHUNK).take(rows).enumerate() {
                decays.between(s, i, p);
                vector::update(
                    s,
                    &keys.scores[i * CHUNK..][..=i],
                    &mut p[..=i],
                    #[inline(always)]
                    |score, gamma| s.mul(score, gamma),
                );
                p[i + 1..].fill(0.0);
            }

            // O = e^ℓ ⊙ (Q S) + P Ṽ + D V
            right.pack_right::<S, NARROW>(s, View::new(&s_columns, width), width, key_width);
            let size = [rows, width, key_width];
            Packed::new(size, (&keys.q, &right), read, false).run::<S, NARROW>(s);
            for (read, decay) in read.chunks_exact_mut(width).zip(&decays.since_start) {
                vector::scale(s, *decay, read);
            }
            left.pack_left::<S, NARROW>(s, View::new(&p, CHUNK), rows, rows);
            right.pack_right::<S, NARROW>(s, View::new(values, width), width, rows);
            let own = Packed::new([rows, width, rows], (&left, &right), read, true);
            Packed { triangle: Triangle::Left(Diagonal::steps(1)), ..own }.run::<S, NARROW>(s);
            for (i, read) in read.chunks_exact(width).enumerate() {
                // SAFETY: the columns of this head and sequence belong to one piece.
                let out = unsafe { out.part(scalar(i) * value_width + from, width) };
                vector::combine(
                    s,
                    read,
                    v(i),
                    out,
                    #[inline(always)]
                    |read, v| s.fma(skip, v, read),
                );
            }

            // S' = e^{ℓ_C} S + Kᵀ (e^{ℓ_C − ℓ} ⊙ Ṽ)
            for (values, decay) in values.chunks_exact_mut(width).zip(&decays.to_end) {
                vector::scale(s, *decay, values);
            }
            right.pack_right::<S, NARROW>(s, View::new(values, width), width, rows);
            vector::scale(s, decays.whole(), &mut s_columns);
            let size = [key_width, width, rows];
            Packed::new(size, (&keys.k_transposed, &right), &mut s_columns, true)
                .run::<S, NARROW>(s);
        }
        columns.write(state, at, value_width, &s_columns);
    }
}
