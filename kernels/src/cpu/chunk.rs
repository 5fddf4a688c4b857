//! What the chunked forms of the recurrences share.

use super::gemm::{Gemm, View};
use super::pool::SharedMut;
use super::simd::{PANEL, Simd};
use super::vector;

/// Positions of a chunk.
pub(crate) const CHUNK: usize = 64;

/// Chunks of a prompt whose keys are packed at once: what they need stays below a megabyte for each head of keys.
pub(crate) const SEGMENT: usize = 16;

/// Pieces of work that there should be for several threads, so that none waits long for the last.
const ENOUGH_PIECES: usize = 8;

/// Columns of a state that a piece of work takes, of `heads` states of `value_width`: as many as leave enough pieces, in
/// whole panels. It depends on the shape only, so that results do not depend on the number of threads.
pub(crate) fn columns_of_piece(heads: usize, value_width: usize) -> usize {
    let mut columns = value_width.next_multiple_of(PANEL).max(PANEL);
    while columns > PANEL && heads * value_width.div_ceil(columns) < ENOUGH_PIECES {
        columns = (columns / 2).next_multiple_of(PANEL);
    }
    columns
}

/// Some columns of a state `[K, V]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    /// The first.
    pub(crate) from: usize,
    pub(crate) width: usize,
}

impl Columns {
    /// `most` columns, or what is left of the `value_width` there are.
    pub(crate) fn new(from: usize, most: usize, value_width: usize) -> Self {
        Self { from, width: most.min(value_width - from) }
    }

    /// Copies them from the state at `at` into `to` `[K, columns]`.
    pub(crate) fn read(self, state: &SharedMut, at: usize, value_width: usize, to: &mut [f32]) {
        for (i, to) in to.chunks_exact_mut(self.width).enumerate() {
            // SAFETY: the columns of a state belong to one piece of work.
            let from = unsafe { state.part(at + i * value_width + self.from, self.width) };
            to.copy_from_slice(from);
        }
    }

    /// Copies them back.
    pub(crate) fn write(self, state: &SharedMut, at: usize, value_width: usize, from: &[f32]) {
        for (i, from) in from.chunks_exact(self.width).enumerate() {
            // SAFETY: as above.
            let to = unsafe { state.part(at + i * value_width + self.from, self.width) };
            to.copy_from_slice(from);
        }
    }
}

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

/// Rows that the products with triangles take at once: a multiple of all register tiles.
const TRIANGLE_ROWS: usize = 24;

/// Columns up to which a row of a lower triangle is computed, in whole vectors of every instruction set.
fn lower_columns(rows_seen: usize, rows: usize) -> usize {
    rows_seen.next_multiple_of(16).min(rows)
}

/// C `[m, n]` ← L·B, or += : L `[m, m·steps]` is lower triangular in steps, row i zero from column (i + 1)·steps on; B
/// and C have rows of n.
pub(crate) fn lower_times<S: Simd>(
    _: S,
    ([m, n], steps): ([usize; 2], usize),
    l: View,
    b: View,
    c: &mut [f32],
    accumulate: bool,
) {
    for start in (0..m).step_by(TRIANGLE_ROWS) {
        let height = TRIANGLE_ROWS.min(m - start);
        let (k, a) = ((start + height) * steps, l.from_row(start));
        let c = &mut c[start * n..][..height * n];
        Gemm { m: height, n, k, a, b, c, c_stride: n, accumulate }.run_at(S::LEVEL);
    }
}

/// C `[m·steps, n]` ← Lᵀ·B, or += , as [`lower_times`]; the columns of L are 1 apart.
pub(crate) fn lower_transposed_times<S: Simd>(
    _: S,
    ([m, n], steps): ([usize; 2], usize),
    l: View,
    b: View,
    c: &mut [f32],
    accumulate: bool,
) {
    for start in (0..m * steps).step_by(TRIANGLE_ROWS) {
        let height = TRIANGLE_ROWS.min(m * steps - start);
        let first = start / steps; // the first row of L that has anything from column `start` on
        let a = View { data: &l.data[first * l.rows + start..], rows: 1, columns: l.rows };
        let c = &mut c[start * n..][..height * n];
        let b = b.from_row(first);
        Gemm { m: height, n, k: m - first, a, b, c, c_stride: n, accumulate }.run_at(S::LEVEL);
    }
}

/// The lower triangle, in steps, of C `[m, m·steps]` ← A `[m, k]` · B `[k, m·steps]`, rows of C `c_stride` apart. What
/// stands above the diagonal afterwards is of no meaning.
pub(crate) fn lower_of_product<S: Simd>(
    _: S,
    ([m, k], steps): ([usize; 2], usize),
    a: View,
    b: View,
    c: &mut [f32],
    c_stride: usize,
) {
    for start in (0..m).step_by(TRIANGLE_ROWS) {
        let height = TRIANGLE_ROWS.min(m - start);
        let (n, a) = (lower_columns((start + height) * steps, m * steps), a.from_row(start));
        let c = &mut c[start * c_stride..];
        Gemm { m: height, n, k, a, b, c, c_stride, accumulate: false }.run_at(S::LEVEL);
    }
}

/// The gradient of the logarithms g of a chunk. A decay e^{ℓ_i − ℓ_j} holds the g_r with j < r ≤ i, and what it gives to
/// its exponent is summed over just those. As a gradient of ℓ_i and of −ℓ_j it would have to cancel for all other r, and
/// what rounding leaves of that shows beside a sum over many positions, as the gradient of `A_log` is one.
#[derive(Debug)]
pub(crate) struct LogGradients {
    /// `[C]`: through each e^{ℓ_i}.
    pub(crate) since_start: [f32; CHUNK],
    /// `[C]`: through each e^{ℓ_C − ℓ_i}.
    pub(crate) to_end: [f32; CHUNK],
    /// `[C]`: through the Γ_ij of column j, over the rows so far.
    pub(crate) columns: [f32; CHUNK],
    /// `[C]`: dg.
    pub(crate) g: [f32; CHUNK],
}

impl LogGradients {
    pub(crate) fn new() -> Self {
        let zeros = [0.0; CHUNK];
        Self { since_start: zeros, to_end: zeros, columns: zeros, g: zeros }
    }

    /// Forgets the columns of the head before.
    pub(crate) fn clear(&mut self) {
        self.columns.fill(0.0);
    }

    /// Row i has been added to the columns, and with it all below: what stands left of i passes g_i.
    #[inline(always)]
    pub(crate) fn close_row<S: Simd>(&mut self, s: S, i: usize) {
        self.g[i] = vector::sum(s, &self.columns[..i]);
    }

    /// dg of all `rows`, which have been closed; `whole` comes through e^{ℓ_C}.
    pub(crate) fn finish(&mut self, rows: usize, whole: f32) {
        let mut after = whole;
        for (g, through) in self.g.iter_mut().zip(&self.since_start).take(rows).rev() {
            after += through;
            *g += after;
        }
        let mut before = 0.0;
        for (g, through) in self.g.iter_mut().zip(&self.to_end).take(rows) {
            *g += before;
            before += through;
        }
    }
}

/// The decays of a chunk, from the logarithms g of each position: exponentials of sums, never quotients.
///
/// The sums ℓ are kept in two parts. They grow along the chunk, where their differences between neighbours stay small: a
/// rounding of ℓ_i = −50 alone would change every decay that begins or ends at i by 2·10⁻⁶ of it.
#[derive(Debug)]
pub(crate) struct Decays {
    /// ℓ_i = Σ_{r ≤ i} g_r, rounded.
    log: Vec<f32>,
    /// What rounding took from ℓ_i.
    log_rest: Vec<f32>,
    /// e^{ℓ_i}: what is left at i of the state before the chunk.
    pub(crate) since_start: Vec<f32>,
    /// e^{ℓ_C − ℓ_i}: what is left of i after the chunk.
    pub(crate) to_end: Vec<f32>,
}

impl Decays {
    pub(crate) fn new() -> Self {
        let zeros = || Vec::with_capacity(CHUNK);
        Self { log: zeros(), log_rest: zeros(), since_start: zeros(), to_end: zeros() }
    }

    /// e^{ℓ_C}: what is left of the state before the chunk after it.
    pub(crate) fn whole(&self) -> f32 {
        *self.since_start.last().expect("a chunk has a position")
    }

    /// Takes the g of the chunk's positions, at least one.
    #[inline(always)]
    pub(crate) fn load<S: Simd>(&mut self, s: S, g: impl Iterator<Item = f32>) {
        let mut sum = 0.0_f64;
        self.log.clear();
        self.log_rest.clear();
        for g in g {
            sum += f64::from(g);
            self.log.push(sum as f32);
            self.log_rest.push((sum - f64::from(sum as f32)) as f32);
        }
        self.since_start.clear();
        self.since_start.extend_from_slice(&self.log);
        self.to_end.clear();
        let parts = self.log.iter().zip(&self.log_rest);
        let rest_of_sum = |(&log, &rest): (&f32, &f32)| sum - f64::from(log) - f64::from(rest);
        self.to_end.extend(parts.map(|parts| rest_of_sum(parts) as f32));
        vector::exp_and_sum(s, 0.0, &mut self.since_start);
        vector::exp_and_sum(s, 0.0, &mut self.to_end);
    }

    /// Γ_ij = e^{ℓ_i − ℓ_j} for every j ≤ i, into `out`.
    #[inline(always)]
    pub(crate) fn between<S: Simd>(&self, s: S, i: usize, out: &mut [f32]) {
        let (own, own_rest) = (s.splat(self.log[i]), s.splat(self.log_rest[i]));
        vector::combine(
            s,
            &self.log[..=i],
            &self.log_rest[..=i],
            &mut out[..=i],
            #[inline(always)]
            |at, rest| s.exp(s.add(s.sub(own, at), s.sub(own_rest, rest))),
        );
    }
}
