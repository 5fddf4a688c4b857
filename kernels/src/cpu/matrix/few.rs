//! Few tokens: the weights are read once, from memory into registers, and multiplied for all tokens there.

use super::panels::{Bf16Panel, F32Panel, Int8Panel, Panel, Panels, even};
use super::product::Product;
use crate::cpu::simd::{PANEL, Simd};
use crate::cpu::{Kernel, Level};

/// Tokens up to which this is the way, as the registers allow.
pub(super) fn tokens_max(level: Level) -> usize {
    if level == Level::Avx512 { 4 } else { 1 }
}

pub(super) struct Few<'a> {
    pub(super) product: Product<'a>,
    /// `[T, in]`
    pub(super) x: &'a [f32],
}

impl Kernel for Few<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { product, x } = self;
        let stride = even(product.matrix.inputs) * PANEL;
        // Panel i of the matrix begins at i times what a panel holds.
        match &product.matrix.panels {
            Panels::F32(panels) => {
                let first = panels.as_ptr();
                product.few(
                    s,
                    x,
                    #[inline(always)]
                    |i| F32Panel(first.wrapping_add(i * stride)),
                );
            }
            Panels::Bf16(panels) => {
                let first = panels.as_ptr();
                product.few(
                    s,
                    x,
                    #[inline(always)]
                    |i| Bf16Panel(first.wrapping_add(i * stride)),
                );
            }
            Panels::Int8 { values, scales } => {
                let (first, scale) = (values.as_ptr(), scales.as_ptr());
                product.few(
                    s,
                    x,
                    #[inline(always)]
                    |i| Int8Panel(first.wrapping_add(i * stride), scale.wrapping_add(i * PANEL)),
                );
            }
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn few<S: Simd, P: Panel>(self, s: S, x: &[f32], panel_at: impl Fn(usize) -> P) {
        assert!(self.rows.len() <= tokens_max(S::LEVEL), "few tokens are few");
        for panel in self.panels.clone() {
            let weights = panel_at(panel);
            // SAFETY: the panel is one of the matrix; x is [T, in] and y is [T, out], checked where the product was
            // made, and no other thread writes this panel's columns.
            unsafe {
                match (S::LANES, self.rows.len()) {
                    (16, 1) => self.panel::<S, P, 2, 1, 2>(s, x, panel, weights),
                    (16, 2) => self.panel::<S, P, 2, 2, 1>(s, x, panel, weights),
                    (16, 3) => self.panel::<S, P, 2, 3, 1>(s, x, panel, weights),
                    (16, _) => self.panel::<S, P, 2, 4, 1>(s, x, panel, weights),
                    (8, _) => self.panel::<S, P, 4, 1, 1>(s, x, panel, weights),
                    _ => unreachable!("the lanes of all instruction sets are listed"),
                }
            }
        }
    }

    /// The outputs of one panel. `PAIRS` pairs of inputs have sums of their own, so that additions do not wait for each
    /// other.
    ///
    /// # Safety
    /// `weights` is this panel; there are `TOKENS` tokens; nobody else writes this panel's columns of y.
    #[inline(always)]
    unsafe fn panel<
        S: Simd,
        P: Panel,
        const VECTORS: usize,
        const TOKENS: usize,
        const PAIRS: usize,
    >(
        &self,
        s: S,
        x: &[f32],
        panel: usize,
        weights: P,
    ) {
        let (inputs, outputs) = (self.matrix.inputs, self.matrix.outputs);
        let x = x.as_ptr();
        let mut sums = [[[[s.splat(0.0); VECTORS]; 2]; PAIRS]; TOKENS];
        let pairs = inputs / 2;
        let whole = pairs / PAIRS * PAIRS;
        let mut i = 0;
        // SAFETY: pairs below ⌈in / 2⌉ lie in the panel, inputs 2·pair + 1 < in in x.
        unsafe {
            while i < whole {
                for p in 0..PAIRS {
                    let x = x.add(2 * (i + p));
                    for v in 0..VECTORS {
                        let (even, odd) = weights.pair(s, i + p, v * S::LANES);
                        for (t, sums) in sums.iter_mut().enumerate() {
                            let x = x.add(t * inputs);
                            sums[p][0][v] = s.fma(s.splat(*x), even, sums[p][0][v]);
                            sums[p][1][v] = s.fma(s.splat(*x.add(1)), odd, sums[p][1][v]);
                        }
                    }
                }
                i += PAIRS;
            }
            while i < pairs {
                for v in 0..VECTORS {
                    let (even, odd) = weights.pair(s, i, v * S::LANES);
                    for (t, sums) in sums.iter_mut().enumerate() {
                        let x = x.add(t * inputs + 2 * i);
                        sums[0][0][v] = s.fma(s.splat(*x), even, sums[0][0][v]);
                        sums[0][1][v] = s.fma(s.splat(*x.add(1)), odd, sums[0][1][v]);
                    }
                }
                i += 1;
            }
            if inputs % 2 == 1 {
                for v in 0..VECTORS {
                    let (last, _) = weights.pair(s, pairs, v * S::LANES);
                    for (t, sums) in sums.iter_mut().enumerate() {
                        let x = s.splat(*x.add(t * inputs + inputs - 1));
                        sums[0][0][v] = s.fma(x, last, sums[0][0][v]);
                    }
                }
            }
        }
        let (from, width) = self.matrix.columns(panel);
        for (t, sums) in sums.into_iter().enumerate() {
            for v in 0..VECTORS {
                let mut sum = s.splat(0.0);
                for [even, odd] in sums {
                    sum = s.add(sum, s.add(even[v], odd[v]));
                }
                let at = v * S::LANES;
                // SAFETY: the panel has PANEL scales; what is written lies below its width in row t of y.
                unsafe {
                    if let Some(scales) = weights.scales(s, at) {
                        sum = s.mul(sum, scales);
                    }
                    let y = self.y.as_ptr().add(t * outputs + from + at.min(width));
                    store(s, y, width.saturating_sub(at), sum, self.accumulate);
                }
            }
        }
    }
}

/// Writes the first `rest` lanes, or adds to what is there.
///
/// # Safety
/// `min(rest, LANES)` values are readable and writable at `y`.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(s: S, y: *mut f32, rest: usize, sum: S::V, accumulate: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        if rest >= S::LANES {
            s.store(y, if accumulate { s.add(s.load(y), sum) } else { sum });
        } else if rest > 0 {
            let sum = if accumulate { s.add(s.load_part(y, rest), sum) } else { sum };
            s.store_part(y, rest, sum);
        }
    }
}
