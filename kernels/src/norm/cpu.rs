//! Normalisations on the CPU, of rows in place.

use super::{L2_EPS, RMS_EPS};
use crate::cpu::{Kernel, Simd, vector};

/// What is done to each row beside the RMSNorm.
#[derive(Debug, Clone, Copy)]
pub enum Gate<'a> {
    /// Nothing.
    None,
    /// Norm, then · SiLU(gate), `[T, C]`: Gated DeltaNet.
    After(&'a [f32]),
    /// · SiLU(gate), `[T, C]`, then norm: Mamba2.
    Before(&'a [f32]),
}

/// The RMSNorm of half a layer, and where it stands: x += f(norm x), or x += norm(f x).
#[derive(Debug, Clone, Copy)]
pub struct OfBranch<'a> {
    /// `[d]`; empty and not behind f: there is no norm.
    pub weight: &'a [f32],
    /// Whether it stands behind f.
    pub after: bool,
}

impl OfBranch<'_> {
    /// What f reads, in place: `[T, d]`.
    pub fn before(&self, x: &mut [f32]) {
        if !self.after && !self.weight.is_empty() {
            crate::cpu::run(RmsNorm { x, weight: self.weight, gate: Gate::None });
        }
    }
}

/// RMSNorm with weight, and a gate before or after it, of every row of `x`.
#[derive(Debug)]
pub struct RmsNorm<'a> {
    /// `[T, C]`, overwritten.
    pub x: &'a mut [f32],
    /// `[C]`
    pub weight: &'a [f32],
    /// The gate.
    pub gate: Gate<'a>,
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let width = self.weight.len();
        for (t, x) in self.x.chunks_exact_mut(width).enumerate() {
            if let Gate::Before(gate) = self.gate {
                vector::update(
                    s,
                    &gate[t * width..][..width],
                    x,
                    #[inline(always)]
                    |gate, x| s.mul(x, s.silu(gate)),
                );
            }
            let scale =
                s.splat(1.0 / (vector::dot(s, x, x) / width as f32 + RMS_EPS as f32).sqrt());
            vector::update(
                s,
                self.weight,
                x,
                #[inline(always)]
                |weight, x| s.mul(s.mul(x, scale), weight),
            );
            if let Gate::After(gate) = self.gate {
                vector::update(
                    s,
                    &gate[t * width..][..width],
                    x,
                    #[inline(always)]
                    |gate, x| s.mul(x, s.silu(gate)),
                );
            }
        }
    }
}

/// x / √(Σx² + 10⁻⁶) of every `width` values.
#[derive(Debug)]
pub struct L2Norm<'a> {
    /// `[T, C]`, overwritten.
    pub x: &'a mut [f32],
    /// C.
    pub width: usize,
}

impl Kernel for L2Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        for x in self.x.chunks_exact_mut(self.width) {
            let scale = 1.0 / (vector::dot(s, x, x) + L2_EPS as f32).sqrt();
            vector::scale(s, scale, x);
        }
    }
}
