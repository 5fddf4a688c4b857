//! The gated delta rule on the CPU: one token, and the chunked form.

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
    /// Logarithm of the decay.
    pub g: f32,
    /// Strength of the write.
    pub beta: f32,
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
        assert_eq!(self.q.len(), key_width, "delta rule step: q must be [K]");
        assert_eq!(
            self.state.len(),
            key_width * value_width,
            "delta rule step: the state must be [K, V]"
        );
        assert_eq!(self.o.len(), value_width, "delta rule step: o must be [V]");
        let both = vector::dot(s, self.q, self.k);
        let mut columns = Columns { step: self, both, key_width, value_width };
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

/// The columns of the state are independent: a block of them stays in registers through both passes over the rows.
struct Columns<'a> {
    step: Step<'a>,
    /// q·k
    both: f32,
    key_width: usize,
    value_width: usize,
}

impl Columns<'_> {
    /// `N` whole vectors of columns from `at`.
    ///
    /// With D = e^g: r = D·Sᵀk; δ = β(v − r); S ← D·S + k δᵀ; o = scale·(D·Sᵀq + (q·k) δ), both reads from the old S.
    #[inline(always)]
    fn whole<S: Simd, const N: usize>(&mut self, s: S, at: usize) {
        let Step { q, k, v, g, beta, scale, state, o } = &mut self.step;
        let decay = g.exp();
        debug_assert!(at + N * S::LANES <= self.value_width);
        let (v, o, state) = (v[at..].as_ptr(), o[at..].as_mut_ptr(), state[at..].as_mut_ptr());
        let (mut read_k, mut read_q) = ([s.splat(0.0); N], [s.splat(0.0); N]);
        // SAFETY: columns at..at + N·LANES lie inside the V of v, o and every one of the K rows of the state.
        unsafe {
            for i in 0..self.key_width {
                let row = state.add(i * self.value_width);
                let (k, q) = (s.splat(k[i]), s.splat(q[i]));
                for n in 0..N {
                    let x = s.load(row.add(n * S::LANES));
                    read_k[n] = s.fma(k, x, read_k[n]);
                    read_q[n] = s.fma(q, x, read_q[n]);
                }
            }
            let mut delta = [s.splat(0.0); N];
            for n in 0..N {
                let value = s.load(v.add(n * S::LANES));
                delta[n] = s.mul(s.splat(*beta), s.sub(value, s.mul(s.splat(decay), read_k[n])));
                let read = s.fma(s.splat(self.both), delta[n], s.mul(s.splat(decay), read_q[n]));
                s.store(o.add(n * S::LANES), s.mul(s.splat(*scale), read));
            }
            for i in 0..self.key_width {
                let row = state.add(i * self.value_width);
                let k = s.splat(k[i]);
                for (n, delta) in delta.iter().enumerate() {
                    let x = s.load(row.add(n * S::LANES));
                    s.store(row.add(n * S::LANES), s.fma(k, *delta, s.mul(s.splat(decay), x)));
                }
            }
        }
    }

    /// The columns from `at`, less than a vector.
    #[inline(always)]
    fn part<S: Simd>(&mut self, s: S, at: usize) {
        let Step { q, k, v, g, beta, scale, state, o } = &mut self.step;
        let decay = s.splat(g.exp());
        let rest = self.value_width - at;
        let (mut read_k, mut read_q) = (s.splat(0.0), s.splat(0.0));
        let (v, o, state) = (v[at..].as_ptr(), o[at..].as_mut_ptr(), state[at..].as_mut_ptr());
        // SAFETY: `rest` columns from `at` lie inside the V of v, o and every one of the K rows of the state.
        unsafe {
            for i in 0..self.key_width {
                let x = s.load_part(state.add(i * self.value_width), rest);
                read_k = s.fma(s.splat(k[i]), x, read_k);
                read_q = s.fma(s.splat(q[i]), x, read_q);
            }
            let delta = s.mul(s.splat(*beta), s.sub(s.load_part(v, rest), s.mul(decay, read_k)));
            let read = s.fma(s.splat(self.both), delta, s.mul(decay, read_q));
            s.store_part(o, rest, s.mul(s.splat(*scale), read));
            for i in 0..self.key_width {
                let row = state.add(i * self.value_width);
                let x = s.load_part(row, rest);
                s.store_part(row, rest, s.fma(s.splat(k[i]), delta, s.mul(decay, x)));
            }
        }
    }
}

/// Many positions of one head in chunks of 64 (arXiv 2406.06484, sec. 3; with decays arXiv 2412.06464, sec. 3.3).
///
/// With γ_i the decays of the chunk multiplied up to i and Γ_ij = γ_i / γ_j for i ≥ j, else 0:
/// U = (I + strictLower(β Γ ⊙ K Kᵀ))⁻¹ β (V − γ K S);  O = scale·(γ Q S + (Q Kᵀ ⊙ Γ) U);
/// S ← γ_C S + (γ_C / γ ⊙ K)ᵀ U.
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
    /// Logarithm of the decay, `[T]`.
    pub g: &'a [f32],
    /// `[T]`
    pub beta: &'a [f32],
    /// Factor of the output.
    pub scale: f32,
    /// S, `[K, V]`, updated.
    pub state: &'a mut [f32],
    /// o, `[T, V]`, overwritten.
    pub o: &'a mut [f32],
}

/// Rows of a block of the triangular solve: blocks above are applied as a product, the block itself row by row.
const SOLVE_BLOCK: usize = 16;

impl Kernel for Chunked<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { tokens, key_width, value_width, q, k, v, g, beta, scale, state, o } = self;
        assert_eq!((g.len(), beta.len()), (tokens, tokens), "delta rule: g and beta must be [T]");
        assert_eq!(state.len(), key_width * value_width, "delta rule: the state must be [K, V]");
        assert_eq!(o.len(), tokens * value_width, "delta rule: o must be [T, V]");
        let mut keys = vec![0.0; key_width * CHUNK];
        let (mut erase, mut read) = (vec![0.0; CHUNK * CHUNK], vec![0.0; CHUNK * CHUNK]);
        let mut u = vec![0.0; CHUNK * value_width];
        let mut sums = [0.0; CHUNK];
        for start in (0..tokens).step_by(CHUNK) {
            let c = (tokens - start).min(CHUNK);
            let (q, k, v, beta) =
                (q.from_row(start), k.from_row(start), v.from_row(start), &beta[start..][..c]);
            let o = &mut o[start * value_width..][..c * value_width];
            let (erase, read, u) =
                (&mut erase[..c * c], &mut read[..c * c], &mut u[..c * value_width]);
            cumulate(&g[start..][..c], &mut sums);
            let sums = &sums[..c];
            transpose(c, key_width, k, &mut keys[..key_width * c], c);
            let keys = View::new(&keys[..key_width * c], c);

            Product { size: [c, c, key_width], a: k, b: keys, c: erase, accumulate: false }.run(s);
            Product { size: [c, c, key_width], a: q, b: keys, c: read, accumulate: false }.run(s);
            for (i, (erase, read)) in
                erase.chunks_exact_mut(c).zip(read.chunks_exact_mut(c)).enumerate()
            {
                decay_scores(s, erase, sums, sums[i], -beta[i], i);
                decay_scores(s, read, sums, sums[i], scale, i + 1);
            }

            let s_view = View::new(&*state, value_width);
            Product { size: [c, value_width, key_width], a: k, b: s_view, c: u, accumulate: false }
                .run(s);
            for (i, u) in u.chunks_exact_mut(value_width).enumerate() {
                let (beta, decay) = (s.splat(beta[i]), s.splat(-sums[i].exp()));
                vector::update(
                    s,
                    v.row(i, value_width),
                    u,
                    #[inline(always)]
                    |v, u| s.mul(beta, s.fma(decay, u, v)),
                );
            }
            solve(s, erase, u, c, value_width);

            Product { size: [c, value_width, key_width], a: q, b: s_view, c: o, accumulate: false }
                .run(s);
            for (i, o) in o.chunks_exact_mut(value_width).enumerate() {
                vector::scale(s, scale * sums[i].exp(), o);
            }
            let u_view = View::new(&*u, value_width);
            Product {
                size: [c, value_width, c],
                a: View::new(read, c),
                b: u_view,
                c: o,
                accumulate: true,
            }
            .run(s);

            let last = sums[c - 1];
            for (i, u) in u.chunks_exact_mut(value_width).enumerate() {
                vector::scale(s, (last - sums[i]).exp(), u);
            }
            vector::scale(s, last.exp(), state);
            let u_view = View::new(&*u, value_width);
            Product {
                size: [key_width, value_width, c],
                a: k.transposed(),
                b: u_view,
                c: state,
                accumulate: true,
            }
            .run(s);
        }
    }
}

/// U ← (I − E)⁻¹ U for E `[c, c]` strictly lower triangular, U `[c, V]`: rows from the top, each adding those above.
#[inline(always)]
fn solve<S: Simd>(s: S, e: &[f32], u: &mut [f32], c: usize, value_width: usize) {
    for block in (0..c).step_by(SOLVE_BLOCK) {
        let rows = (c - block).min(SOLVE_BLOCK);
        let (above, own) = u.split_at_mut(block * value_width);
        let own = &mut own[..rows * value_width];
        let (a, b) = (View::new(&e[block * c..], c), View::new(above, value_width));
        if block > 0 {
            Product { size: [rows, value_width, block], a, b, c: own, accumulate: true }.run(s);
        }
        for i in 1..rows {
            let (before, row) = own.split_at_mut(i * value_width);
            for (j, before) in before.chunks_exact(value_width).enumerate() {
                vector::add_scaled(
                    s,
                    e[(block + i) * c + block + j],
                    before,
                    &mut row[..value_width],
                );
            }
        }
    }
}
