//! Scalar-gated linear attention on the CPU: one token, and the chunked form.

use crate::cpu::chunk::{CHUNK, Product, cumulate, decay_scores};
use crate::cpu::gemm::View;
use crate::cpu::transpose::transpose;
use crate::cpu::{Kernel, Simd, vector};

/// One position of one head (see [`super::definition`]).
#[derive(Debug)]
pub struct Step<'a> {
    /// `[K]`
    pub q: &'a [f32],
    /// `[K]`
    pub k: &'a [f32],
    /// `[V]`
    pub v: &'a [f32],
    /// Factor of v: the dt of Mamba2.
    pub v_scale: f32,
    /// Logarithm of the decay.
    pub g: f32,
    /// Factor of the output.
    pub scale: f32,
    /// S, `[K, V]`, updated.
    pub state: &'a mut [f32],
    /// o, `[V]`, overwritten.
    pub o: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let (key_width, value_width) = (self.k.len(), self.v.len());
        assert_eq!(self.q.len(), key_width, "linear attention step: q must be [K]");
        assert_eq!(
            self.state.len(),
            key_width * value_width,
            "linear attention step: the state must be [K, V]"
        );
        assert_eq!(self.o.len(), value_width, "linear attention step: o must be [V]");
        let mut columns = Columns { step: self, key_width, value_width };
        let mut at = 0;
        while at + 4 * S::LANES <= value_width {
            columns.whole::<S, 4>(s, at);
            at += 4 * S::LANES;
        }
        while at + S::LANES <= value_width {
            columns.whole::<S, 1>(s, at);
            at += S::LANES;
        }
        if at < value_width {
            columns.part(s, at);
        }
    }
}

/// The columns of the state are independent: a block of them is read once and written once.
struct Columns<'a> {
    step: Step<'a>,
    key_width: usize,
    value_width: usize,
}

impl Columns<'_> {
    /// `N` whole vectors of columns from `at`.
    #[inline(always)]
    fn whole<S: Simd, const N: usize>(&mut self, s: S, at: usize) {
        let Step { q, k, v, v_scale, g, scale, state, o } = &mut self.step;
        let (decay, v_scale) = (s.splat(g.exp()), s.splat(*v_scale));
        debug_assert!(at + N * S::LANES <= self.value_width);
        let (v, o, state) = (v[at..].as_ptr(), o[at..].as_mut_ptr(), state[at..].as_mut_ptr());
        // SAFETY: columns at..at + N·LANES lie inside the V of v, o and every one of the K rows of the state.
        unsafe {
            let value: [S::V; N] = std::array::from_fn(
                #[inline(always)]
                |n| s.mul(v_scale, s.load(v.add(n * S::LANES))),
            );
            let mut sums = [s.splat(0.0); N];
            for i in 0..self.key_width {
                let row = state.add(i * self.value_width);
                let (k, q) = (s.splat(k[i]), s.splat(q[i]));
                for n in 0..N {
                    let x = s.fma(k, value[n], s.mul(decay, s.load(row.add(n * S::LANES))));
                    s.store(row.add(n * S::LANES), x);
                    sums[n] = s.fma(q, x, sums[n]);
                }
            }
            for (n, sum) in sums.into_iter().enumerate() {
                s.store(o.add(n * S::LANES), s.mul(s.splat(*scale), sum));
            }
        }
    }

    /// The columns from `at`, less than a vector.
    #[inline(always)]
    fn part<S: Simd>(&mut self, s: S, at: usize) {
        let Step { q, k, v, v_scale, g, scale, state, o } = &mut self.step;
        let (decay, v_scale) = (s.splat(g.exp()), s.splat(*v_scale));
        let rest = self.value_width - at;
        let (v, o, state) = (v[at..].as_ptr(), o[at..].as_mut_ptr(), state[at..].as_mut_ptr());
        // SAFETY: `rest` columns from `at` lie inside the V of v, o and every one of the K rows of the state.
        unsafe {
            let value = s.mul(v_scale, s.load_part(v, rest));
            let mut sum = s.splat(0.0);
            for i in 0..self.key_width {
                let row = state.add(i * self.value_width);
                let x = s.fma(s.splat(k[i]), value, s.mul(decay, s.load_part(row, rest)));
                s.store_part(row, rest, x);
                sum = s.fma(s.splat(q[i]), x, sum);
            }
            s.store_part(o, rest, s.mul(s.splat(*scale), sum));
        }
    }
}

/// Many positions of one head in chunks of 64 (the state-space dual form, arXiv 2405.21060, sec. 6).
///
/// With γ_i the decays of the chunk multiplied up to i and Γ_ij = γ_i / γ_j for i ≥ j, else 0:
/// O = scale·(γ Q S + (Q Kᵀ ⊙ Γ) V);  S ← γ_C S + Kᵀ (γ_C / γ ⊙ V).
#[derive(Debug)]
pub struct Chunked<'a> {
    /// Positions.
    pub tokens: usize,
    /// K.
    pub key_width: usize,
    /// V.
    pub value_width: usize,
    /// `[T, K]`
    pub q: View<'a>,
    /// `[T, K]`
    pub k: View<'a>,
    /// `[T, V]`
    pub v: View<'a>,
    /// Factor of v at each position, `[T]`: the dt of Mamba2.
    pub v_scale: &'a [f32],
    /// Logarithm of the decay, `[T]`.
    pub g: &'a [f32],
    /// Factor of the output.
    pub scale: f32,
    /// S, `[K, V]`, updated.
    pub state: &'a mut [f32],
    /// o, `[T, V]`, overwritten.
    pub o: &'a mut [f32],
}

impl Kernel for Chunked<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { tokens, key_width, value_width, q, k, v, v_scale, g, scale, state, o } = self;
        assert_eq!(
            (g.len(), v_scale.len()),
            (tokens, tokens),
            "linear attention: g and v_scale must be [T]"
        );
        assert_eq!(
            state.len(),
            key_width * value_width,
            "linear attention: the state must be [K, V]"
        );
        assert_eq!(o.len(), tokens * value_width, "linear attention: o must be [T, V]");
        let mut keys = vec![0.0; key_width * CHUNK];
        let mut read = vec![0.0; CHUNK * CHUNK];
        let mut values = vec![0.0; CHUNK * value_width];
        let mut sums = [0.0; CHUNK];
        for start in (0..tokens).step_by(CHUNK) {
            let c = (tokens - start).min(CHUNK);
            let (q, k, v, v_scale) =
                (q.from_row(start), k.from_row(start), v.from_row(start), &v_scale[start..][..c]);
            let o = &mut o[start * value_width..][..c * value_width];
            let (read, values) = (&mut read[..c * c], &mut values[..c * value_width]);
            cumulate(&g[start..][..c], &mut sums);
            let sums = &sums[..c];
            transpose(c, key_width, k, &mut keys[..key_width * c], c);
            for (i, row) in values.chunks_exact_mut(value_width).enumerate() {
                row.copy_from_slice(v.row(i, value_width));
                vector::scale(s, v_scale[i], row);
            }

            let keys = View::new(&keys[..key_width * c], c);
            Product { size: [c, c, key_width], a: q, b: keys, c: read, accumulate: false }.run(s);
            for (i, read) in read.chunks_exact_mut(c).enumerate() {
                decay_scores(s, read, sums, sums[i], scale, i + 1);
            }

            let s_view = View::new(&*state, value_width);
            Product { size: [c, value_width, key_width], a: q, b: s_view, c: o, accumulate: false }
                .run(s);
            for (i, o) in o.chunks_exact_mut(value_width).enumerate() {
                vector::scale(s, scale * sums[i].exp(), o);
            }
            let v_view = View::new(&*values, value_width);
            Product {
                size: [c, value_width, c],
                a: View::new(read, c),
                b: v_view,
                c: o,
                accumulate: true,
            }
            .run(s);

            let last = sums[c - 1];
            for (i, row) in values.chunks_exact_mut(value_width).enumerate() {
                vector::scale(s, (last - sums[i]).exp(), row);
            }
            vector::scale(s, last.exp(), state);
            let v_view = View::new(&*values, value_width);
            Product {
                size: [key_width, value_width, c],
                a: k.transposed(),
                b: v_view,
                c: state,
                accumulate: true,
            }
            .run(s);
        }
    }
}
