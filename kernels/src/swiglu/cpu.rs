//! SwiGLU on the CPU.

use crate::cpu::{Kernel, Simd, vector};

/// up ← SiLU(gate) · up.
#[derive(Debug)]
pub struct SwiGlu<'a> {
    /// `[f]`
    pub gate: &'a [f32],
    /// `[f]`, overwritten.
    pub up: &'a mut [f32],
}

impl Kernel for SwiGlu<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        vector::update(s, self.gate, self.up, |gate, up| s.mul(s.silu(gate), up));
    }
}
