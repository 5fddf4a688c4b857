//! The gated delta rule on the CPU: one token.

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
