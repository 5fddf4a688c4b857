//! Kimi Delta Attention on the CPU: the decays, and one token.

use crate::cpu::{Element, Kernel, Simd, vector};

/// y ← e^{rate · ln(1 + e^{x + bias})}: the decays of the channels of one head, rate = −A.
#[derive(Debug)]
pub struct Decays<'a> {
    /// `[K]`
    pub x: &'a [f32],
    /// `[K]`
    pub bias: &'a [f32],
    /// Below 0.
    pub rate: f32,
    /// `[K]`, overwritten.
    pub y: &'a mut [f32],
}

impl Kernel for Decays<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let rate = s.splat(self.rate);
        vector::combine(
            s,
            self.x,
            self.bias,
            self.y,
            #[inline(always)]
            |x, bias| s.exp(s.mul(rate, s.softplus(s.add(x, bias)))),
        );
    }
}

/// One position of one head (see [`super::definition`]).
#[derive(Debug)]
pub struct Step<'a> {
    /// `[K]`
    pub q: &'a [f32],
    /// `[K]`
    pub k: &'a [f32],
    /// `[V]`
    pub v: &'a [f32],
    /// e^g of each channel, `[K]`.
    pub decay: &'a [f32],
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
    fn body<S: Simd>(mut self, s: S) {
        let (key_width, value_width) = (self.k.len(), self.v.len());
        assert_eq!(self.q.len(), key_width, "KDA step: q must be [K]");
        assert_eq!(self.decay.len(), key_width, "KDA step: the decays must be [K]");
        assert_eq!(self.state.len(), key_width * value_width, "KDA step: the state must be [K, V]");
        assert_eq!(self.o.len(), value_width, "KDA step: o must be [V]");
        let both = vector::dot(s, self.q, self.k);
        let mut at = 0;
        while at < value_width {
            let left = value_width - at;
            // SAFETY: the vectors of columns from `at` end before V.
            unsafe {
                if left >= 4 * S::LANES {
                    self.columns::<S, 4>(s, both, at, S::LANES);
                    at += 4 * S::LANES;
                } else {
                    let n = left.min(S::LANES);
                    self.columns::<S, 1>(s, both, at, n);
                    at += n;
                }
            }
        }
    }
}

impl Step<'_> {
    /// `N` vectors of columns from `at`, of `n` ≤ LANES each, which stay in registers through both passes over the rows.
    ///
    /// With D = Diag(e^g): δ = β(v − Sᵀ D k); o = scale·(Sᵀ D q + (q·k) δ), both reads from the old S; S ← D S + k δᵀ.
    ///
    /// # Safety
    /// Columns up to `at + N·n` lie inside V, and n is LANES unless N is 1.
    #[inline(always)]
    unsafe fn columns<S: Simd, const N: usize>(&mut self, s: S, both: f32, at: usize, n: usize) {
        let value_width = self.v.len();
        let (v, o) = (self.v[at..].as_ptr(), self.o[at..].as_mut_ptr());
        let state = self.state[at..].as_mut_ptr();
        let (mut read_k, mut read_q) = ([s.splat(0.0); N], [s.splat(0.0); N]);
        // SAFETY: the caller's promise; there are K rows of the state, of q, k and the decays.
        unsafe {
            for (i, decay) in self.decay.iter().enumerate() {
                let row = state.add(i * value_width);
                let (k, q) = (s.splat(self.k[i] * decay), s.splat(self.q[i] * decay));
                for m in 0..N {
                    let x = f32::load(s, row.add(m * S::LANES), n);
                    read_k[m] = s.fma(k, x, read_k[m]);
                    read_q[m] = s.fma(q, x, read_q[m]);
                }
            }
            let mut delta = [s.splat(0.0); N];
            for m in 0..N {
                let value = f32::load(s, v.add(m * S::LANES), n);
                delta[m] = s.mul(s.splat(self.beta), s.sub(value, read_k[m]));
                let read = s.fma(s.splat(both), delta[m], read_q[m]);
                f32::store(s, o.add(m * S::LANES), n, s.mul(s.splat(self.scale), read));
            }
            for (i, decay) in self.decay.iter().enumerate() {
                let row = state.add(i * value_width);
                let (k, decay) = (s.splat(self.k[i]), s.splat(*decay));
                for (m, delta) in delta.iter().enumerate() {
                    let x = f32::load(s, row.add(m * S::LANES), n);
                    let x = s.fma(k, *delta, s.mul(decay, x));
                    f32::store(s, row.add(m * S::LANES), n, x);
                }
            }
        }
    }
}
