//! SwiGLU on the CPU.

use crate::cpu::{Kernel, Simd, vector};

/// out ← SiLU(gate) · up.
#[derive(Debug)]
pub struct SwiGlu<'a> {
    /// `[f]`
    pub gate: &'a [f32],
    /// `[f]`
    pub up: &'a [f32],
    /// `[f]`, overwritten.
    pub out: &'a mut [f32],
}

impl Kernel for SwiGlu<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        vector::combine(
            s,
            self.gate,
            self.up,
            self.out,
            #[inline(always)]
            |gate, up| s.mul(s.silu(gate), up),
        );
    }
}
