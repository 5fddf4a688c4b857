//! The weights of a linear map, packed once, for one token and for many.
//!
//! The matrix `[out, in]` is kept as panels of [`PANEL`] outputs, each `[in, PANEL]`: one token multiplies every panel
//! row by one broadcast input (no sums across lanes), many tokens use the same panels as B of a product. So weights are
//! kept once, and decode reads them once, front to back.
//!
//! They are kept in one of three [`Storage`]s. Inputs and outputs are f32 always, and so is arithmetic, but for one
//! case: many tokens against weights below f32, on processors that multiply bfloat16, round their inputs to it.

mod few;
mod many;
mod panels;
mod rows;

use self::few::Few;
use self::many::Many;
use self::panels::Panels;
use super::pool::{Pool, SharedMut};
use super::{Level, run_at};

pub use panels::Storage;
pub use rows::Rows;

/// Outputs of a panel.
pub const PANEL: usize = 32;

/// A linear map's weights.
#[derive(Debug, Clone)]
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    panels: Panels,
}

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

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// Copies row `output` of the weights, `[in]`, into `row`.
    pub fn read_row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs, "matrix: row {output} of {}", self.outputs);
        for (input, x) in row.iter_mut().enumerate().take(self.inputs) {
            *x = self.panels.weight(self.inputs, output, input);
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
        let level = level.min(Level::best());
        let panels = self.outputs.div_ceil(PANEL);
        let y = SharedMut::new(y);
        pool.run(|thread| {
            let range = panels * thread / pool.threads()..panels * (thread + 1) / pool.threads();
            // Each thread writes the columns of its own panels only.
            let product = Product { matrix: self, tokens, x, y: &y, panels: range, accumulate };
            if tokens <= few::tokens_max(level) {
                run_at(level, Few(product));
            } else if !many::in_bf16(level, &product) {
                run_at(level, Many(product));
            }
        });
    }
}

/// Some panels' columns of Y `[T, out]` ← X `[T, in]` · Wᵀ, or +=.
struct Product<'a> {
    matrix: &'a Matrix,
    tokens: usize,
    x: &'a [f32],
    y: &'a SharedMut<'a>,
    panels: std::ops::Range<usize>,
    accumulate: bool,
}

impl Product<'_> {
    /// Where the columns of a panel begin in a row of Y, and how many they are.
    fn columns(&self, panel: usize) -> (usize, usize) {
        (panel * PANEL, (self.matrix.outputs - panel * PANEL).min(PANEL))
    }
}
