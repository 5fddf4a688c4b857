//! The weights of a linear map, packed once, for one token and for many.
//!
//! The matrix `[out, in]` is kept as panels of [`PANEL`] outputs, each `[in, PANEL]`: one token multiplies every panel
//! row by one broadcast input (no sums across lanes), many tokens use the same panels as B of a product. So weights are
//! kept once, and decode reads them once, front to back.

use super::gemm::{self, Tile, View};
use super::pool::{Pool, SharedMut};
use super::simd::Simd;
use super::{Kernel, Level, run_at};

/// Outputs of a panel.
pub const PANEL: usize = 32;

/// Inputs that one-token products keep apart, so that additions do not wait for each other.
const STRANDS: usize = 4;

/// Rows of X that are packed at once in products of many tokens: with 1,024 inputs they fill a second-level cache.
const ROW_BLOCK: usize = 96;

/// A linear map's weights.
#[derive(Debug, Clone)]
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    /// `[⌈out / PANEL⌉, in, PANEL]`, zeros beyond the last output.
    panels: Vec<f32>,
}

impl Matrix {
    /// Packs row-major weights, `[outputs, inputs]`.
    pub fn from_rows(weights: &[f32], outputs: usize, inputs: usize) -> Self {
        assert_eq!(
            weights.len(),
            outputs * inputs,
            "matrix: weights must be [{outputs}, {inputs}]"
        );
        let mut panels = vec![0.0; outputs.div_ceil(PANEL) * PANEL * inputs];
        for (output, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
            let panel = &mut panels[output / PANEL * PANEL * inputs..][..PANEL * inputs];
            for (i, w) in row.iter().enumerate() {
                panel[i * PANEL + output % PANEL] = *w;
            }
        }
        Self { outputs, inputs, panels }
    }

    /// Rows of the weights.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the weights.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.panels.len() * size_of::<f32>()
    }

    /// Copies row `output` of the weights, `[in]`, into `row`.
    pub fn read_row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs, "matrix: row {output} of {}", self.outputs);
        let panel = &self.panels[output / PANEL * PANEL * self.inputs..][..PANEL * self.inputs];
        for (x, inputs) in row.iter_mut().zip(panel.chunks_exact(PANEL)) {
            *x = inputs[output % PANEL];
        }
    }

    /// Y `[T, out]` ← X `[T, in]` · Wᵀ on the threads of the pool.
    pub fn apply(&self, pool: &Pool, x: &[f32], y: &mut [f32]) {
        self.apply_at(Level::best(), pool, x, y, false);
    }

    /// Y `[T, out]` += X `[T, in]` · Wᵀ on the threads of the pool.
    pub fn apply_add(&self, pool: &Pool, x: &[f32], y: &mut [f32]) {
        self.apply_at(Level::best(), pool, x, y, true);
    }

    /// [`Matrix::apply`], or [`Matrix::apply_add`] with `accumulate`, at a given level.
    pub fn apply_at(&self, level: Level, pool: &Pool, x: &[f32], y: &mut [f32], accumulate: bool) {
        let tokens = x.len() / self.inputs;
        assert_eq!(x.len(), tokens * self.inputs, "matrix: x must be [T, {}]", self.inputs);
        assert_eq!(
            y.len(),
            tokens * self.outputs,
            "matrix: y must be [{tokens}, {}]",
            self.outputs
        );
        let panels = self.outputs.div_ceil(PANEL);
        let y = SharedMut::new(y);
        pool.run(|thread| {
            let range = (panels * thread / pool.threads(), panels * (thread + 1) / pool.threads());
            // Each thread writes the columns of its own panels only.
            run_at(level, Apply { matrix: self, tokens, x, y: &y, panels: range, accumulate });
        });
    }
}

/// The outputs of some panels.
struct Apply<'a> {
    matrix: &'a Matrix,
    tokens: usize,
    x: &'a [f32],
    y: &'a SharedMut<'a>,
    panels: (usize, usize),
    accumulate: bool,
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        if self.tokens == 1 { self.one_token(s) } else { self.many_tokens(s) }
    }
}

impl Apply<'_> {
    #[inline(always)]
    fn one_token<S: Simd>(self, s: S) {
        let Matrix { outputs, inputs, panels } = self.matrix;
        for panel in self.panels.0..self.panels.1 {
            let width = (outputs - panel * PANEL).min(PANEL);
            // SAFETY: the panel holds [in, PANEL], x holds [in], y the width outputs from panel · PANEL, which no
            // other thread writes.
            unsafe {
                let weights = panels.as_ptr().add(panel * PANEL * inputs);
                let c = self.y.as_ptr().add(panel * PANEL);
                let out = Tile { c, stride: 0, height: 1, width, accumulate: self.accumulate };
                match S::LANES {
                    16 => panel_of_one::<S, 2>(s, weights, self.x.as_ptr(), *inputs, &out),
                    8 => panel_of_one::<S, 4>(s, weights, self.x.as_ptr(), *inputs, &out),
                    _ => unreachable!("the lanes of all instruction sets are listed"),
                }
            }
        }
    }

    #[inline(always)]
    fn many_tokens<S: Simd>(self, s: S) {
        let Matrix { outputs, inputs, panels } = self.matrix;
        let x = View::new(self.x, *inputs);
        let strip_len = S::TILE_ROWS * inputs;
        let mut strips = vec![0.0; ROW_BLOCK / S::TILE_ROWS * strip_len];
        for block in (0..self.tokens).step_by(ROW_BLOCK) {
            let block_rows = (self.tokens - block).min(ROW_BLOCK);
            for (row, strip) in
                (0..block_rows).step_by(S::TILE_ROWS).zip(strips.chunks_exact_mut(strip_len))
            {
                let height = (block_rows - row).min(S::TILE_ROWS);
                gemm::pack(strip, x, block + row, height, *inputs, S::TILE_ROWS);
            }
            for panel in self.panels.0..self.panels.1 {
                let width = (outputs - panel * PANEL).min(PANEL);
                for (row, strip) in
                    (0..block_rows).step_by(S::TILE_ROWS).zip(strips.chunks_exact(strip_len))
                {
                    let height = (block_rows - row).min(S::TILE_ROWS);
                    // SAFETY: the strip holds [in, TILE_ROWS], the panel [in, PANEL]; y holds `height` rows from
                    // block + row with `width` columns from panel · PANEL, which no other thread writes.
                    unsafe {
                        let weights = panels.as_ptr().add(panel * PANEL * inputs);
                        let c = self.y.as_ptr().add((block + row) * outputs + panel * PANEL);
                        let out = Tile {
                            c,
                            stride: *outputs,
                            height,
                            width,
                            accumulate: self.accumulate,
                        };
                        gemm::tile_of_height(
                            s,
                            *inputs,
                            strip.as_ptr(),
                            weights,
                            PANEL,
                            PANEL,
                            &out,
                        );
                    }
                }
            }
        }
    }
}

/// The outputs of one panel for one token.
///
/// # Safety
/// `weights` holds `[inputs, PANEL]`, `x` `[inputs]`; `out` describes one writable row.
#[inline(always)]
unsafe fn panel_of_one<S: Simd, const VECTORS: usize>(
    s: S,
    weights: *const f32,
    x: *const f32,
    inputs: usize,
    out: &Tile,
) {
    let mut sums = [[s.splat(0.0); VECTORS]; STRANDS];
    let whole = inputs / STRANDS * STRANDS;
    let mut i = 0;
    // SAFETY: i + STRANDS ≤ inputs in the first loop, i < inputs in the second; stores stay below the width.
    unsafe {
        while i < whole {
            for (strand, sums) in sums.iter_mut().enumerate() {
                let x = s.splat(*x.add(i + strand));
                let row = weights.add((i + strand) * PANEL);
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = s.fma(x, s.load(row.add(v * S::LANES)), *sum);
                }
            }
            i += STRANDS;
        }
        while i < inputs {
            let x = s.splat(*x.add(i));
            for (v, sum) in sums[0].iter_mut().enumerate() {
                *sum = s.fma(x, s.load(weights.add(i * PANEL + v * S::LANES)), *sum);
            }
            i += 1;
        }
        let [first, second, third, fourth] = sums;
        for (v, sum) in first.into_iter().enumerate() {
            let sum = s.add(s.add(sum, second[v]), s.add(third[v], fourth[v]));
            let rest = out.width.saturating_sub(v * S::LANES);
            let y = out.c.add((v * S::LANES).min(out.width));
            if rest >= S::LANES {
                s.store(y, if out.accumulate { s.add(s.load(y), sum) } else { sum });
            } else if rest > 0 {
                let sum = if out.accumulate { s.add(s.load_part(y, rest), sum) } else { sum };
                s.store_part(y, rest, sum);
            }
        }
    }
}
