//! Scalar-gated linear attention on the CPU: one token.

use crate::cpu::{Kernel, Simd};

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
