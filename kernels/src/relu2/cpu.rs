//! The squared ReLU on the CPU.

use crate::cpu::{Kernel, Simd, vector};

/// x ← max(x, 0)².
#[derive(Debug)]
pub struct Relu2<'a> {
    /// `[f]`, overwritten.
    pub x: &'a mut [f32],
}

impl Kernel for Relu2<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let zero = s.splat(0.0);
        vector::map(
            s,
            self.x,
            #[inline(always)]
            |x| {
                let kept = s.max(x, zero);
                s.mul(kept, kept)
            },
        );
    }
}
