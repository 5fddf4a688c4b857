//! The scalar functions of gates, of every value of a row.

use crate::cpu::{Kernel, Simd, vector};

/// y ← factor · σ(x)
#[derive(Debug)]
pub struct Sigmoid<'a> {
    /// `[C]`
    pub x: &'a [f32],
    /// The largest value.
    pub factor: f32,
    /// `[C]`, overwritten.
    pub y: &'a mut [f32],
}

impl Kernel for Sigmoid<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let factor = s.splat(self.factor);
        self.y.copy_from_slice(self.x);
        vector::map(
            s,
            self.y,
            #[inline(always)]
            |x| s.mul(factor, s.sigmoid(x)),
        );
    }
}

/// x ← x · σ(gate)
#[derive(Debug)]
pub struct SigmoidGate<'a> {
    /// `[C]`
    pub gate: &'a [f32],
    /// `[C]`, overwritten.
    pub x: &'a mut [f32],
}

impl Kernel for SigmoidGate<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        vector::update(
            s,
            self.gate,
            self.x,
            #[inline(always)]
            |gate, x| s.mul(x, s.sigmoid(gate)),
        );
    }
}

/// y ← ln(1 + e^{x + bias})
#[derive(Debug)]
pub struct Softplus<'a> {
    /// `[C]`
    pub x: &'a [f32],
    /// `[C]`
    pub bias: &'a [f32],
    /// `[C]`, overwritten.
    pub y: &'a mut [f32],
}

impl Kernel for Softplus<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        vector::combine(
            s,
            self.x,
            self.bias,
            self.y,
            #[inline(always)]
            |x, bias| s.softplus(s.add(x, bias)),
        );
    }
}
