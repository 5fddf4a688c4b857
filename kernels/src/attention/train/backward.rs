//! The backward pass.

use super::{BLOCK, Block, Inputs, Shape, gather, rows_of};
use crate::cpu::gemm::View;
use crate::cpu::packed::Space;
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Arithmetic, Kernel, Parallel, Precision, Simd, dynamic, run_in, vector};

/// Where the gradients go, shaped as the inputs and overwritten.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `[B, T, H, K]`.
    pub q: &'a mut [f32],
    /// `[B, S, H_kv, K]`.
    pub k: &'a mut [f32],
    /// `[B, S, H_kv, V]`.
    pub v: &'a mut [f32],
}

/// The gradients of the inputs, from the output and L of the forward pass and the gradient of the output.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn backward(
    arithmetic: Arithmetic,
    inputs: &Inputs,
    out: &[f32],
    log_sums: &[f32],
    d_out: &[f32],
    gradients: &mut Gradients,
    parallel: Parallel,
) {
    inputs.check();
    let Shape { batch, tokens, heads, kv_heads, value_width, .. } = inputs.shape;
    let outputs = batch * tokens * heads * value_width;
    assert_eq!((out.len(), d_out.len()), (outputs, outputs), "out must be [B, T, H, V]");
    assert_eq!(log_sums.len(), batch * heads * tokens, "log_sums must be [B, H, T]");
    let lengths = (inputs.q.len(), inputs.k.len(), inputs.v.len());
    assert_eq!(
        (gradients.q.len(), gradients.k.len(), gradients.v.len()),
        lengths,
        "attention: gradients must be shaped as the inputs"
    );
    let d = Shared {
        q: SharedMut::new(gradients.q),
        k: SharedMut::new(gradients.k),
        v: SharedMut::new(gradients.v),
    };
    dynamic(parallel, batch * kv_heads, &|piece| {
        let precision = arithmetic.precision;
        let group = Group { inputs, precision, out, log_sums, d_out, piece, d: &d };
        run_in(arithmetic.level, precision, group);
    });
}

struct Shared<'a> {
    q: SharedMut<'a>,
    k: SharedMut<'a>,
    v: SharedMut<'a>,
}

/// One key head of one sequence, with the query heads that share it; nothing else writes their gradients.
struct Group<'a> {
    inputs: &'a Inputs<'a>,
    precision: Precision,
    out: &'a [f32],
    log_sums: &'a [f32],
    d_out: &'a [f32],
    piece: usize,
    d: &'a Shared<'a>,
}

/// A block of keys and values, in the forms that the products want.
struct Keys {
    /// scale · K, `[w, K]`
    scaled: Vec<f32>,
    /// Kᵀ, `[K, w]`
    transposed: Vec<f32>,
    /// V, `[w, V]`
    values: Vec<f32>,
    /// Vᵀ, `[V, w]`
    values_transposed: Vec<f32>,
    /// dK, `[w, K]`
    d_k: Vec<f32>,
    /// dV, `[w, V]`
    d_v: Vec<f32>,
}

/// A block of queries.
struct Queries {
    /// scale · Q, `[n, K]`
    scaled: Vec<f32>,
    /// dO, `[n, V]`
    d_out: Vec<f32>,
    /// P, `[n, w]`
    weights: Vec<f32>,
    /// dP, then dS, `[n, w]`
    d_scores: Vec<f32>,
    packed: Space,
}

impl Kernel for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { inputs, d, .. } = self;
        let shape = inputs.shape;
        let Shape { tokens, keys, heads, kv_heads, key_width, value_width, .. } = shape;
        let (b, kv_head) = (self.piece / kv_heads, self.piece % kv_heads);
        let group = kv_head * shape.group()..(kv_head + 1) * shape.group();
        let mut d_rows = vec![0.0; shape.group() * tokens]; // D, [group, T]
        for (head, d_rows) in group.clone().zip(d_rows.chunks_exact_mut(tokens.max(1))) {
            let (o, d_o) = (self.of_output(self.out, b, head), self.of_output(self.d_out, b, head));
            for (t, d_row) in d_rows.iter_mut().enumerate() {
                *d_row = vector::dot(s, o.row(t, value_width), d_o.row(t, value_width));
            }
        }
        let mut d_queries = vec![0.0; shape.group() * tokens * key_width]; // dQ, [group, T, K]
        let zeros = |n: usize| vec![0.0_f32; n];
        let mut block = Keys {
            scaled: zeros(BLOCK * key_width),
            transposed: zeros(BLOCK * key_width),
            values: zeros(BLOCK * value_width),
            values_transposed: zeros(BLOCK * value_width),
            d_k: zeros(BLOCK * key_width),
            d_v: zeros(BLOCK * value_width),
        };
        let mut space = Queries {
            scaled: zeros(BLOCK * key_width),
            d_out: zeros(BLOCK * value_width),
            weights: zeros(BLOCK * BLOCK),
            d_scores: zeros(BLOCK * BLOCK),
            packed: Space::default(),
        };
        for key in (0..keys).step_by(BLOCK) {
            let w = (keys - key).min(BLOCK);
            let (k, v) = (inputs.keys(b, kv_head), inputs.values(b, kv_head));
            transpose(w, key_width, k.from_row(key), &mut block.transposed, w);
            transpose(w, value_width, v.from_row(key), &mut block.values_transposed, w);
            gather(k, key, w, key_width, &mut block.scaled);
            gather(v, key, w, value_width, &mut block.values);
            vector::scale(s, inputs.scale, &mut block.scaled);
            block.d_k.fill(0.0);
            block.d_v.fill(0.0);
            // The queries that see a key of this block, from the first whole block on.
            let begin = key.saturating_sub(shape.past()) / BLOCK * BLOCK;
            let end = (key + w).saturating_add(shape.window() - 1);
            let end = end.saturating_sub(shape.past()).min(tokens);
            for (index, head) in group.clone().enumerate() {
                let d_rows = &d_rows[index * tokens..][..tokens];
                let d_queries = &mut d_queries[index * tokens * key_width..][..tokens * key_width];
                for first in (begin..end).step_by(BLOCK) {
                    let at = [b, head, first, key, w];
                    self.block(s, at, d_rows, d_queries, &mut block, &mut space);
                }
            }
            for i in 0..w {
                let row = (b * keys + key + i) * kv_heads + kv_head;
                // SAFETY: this piece alone writes dK and dV of its key head.
                unsafe {
                    d.k.part(row * key_width, key_width)
                        .copy_from_slice(&block.d_k[i * key_width..][..key_width]);
                    d.v.part(row * value_width, value_width)
                        .copy_from_slice(&block.d_v[i * value_width..][..value_width]);
                }
            }
        }
        for (index, d_query) in d_queries.chunks_exact(key_width.max(1)).enumerate() {
            let (head, t) = (group.start + index / tokens, index % tokens);
            let row = (b * tokens + t) * heads + head;
            // SAFETY: this piece alone writes dQ of its group.
            unsafe { d.q.part(row * key_width, key_width) }.copy_from_slice(d_query);
        }
    }
}

impl Group<'_> {
    /// `[T, V]` of a head of what is shaped as the output.
    fn of_output<'b>(&self, x: &'b [f32], b: usize, head: usize) -> View<'b> {
        let Shape { tokens, heads, value_width, .. } = self.inputs.shape;
        rows_of(x, [tokens, heads, value_width], b, head)
    }

    /// The scores of one block of queries and keys: what they add to dQ, dK and dV.
    #[inline(always)]
    fn block<S: Simd>(
        &self,
        s: S,
        [b, head, first, key, w]: [usize; 5],
        d_rows: &[f32],
        d_queries: &mut [f32],
        keys: &mut Keys,
        space: &mut Queries,
    ) {
        let shape = self.inputs.shape;
        let Shape { tokens, heads, key_width, value_width, .. } = shape;
        let n = (tokens - first).min(BLOCK);
        let log_sums = &self.log_sums[(b * heads + head) * tokens + first..][..n];
        let q = &mut space.scaled[..n * key_width];
        gather(self.inputs.queries(b, head), first, n, key_width, q);
        vector::scale(s, self.inputs.scale, q);
        let d_out = &mut space.d_out[..n * value_width];
        gather(self.of_output(self.d_out, b, head), first, n, value_width, d_out);
        let (weights, d_scores) = (&mut space.weights[..n * w], &mut space.d_scores[..n * w]);
        let (precision, packed) = (self.precision, &mut space.packed);
        let b = View::new(&keys.transposed, w);
        Block {
            size: [n, w, key_width],
            a: View::new(q, key_width),
            b,
            c: &mut *weights,
            accumulate: false,
        }
        .run(s, precision, packed);
        let d_o = View::new(d_out, value_width);
        let b = View::new(&keys.values_transposed, w);
        Block { size: [n, w, value_width], a: d_o, b, c: &mut *d_scores, accumulate: false }
            .run(s, precision, packed);
        let rows = weights.chunks_exact_mut(w).zip(d_scores.chunks_exact_mut(w));
        for (i, (weights, d_scores)) in rows.enumerate() {
            let (from, to) = shape.seen(first + i, key, w);
            for hidden in [0..from, to..w] {
                weights[hidden.clone()].fill(0.0);
                d_scores[hidden].fill(0.0);
            }
            let (log_sum, d_row) = (s.splat(log_sums[i]), s.splat(d_rows[first + i]));
            vector::map(
                s,
                &mut weights[from..to],
                #[inline(always)]
                |score| s.exp(s.sub(score, log_sum)),
            );
            vector::update(
                s,
                &weights[from..to],
                &mut d_scores[from..to],
                #[inline(always)]
                |weight, d_weight| s.mul(weight, s.sub(d_weight, d_row)),
            );
        }
        let (p, d_s) = (View::new(weights, w), View::new(d_scores, w));
        let d_values = &mut keys.d_v[..w * value_width];
        let b = View::new(d_out, value_width);
        Block { size: [w, value_width, n], a: p.transposed(), b, c: d_values, accumulate: true }
            .run(s, precision, packed);
        let d_keys = &mut keys.d_k[..w * key_width];
        let b = View::new(q, key_width);
        Block { size: [w, key_width, n], a: d_s.transposed(), b, c: d_keys, accumulate: true }
            .run(s, precision, packed);
        let d_q = &mut d_queries[first * key_width..][..n * key_width];
        let b = View::new(&keys.scaled, key_width);
        Block { size: [n, key_width, w], a: d_s, b, c: d_q, accumulate: true }
            .run(s, precision, packed);
    }
}
