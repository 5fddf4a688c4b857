//! Many tokens: products of register tiles of packed rows of X and panels of the weights.

use std::ops::Range;

use super::panels::{Bf16Panel, Int8Panel, Panel, Panels, Storage, even};
use super::product::{Matrix, Product, Source};
use crate::cpu::gemm::View;
use crate::cpu::packed::{Tile, aligned, pack, tile_of_height, words};
use crate::cpu::simd::{PANEL, Simd};
use crate::cpu::{Kernel, Level, Precision, multiplies_bf16, run_in};

/// Rows of X that are packed at once: with 1,024 inputs they fill a second-level cache.
pub(super) const ROW_BLOCK: usize = 96;

/// In which numbers many tokens are multiplied: in bf16 where the processor does that and the weights are below f32.
pub(super) fn precision(level: Level, storage: Storage) -> Precision {
    if level == Level::Avx512 && storage != Storage::F32 && multiplies_bf16() {
        Precision::Bf16
    } else {
        Precision::F32
    }
}

/// Computes the part of a product.
pub(super) fn multiply(level: Level, product: Product<'_>, x: &Source<'_>) {
    let precision = precision(level, product.matrix.storage());
    run_in(level, precision, Many { product, x, precision });
}

struct Many<'a> {
    product: Product<'a>,
    x: &'a Source<'a>,
    precision: Precision,
}

impl Kernel for Many<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        match self.precision {
            Precision::F32 => self.product.many::<S, false>(s, self.x),
            Precision::Bf16 => self.product.many::<S, true>(s, self.x),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn many<S: Simd, const NARROW: bool>(self, s: S, x: &Source<'_>) {
        let Self { matrix, y, rows, panels, accumulate } = self;
        let (inputs, outputs) = (matrix.inputs, matrix.outputs);
        let (mut strips, mut unpacked, mut prepared) = (Vec::new(), Vec::new(), Vec::new());
        for first in rows.clone().step_by(ROW_BLOCK) {
            let count = (rows.end - first).min(ROW_BLOCK);
            let x = match x {
                Source::Ready(x) => &x[first * inputs..],
                Source::Prepared(prepare) => {
                    let x = aligned(&mut prepared, count * inputs);
                    prepare(first, x);
                    &*x
                }
                Source::Finished(x, finish) => {
                    // SAFETY: the threads share the rows, so nothing else has these.
                    let x = unsafe { x.part(first * inputs, count * inputs) };
                    finish(first, x);
                    &*x
                }
            };
            let x = View::new(x, inputs);
            let strips = Strips::pack::<S, NARROW>(s, x, (count, inputs), &mut strips);
            // SAFETY: y holds `count` rows from `first`, and no other thread writes these panels' columns of them.
            let c = unsafe { y.as_ptr().add(first * outputs) };
            let panels = panels.clone();
            strips.multiply::<S, NARROW>(s, (matrix, panels), c, accumulate, &mut unpacked);
        }
    }
}

/// Some rows of X as the strips of register tiles.
pub(super) struct Strips<'a> {
    pub(super) rows: usize,
    /// `[strips, words, TILE_ROWS]`
    pub(super) words: &'a [f32],
}

impl<'a> Strips<'a> {
    /// Packs the first rows of X, `size` are their number and the inputs.
    #[inline(always)]
    pub(super) fn pack<S: Simd, const NARROW: bool>(
        s: S,
        x: View<'_>,
        size: (usize, usize),
        space: &'a mut Vec<f32>,
    ) -> Self {
        let (rows, inputs) = size;
        let len = S::TILE_ROWS * words::<NARROW>(inputs);
        let strips = aligned(space, rows.div_ceil(S::TILE_ROWS) * len);
        for (i, strip) in strips.chunks_exact_mut(len.max(1)).enumerate() {
            let row = i * S::TILE_ROWS;
            let source = View { data: &x.data[row * x.rows..], ..x };
            let height = (rows - row).min(S::TILE_ROWS);
            pack::<S, NARROW>(s, source, height, inputs, strip, S::TILE_ROWS);
        }
        Self { rows, words: strips }
    }

    /// The columns of some panels of a matrix, in rows of C as long as its outputs.
    #[inline(always)]
    pub(super) fn multiply<S: Simd, const NARROW: bool>(
        &self,
        s: S,
        (matrix, panels): (&Matrix, Range<usize>),
        c: *mut f32,
        accumulate: bool,
        space: &mut Vec<f32>,
    ) {
        let words = words::<NARROW>(matrix.inputs);
        assert!(self.words.len() >= self.rows.div_ceil(S::TILE_ROWS) * S::TILE_ROWS * words);
        for panel in panels {
            let (weights, scales) = matrix.panel_words::<S, NARROW>(s, panel, space);
            let (from, width) = matrix.columns(panel);
            for row in (0..self.rows).step_by(S::TILE_ROWS) {
                let height = (self.rows - row).min(S::TILE_ROWS);
                // SAFETY: the strip holds [words, TILE_ROWS], the panel [words, PANEL]; C has `height` rows from `row`
                // with `width` columns from the panel's first, which the caller may write.
                unsafe {
                    let c = c.add(row * matrix.outputs + from);
                    let out = Tile { c, stride: matrix.outputs, height, width, accumulate, scales };
                    let strip = self.words.as_ptr().add(row * words);
                    tile_of_height::<S, NARROW>(s, words, strip, weights.as_ptr(), &out);
                }
            }
        }
    }
}

impl Matrix {
    /// Where the columns of a panel begin in a row of Y, and how many they are.
    pub(super) fn columns(&self, panel: usize) -> (usize, usize) {
        (panel * PANEL, (self.outputs - panel * PANEL).min(PANEL))
    }

    /// A panel as words, `[words, PANEL]`, in `space` if it is kept in other numbers; and the factors of its columns.
    #[inline(always)]
    pub(super) fn panel_words<'a, S: Simd, const NARROW: bool>(
        &'a self,
        s: S,
        panel: usize,
        space: &'a mut Vec<f32>,
    ) -> (&'a [f32], Option<&'a [f32]>) {
        let stride = even(self.inputs) * PANEL;
        let words = words::<NARROW>(even(self.inputs)) * PANEL;
        match &self.panels {
            Panels::F32(panels) => {
                assert!(!NARROW, "f32 weights are multiplied in f32");
                (&panels[panel * stride..][..stride], None)
            }
            Panels::Bf16(panels) => {
                let pairs = &panels[panel * stride..][..stride];
                if NARROW {
                    return (bytemuck::cast_slice(pairs), None);
                }
                let out = aligned(space, words);
                unpack::<S, _, NARROW>(s, Bf16Panel(pairs.as_ptr()), out);
                (out, None)
            }
            Panels::Int8 { values, scales } => {
                let values = &values[panel * stride..][..stride];
                let scales = &scales[panel * PANEL..][..PANEL];
                let out = aligned(space, words);
                // Integers up to 127 are exact in bf16.
                unpack::<S, _, NARROW>(s, Int8Panel(values.as_ptr(), scales.as_ptr()), out);
                (out, Some(scales))
            }
        }
    }
}

/// The panel's weights, not scaled, as words; `out` has their length.
#[inline(always)]
fn unpack<S: Simd, P: Panel, const NARROW: bool>(s: S, panel: P, out: &mut [f32]) {
    let per_pair = if NARROW { PANEL } else { 2 * PANEL };
    for (pair, rows) in out.chunks_exact_mut(per_pair).enumerate() {
        for at in (0..PANEL).step_by(S::LANES) {
            // SAFETY: the panel holds as many pairs as `out`; PANEL is a multiple of LANES.
            unsafe {
                let (first, second) = panel.pair(s, pair, at);
                if NARROW {
                    s.store(rows.as_mut_ptr().add(at), s.narrow(first, second));
                } else {
                    s.store(rows.as_mut_ptr().add(at), first);
                    s.store(rows.as_mut_ptr().add(PANEL + at), second);
                }
            }
        }
    }
}
