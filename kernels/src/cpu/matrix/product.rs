//! A matrix, and the part of a product with it that a thread makes: what [`super::few`] and [`super::many`] work on.

use std::ops::Range;

use super::super::pool::{Pool, SharedMut};
use super::panels::Panels;

/// A linear map's weights.
#[derive(Debug, Clone)]
pub struct Matrix {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) panels: Panels,
}

/// X `[T, in]`.
pub(super) enum Source<'a> {
    Ready(&'a [f32]),
    /// Writes the rows from a given one on.
    Prepared(&'a (dyn Fn(usize, &mut [f32]) + Sync)),
    /// Changes them; rows are shared by the threads.
    Finished(&'a SharedMut<'a>, &'a (dyn Fn(usize, &mut [f32]) + Sync)),
}

/// Rows that a thread has at least, where the threads share rows and not panels.
const ROWS_MIN: usize = 48;

/// Whether each thread takes some rows, and packs only them; else it takes some panels.
pub(super) fn shares_rows(tokens: usize, pool: &Pool) -> bool {
    tokens >= ROWS_MIN * pool.threads()
}

/// The part of a range for one of `threads`.
pub(super) fn share(of: Range<usize>, thread: usize, threads: usize) -> Range<usize> {
    let at = |thread: usize| of.start + of.len() * thread / threads;
    at(thread)..at(thread + 1)
}

/// Some rows and some panels' columns of Y `[T, out]` ← X `[T, in]` · Wᵀ, or +=.
pub(super) struct Product<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) y: &'a SharedMut<'a>,
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
    pub(super) accumulate: bool,
}
