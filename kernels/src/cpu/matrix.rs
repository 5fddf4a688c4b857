//! The weights of a linear map, packed once, for one token and for many.
//!
//! The matrix `[out, in]` is kept as panels of [`PANEL`] outputs, each `[in, PANEL]`: one token multiplies every panel
//! row by one broadcast input (no sums across lanes), many tokens use the same panels as B of a product. So weights are
//! kept once, and decode reads them once, front to back.
//!
//! They are kept in one of three [`Storage`]s. Inputs and outputs are f32 always, and so is arithmetic, but for one
//! case: many tokens against weights below f32, on processors that multiply bfloat16, round their inputs to it.

pub mod feed_forward;
mod few;
mod many;
mod panels;
mod product;
mod rows;

use std::ops::Range;

use self::few::Few;
use self::panels::Panels;
use self::product::{Product, Source, share, shares_rows};
use super::pool::{Pool, SharedMut};
use super::simd::PANEL;
use super::{Level, Precision, run_at};

pub use panels::Storage;
pub use product::Matrix;
pub use rows::Rows;

impl Matrix {
    /// Packs row-major weights, `[outputs, inputs]`, and keeps them in f32.
    pub fn from_rows(weights: &[f32], outputs: usize, inputs: usize) -> Self {
        Self::pack(weights, outputs, inputs, Storage::F32)
    }

    /// Packs row-major weights, `[outputs, inputs]`.
    pub fn pack(weights: &[f32], outputs: usize, inputs: usize, storage: Storage) -> Self {
        assert_eq!(
            weights.len(),
            outputs * inputs,
            "matrix: weights must be [{outputs}, {inputs}]"
        );
        Self { outputs, inputs, panels: Panels::pack(weights, outputs, inputs, storage) }
    }

    /// Rows of the weights.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the weights.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How the weights are kept.
    pub fn storage(&self) -> Storage {
        self.panels.storage()
    }

    /// In which numbers many tokens are multiplied on this machine.
    pub fn precision(&self) -> Precision {
        many::precision(Level::best(), self.storage())
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// Copies row `output` of the weights, `[in]`, into `row`.
    pub fn read_row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs, "matrix: row {output} of {}", self.outputs);
        self.panels.read_row(self.inputs, output, &mut row[..self.inputs]);
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
        self.multiply(level, pool, tokens, &Source::Ready(x), y, accumulate);
    }

    /// Whether so many tokens are enough for [`Matrix::apply_prepared`] and [`Matrix::apply_finished`].
    pub fn is_for_prepared(tokens: usize, pool: &Pool) -> bool {
        shares_rows(tokens, pool)
    }

    /// Y `[T, out]` ← X `[T, in]` · Wᵀ, each thread taking some rows. X is made a few rows at a time, just before they are
    /// multiplied: `prepare` writes the rows from a given one on.
    pub fn apply_prepared(
        &self,
        pool: &Pool,
        tokens: usize,
        prepare: &(dyn Fn(usize, &mut [f32]) + Sync),
        y: &mut [f32],
    ) {
        assert!(shares_rows(tokens, pool), "matrix: prepared rows are for many tokens");
        self.multiply(Level::best(), pool, tokens, &Source::Prepared(prepare), y, false);
    }

    /// Y `[T, out]` += X `[T, in]` · Wᵀ, each thread taking some rows. `finish` changes the rows of X from a given one on
    /// just before they are multiplied.
    pub fn apply_finished(
        &self,
        pool: &Pool,
        x: &mut [f32],
        finish: &(dyn Fn(usize, &mut [f32]) + Sync),
        y: &mut [f32],
    ) {
        let tokens = x.len() / self.inputs;
        assert_eq!(x.len(), tokens * self.inputs, "matrix: x must be [T, {}]", self.inputs);
        assert!(shares_rows(tokens, pool), "matrix: finished rows are for many tokens");
        let x = SharedMut::new(x);
        self.multiply(Level::best(), pool, tokens, &Source::Finished(&x, finish), y, true);
    }

    fn multiply(
        &self,
        level: Level,
        pool: &Pool,
        tokens: usize,
        x: &Source<'_>,
        y: &mut [f32],
        accumulate: bool,
    ) {
        assert_eq!(
            y.len(),
            tokens * self.outputs,
            "matrix: y must be [{tokens}, {}]",
            self.outputs
        );
        let level = level.min(Level::best());
        let y = SharedMut::new(y);
        pool.run(|thread| {
            let panels = 0..self.outputs.div_ceil(PANEL);
            let share = |of: Range<usize>| share(of, thread, pool.threads());
            // Each thread writes its own rows, or the columns of its own panels.
            let (rows, panels) = if shares_rows(tokens, pool) {
                (share(0..tokens), panels)
            } else {
                (0..tokens, share(panels))
            };
            let product = Product { matrix: self, y: &y, rows, panels, accumulate };
            match x {
                Source::Ready(x) if tokens <= few::tokens_max(level) => {
                    run_at(level, Few { product, x });
                }
                _ => many::multiply(level, product, x),
            }
        });
    }
}
