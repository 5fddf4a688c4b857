//! The forward pass.

use super::{BLOCK, Block, Inputs, Shape, gather};
use crate::attention::Running;
use crate::cpu::gemm::View;
use crate::cpu::packed::Space;
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Arithmetic, Kernel, Parallel, Precision, Simd, dynamic, run_in, vector};

/// The output `out` `[B, T, H, V]`, and L `log_sums` `[B, H, T]`.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn forward(
    arithmetic: Arithmetic,
    inputs: &Inputs,
    out: &mut [f32],
    log_sums: &mut [f32],
    parallel: Parallel,
) {
    inputs.check();
    let Shape { batch, tokens, heads, value_width, .. } = inputs.shape;
    assert_eq!(out.len(), batch * tokens * heads * value_width, "out must be [B, T, H, V]");
    assert_eq!(log_sums.len(), batch * heads * tokens, "log_sums must be [B, H, T]");
    let (out, log_sums) = (SharedMut::new(out), SharedMut::new(log_sums));
    dynamic(parallel, batch * heads, &|piece| {
        let precision = arithmetic.precision;
        let head = Head { inputs, precision, piece, out: &out, log_sums: &log_sums };
        run_in(arithmetic.level, precision, head);
    });
}

/// One head of one sequence; nothing else writes its part of the outputs.
struct Head<'a> {
    inputs: &'a Inputs<'a>,
    precision: Precision,
    piece: usize,
    out: &'a SharedMut<'a>,
    log_sums: &'a SharedMut<'a>,
}

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Inputs { shape, scale, .. } = *self.inputs;
        let Shape { tokens, keys, heads, key_width, value_width, .. } = shape;
        let (b, head) = (self.piece / heads, self.piece % heads);
        let kv_head = head / shape.group();
        let queries = self.inputs.queries(b, head);
        let mut transposed = vec![0.0; key_width * keys];
        transpose(keys, key_width, self.inputs.keys(b, kv_head), &mut transposed, keys);
        let mut values = vec![0.0; keys * value_width];
        gather(self.inputs.values(b, kv_head), 0, keys, value_width, &mut values);
        let mut q = vec![0.0; BLOCK * key_width];
        let mut scores = vec![0.0; BLOCK * BLOCK];
        let mut o = vec![0.0; BLOCK * value_width];
        let mut space = Space::default();
        for first in (0..tokens).step_by(BLOCK) {
            let n = (tokens - first).min(BLOCK);
            let q = &mut q[..n * key_width];
            gather(queries, first, n, key_width, q);
            vector::scale(s, scale, q);
            let o = &mut o[..n * value_width];
            o.fill(0.0);
            let mut softmax = [Running::BEGIN; BLOCK];
            let end = shape.past() + first + n;
            let begin = (shape.past() + first + 1).saturating_sub(shape.window());
            for key in (begin / BLOCK * BLOCK..end).step_by(BLOCK) {
                let w = (end - key).min(BLOCK);
                let scores = &mut scores[..n * w];
                let (a, b) = (View::new(q, key_width), View::new(&transposed[key..], keys));
                let size = [n, w, key_width];
                Block { size, a, b, c: scores, accumulate: false }.run(
                    s,
                    self.precision,
                    &mut space,
                );
                for (i, row) in scores.chunks_exact_mut(w).enumerate() {
                    let (from, to) = shape.seen(first + i, key, w);
                    row[..from].fill(0.0);
                    row[to..].fill(0.0);
                    if from == to {
                        continue;
                    }
                    let seen = &mut row[from..to];
                    softmax[i].take(s, seen, &mut o[i * value_width..][..value_width]);
                }
                let (a, b) =
                    (View::new(scores, w), View::new(&values[key * value_width..], value_width));
                let size = [n, value_width, w];
                Block { size, a, b, c: o, accumulate: true }.run(s, self.precision, &mut space);
            }
            // SAFETY: no other piece has this head of this sequence.
            let log_sums = unsafe { self.log_sums.part(self.piece * tokens + first, n) };
            for (i, o) in o.chunks_exact_mut(value_width.max(1)).enumerate() {
                let row = (b * tokens + first + i) * heads + head;
                vector::scale(s, 1.0 / softmax[i].sum, o);
                // SAFETY: as above.
                unsafe { self.out.part(row * value_width, value_width) }.copy_from_slice(o);
            }
            for (i, log_sum) in log_sums.iter_mut().enumerate() {
                *log_sum = softmax[i].largest + softmax[i].sum.ln();
            }
        }
    }
}
