//! Many tokens: products of register tiles of packed rows of X and panels of the weights.

#[cfg(target_arch = "x86_64")]
mod bf16;

use super::panels::{Bf16Panel, Int8Panel, Panel, Panels, even};
use super::{PANEL, Product, Storage};
use crate::cpu::gemm::{self, Tile, View};
use crate::cpu::{Kernel, Level, Simd};

/// Rows of X that are packed at once: with 1,024 inputs they fill a second-level cache.
const ROW_BLOCK: usize = 96;

/// Computes the product with the processor's bfloat16 instructions; false, and nothing is done, where it has none or
/// the weights are f32.
pub(super) fn in_bf16(level: Level, product: &Product<'_>) -> bool {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 && product.matrix.storage() != Storage::F32 {
        return bf16::multiply_if_possible(product);
    }
    let _ = (level, product);
    false
}

/// In f32: weights of a smaller storage become f32 one panel at a time.
pub(super) struct Many<'a>(pub(super) Product<'a>);

impl Kernel for Many<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self(product) = self;
        let (inputs, outputs) = (product.matrix.inputs, product.matrix.outputs);
        let stride = even(inputs) * PANEL;
        let x = View::new(product.x, inputs);
        let strip_len = S::TILE_ROWS * inputs;
        let mut strips = vec![0.0; ROW_BLOCK / S::TILE_ROWS * strip_len];
        let is_f32 = product.matrix.storage() == Storage::F32;
        let mut unpacked = vec![0.0; if is_f32 { 0 } else { stride }];
        for block in (0..product.tokens).step_by(ROW_BLOCK) {
            let block_rows = (product.tokens - block).min(ROW_BLOCK);
            for (row, strip) in
                (0..block_rows).step_by(S::TILE_ROWS).zip(strips.chunks_exact_mut(strip_len))
            {
                let height = (block_rows - row).min(S::TILE_ROWS);
                gemm::pack(strip, x, block + row, height, inputs, S::TILE_ROWS);
            }
            for panel in product.panels.clone() {
                let weights = match &product.matrix.panels {
                    Panels::F32(panels) => &panels[panel * stride..][..stride],
                    Panels::Bf16(panels) => {
                        let bf16 = &panels[panel * stride..][..stride];
                        unpack(s, Bf16Panel(bf16.as_ptr()), &mut unpacked);
                        &unpacked[..]
                    }
                    Panels::Int8 { values, scales } => {
                        let values = &values[panel * stride..][..stride];
                        let scales = &scales[panel * PANEL..][..PANEL];
                        unpack(s, Int8Panel(values.as_ptr(), scales.as_ptr()), &mut unpacked);
                        &unpacked[..]
                    }
                };
                let (from, width) = product.columns(panel);
                for (row, strip) in
                    (0..block_rows).step_by(S::TILE_ROWS).zip(strips.chunks_exact(strip_len))
                {
                    let height = (block_rows - row).min(S::TILE_ROWS);
                    // SAFETY: the strip holds [in, TILE_ROWS], the panel [in, PANEL]; y holds `height` rows from
                    // block + row with `width` columns from the panel's first, which no other thread writes.
                    unsafe {
                        let c = product.y.as_ptr().add((block + row) * outputs + from);
                        let accumulate = product.accumulate;
                        let out = Tile { c, stride: outputs, height, width, accumulate };
                        let (strip, weights) = (strip.as_ptr(), weights.as_ptr());
                        gemm::tile_of_height(s, inputs, strip, weights, PANEL, PANEL, &out);
                    }
                }
            }
        }
    }
}

/// The panel's weights, scaled, as `[in, PANEL]`; `out` has the length of the panel.
#[inline(always)]
fn unpack<S: Simd, P: Panel>(s: S, panel: P, out: &mut [f32]) {
    for (pair, rows) in out.chunks_exact_mut(2 * PANEL).enumerate() {
        for at in (0..PANEL).step_by(S::LANES) {
            // SAFETY: the panel holds as many pairs as `out`; PANEL is a multiple of LANES.
            unsafe {
                let (mut first, mut second) = panel.pair(s, pair, at);
                if let Some(scales) = panel.scales(s, at) {
                    (first, second) = (s.mul(first, scales), s.mul(second, scales));
                }
                s.store(rows.as_mut_ptr().add(at), first);
                s.store(rows.as_mut_ptr().add(PANEL + at), second);
            }
        }
    }
}
