//! The gated delta rule of prompts: the chunked form of [`super::train`] without what a backward pass needs, its products
//! in f32 or bf16. States, the triangular systems and all that is exponentiated stay f32.
//!
//! What does not depend on the states (K Kᵀ and Q Kᵀ with their decays, and the factors in the order in which register
//! tiles read them) is made by all threads for a segment of chunks; then each thread takes some columns of the states of
//! some heads through it.

use super::train::{Inputs, Shape, solve};
use super::weighed;
use crate::cpu::chunk::{CHUNK, Columns, Decays, SEGMENT, columns_of_piece};
use crate::cpu::gemm::View;
use crate::cpu::packed::{Diagonal, Factor, Packed, Triangle};
use crate::cpu::pool::SharedMut;
use crate::cpu::{Arithmetic, Kernel, Parallel, Precision, Simd, run_in, vector};
use crate::norm::cpu::L2Norm;

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
    let Shape { batch, tokens, key_heads, heads, value_width, .. } = shape;
    assert_eq!(
        state.len(),
        batch * heads * shape.state_len(),
        "delta rule: state must be [B, H, K, V]"
    );
    assert_eq!(
        out.len(),
        batch * tokens * heads * value_width,
        "delta rule: out must be [B, T, H, V]"
    );
    let columns = columns_of_piece(batch * heads, value_width);
    let pieces = value_width.div_ceil(columns);
    let chunks = shape.chunks();
    let (state, out) = (SharedMut::new(state), SharedMut::new(out));
    let mut all: Vec<Chunk> = Vec::new();
    for first in (0..chunks).step_by(SEGMENT) {
        let count = (chunks - first).min(SEGMENT);
        // [B, key heads, chunks of the segment]
        all.resize_with(batch * key_heads * count, Chunk::default);
        let shared = SharedMut::new(&mut all[..]);
        parallel(batch * key_heads * count, &|i| {
            // SAFETY: each index is handed out once.
            let chunk = unsafe { &mut shared.part(i, 1)[0] };
            let at = [i / count / key_heads, i / count % key_heads, first + i % count];
            run_in(arithmetic.level, arithmetic.precision, Load { arithmetic, inputs, at, chunk });
        });
        parallel(batch * heads * pieces, &|i| {
            let (head, piece) = (i / pieces, i % pieces);
            let columns = Columns::new(piece * columns, columns, value_width);
            let chunks = &all[head / shape.group() * count..][..count];
            let piece =
                Piece { arithmetic, inputs, chunks, head, columns, state: &state, out: &out };
            run_in(arithmetic.level, arithmetic.precision, piece);
        });
    }
}

/// What does not depend on the state, of a key head and its value heads. C below is `rows`, R is `tokens`.
#[derive(Debug, Default)]
struct Chunk {
    /// Positions of this chunk.
    tokens: usize,
    /// Steps of this chunk.
    rows: usize,
    /// The first position, counted over all sequences.
    first: usize,
    /// `[C, K]`
    k: Factor,
    /// `[K, C]`
    k_transposed: Factor,
    /// `[R, K]`
    q: Factor,
    heads: Vec<Weights>,
}

/// Of one value head.
#[derive(Debug)]
struct Weights {
    decays: Decays,
    /// `[C, CHUNK]`: −A below the diagonal.
    minus_a: Vec<f32>,
    /// `[R, C]`: P.
    p: Factor,
}

impl Default for Weights {
    fn default() -> Self {
        let minus_a = vec![0.0; CHUNK * CHUNK];
        Self { decays: Decays::new(), minus_a, p: Factor::default() }
    }
}

struct Load<'a> {
    arithmetic: Arithmetic,
    inputs: &'a Inputs<'a, f32>,
    /// Sequence, key head, chunk.
    at: [usize; 3],
    chunk: &'a mut Chunk,
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
        let Self { inputs, at: [sequence, key_head, index], chunk, .. } = self;
        let shape = inputs.shape;
        let Shape { tokens, steps, heads, key_width: width, .. } = shape;
        let position = index * shape.chunk_tokens();
        chunk.tokens = shape.chunk_tokens().min(tokens - position);
        chunk.rows = chunk.tokens * steps;
        chunk.first = sequence * tokens + position;
        let (rows, positions, first) = (chunk.rows, chunk.tokens, chunk.first);
        // [C + R, K]: K, and below it Q
        let mut stacked = vec![0.0; (rows + positions) * width];
        for (i, to) in stacked.chunks_exact_mut(width).enumerate() {
            to.copy_from_slice(if i < rows {
                inputs.k.part(first * steps + i, key_head * width, width)
            } else {
                inputs.q.part(first + i - rows, key_head * width, width)
            });
        }
        if inputs.normalise {
            L2Norm { x: &mut stacked, width }.body(s);
        }
        let k = View::new(&stacked, width);
        chunk.k.pack_left::<S, NARROW>(s, k, rows, width);
        chunk.k_transposed.pack_left::<S, NARROW>(s, k.transposed(), width, rows);
        chunk.q.pack_left::<S, NARROW>(s, k.from_row(rows), positions, width);
        let mut right = Factor::default();
        right.pack_right::<S, NARROW>(s, k.transposed(), rows, width);
        let (mut kk, mut qk) = (vec![0.0; rows * CHUNK], vec![0.0; positions * CHUNK]);
        let all = [
            (&chunk.k, rows, Triangle::Result(Diagonal::steps(1)), &mut kk),
            (&chunk.q, positions, Triangle::Result(Diagonal::steps(steps)), &mut qk),
        ];
        for (left, m, triangle, c) in all {
            let size = [m, rows, width];
            let right = &right;
            Packed { size, left, right, triangle, c, c_stride: CHUNK, accumulate: false }
                .run::<S, NARROW>(s);
        }

        chunk.heads.resize_with(shape.group(), Weights::default);
        let mut gamma = [0.0; CHUNK];
        let mut p = vec![0.0; positions * CHUNK];
        for (h, weights) in (key_head * shape.group()..).zip(&mut chunk.heads) {
            let Weights { decays, minus_a, p: packed } = weights;
            let g = |i: usize| match i % steps {
                0 => inputs.g[(first + i / steps) * heads + h],
                _ => 0.0,
            };
            decays.load(s, (0..rows).map(g));
            for i in 0..rows {
                decays.between(s, i, &mut gamma);
                let beta = inputs.beta[(first * steps + i) * heads + h];
                let (from, seen) = (i * CHUNK, ..=i);
                let a = &mut minus_a[from..][seen];
                weighed(s, -beta, &gamma[seen], &kk[from..][seen], a);
                if i % steps == steps - 1 {
                    let from = i / steps * CHUNK;
                    let p = &mut p[from..][..CHUNK];
                    weighed(s, inputs.scale, &gamma[seen], &qk[from..][seen], &mut p[seen]);
                    p[i + 1..].fill(0.0);
                }
            }
            packed.pack_left::<S, NARROW>(s, View::new(&p, CHUNK), positions, rows);
        }
    }
}

/// Some columns of one head of one sequence through some chunks.
struct Piece<'a> {
    arithmetic: Arithmetic,
    inputs: &'a Inputs<'a, f32>,
    chunks: &'a [Chunk],
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
        let Self { inputs, chunks, head, columns, state, out, .. } = self;
        let shape = inputs.shape;
        let Shape { steps, heads, key_width, value_width, .. } = shape;
        let Columns { from, width } = columns;
        let (at, head) = (head * shape.state_len(), head % heads);
        let mut s_columns = vec![0.0; key_width * width];
        columns.read(state, at, value_width, &mut s_columns);
        let (mut delta, mut read) = (vec![0.0; CHUNK * width], vec![0.0; CHUNK * width]);
        let mut right = Factor::default();
        for chunk in chunks {
            let (rows, positions, first) = (chunk.rows, chunk.tokens, chunk.first);
            let Weights { decays, minus_a, p } = &chunk.heads[head % shape.group()];
            let (delta, read) = (&mut delta[..rows * width], &mut read[..positions * width]);

            // (I + A) Δ = β (V − e^ℓ ⊙ (K S))
            right.pack_right::<S, NARROW>(s, View::new(&s_columns, width), width, key_width);
            let size = [rows, width, key_width];
            Packed::new(size, (&chunk.k, &right), delta, false).run::<S, NARROW>(s);
            for (i, delta) in delta.chunks_exact_mut(width).enumerate() {
                let row = first * steps + i;
                let beta = s.splat(inputs.beta[row * heads + head]);
                let decay = s.splat(-decays.since_start[i]);
                vector::update(
                    s,
                    inputs.v.part(row, head * value_width + from, width),
                    delta,
                    #[inline(always)]
                    |value, read| s.mul(beta, s.fma(decay, read, value)),
                );
            }
            solve::forward(View::new(minus_a, CHUNK), delta, rows, width);

            // O = scale · e^ℓ ⊙ (Q S) + P Δ
            let size = [positions, width, key_width];
            Packed::new(size, (&chunk.q, &right), read, false).run::<S, NARROW>(s);
            let read_at = decays.since_start.iter().skip(steps - 1).step_by(steps);
            for (read, decay) in read.chunks_exact_mut(width).zip(read_at) {
                vector::scale(s, inputs.scale * decay, read);
            }
            right.pack_right::<S, NARROW>(s, View::new(delta, width), width, rows);
            let own = Packed::new([positions, width, rows], (p, &right), read, true);
            Packed { triangle: Triangle::Left(Diagonal::steps(steps)), ..own }.run::<S, NARROW>(s);
            for (i, read) in read.chunks_exact(width).enumerate() {
                let at = ((first + i) * heads + head) * value_width + from;
                // SAFETY: these columns of this head and sequence belong to one piece.
                unsafe { out.part(at, width) }.copy_from_slice(read);
            }

            // S' = e^{ℓ_C} S + Kᵀ (e^{ℓ_C − ℓ} ⊙ Δ)
            for (delta, decay) in delta.chunks_exact_mut(width).zip(&decays.to_end) {
                vector::scale(s, *decay, delta);
            }
            right.pack_right::<S, NARROW>(s, View::new(delta, width), width, rows);
            vector::scale(s, decays.whole(), &mut s_columns);
            let size = [key_width, width, rows];
            Packed::new(size, (&chunk.k_transposed, &right), &mut s_columns, true)
                .run::<S, NARROW>(s);
        }
        columns.write(state, at, value_width, &s_columns);
    }
}
