//! What the chunked forms of the recurrences share.

use super::gemm::{Gemm, View};
use super::simd::Simd;
use super::vector;

/// Positions of a chunk.
pub(crate) const CHUNK: usize = 64;

/// C `[m, n]` ← A · B, or += , with B and C in rows without gaps beyond their strides.
pub(crate) struct Product<'a> {
    pub(crate) size: [usize; 3],
    pub(crate) a: View<'a>,
    pub(crate) b: View<'a>,
    pub(crate) c: &'a mut [f32],
    pub(crate) accumulate: bool,
}

impl Product<'_> {
    /// Computes it; `size` is m, n, k; C has rows of n.
    #[inline(always)]
    pub(crate) fn run<S: Simd>(self, _: S) {
        let Self { size: [m, n, k], a, b, c, accumulate } = self;
        Gemm { m, n, k, a, b, c, c_stride: n, accumulate }.run_at(S::LEVEL);
    }
}

/// Σ_{r ≤ i} g_r for each i.
pub(crate) fn cumulate(g: &[f32], sums: &mut [f32]) {
    let mut sum = 0.0;
    for (g, out) in g.iter().zip(sums) {
        sum += g;
        *out = sum;
    }
}

/// Multiplies element j of a row of scores by `factor` · e^{G_i − G_j} for j < `seen`, and clears the rest.
///
/// Only differences of the cumulated log-decays are exponentiated: they are ≤ 0, so nothing overflows however long the
/// chunk or strong the decay.
#[inline(always)]
pub(crate) fn decay_scores<S: Simd>(
    s: S,
    scores: &mut [f32],
    cumulated: &[f32],
    own: f32,
    factor: f32,
    seen: usize,
) {
    let (own, factor) = (s.splat(own), s.splat(factor));
    vector::update(
        s,
        &cumulated[..seen],
        &mut scores[..seen],
        #[inline(always)]
        |at, score| s.mul(s.mul(factor, score), s.exp(s.sub(own, at))),
    );
    scores[seen..].fill(0.0);
}
