//! C ← A·B or C += A·B on row-major f32, for the small products of chunked forms.
//!
//! [`Gemm`] packs nothing: A is read one element at a time (so its strides are free), B and C along their rows, and the
//! chunk-sized matrices it is for lie in the first two caches.

use super::simd::Simd;
use super::{Kernel, run, run_at};

/// A matrix to be read: element (i, j) is `data[i · rows + j · columns]`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance between the rows.
    pub rows: usize,
    /// Distance between the columns.
    pub columns: usize,
}

impl<'a> View<'a> {
    /// Rows `stride` apart.
    pub fn new(data: &'a [f32], stride: usize) -> Self {
        Self { data, rows: stride, columns: 1 }
    }

    /// The matrix from row `i` on.
    #[must_use]
    pub fn from_row(self, i: usize) -> Self {
        Self { data: &self.data[i * self.rows..], ..self }
    }

    /// The first `width` values of row `i`, where columns are 1 apart.
    pub fn row(&self, i: usize, width: usize) -> &'a [f32] {
        debug_assert_eq!(self.columns, 1);
        &self.data[i * self.rows..][..width]
    }

    /// The transposed matrix.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, ..self }
    }
}

/// C `[m, n]` ← A `[m, k]` · B `[k, n]`, or += with `accumulate`.
#[derive(Debug)]
pub struct Gemm<'a> {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// A, any strides.
    pub a: View<'a>,
    /// B, whose columns must be 1 apart.
    pub b: View<'a>,
    /// C, rows `c_stride` apart.
    pub c: &'a mut [f32],
    /// Distance between the rows of C.
    pub c_stride: usize,
    /// Whether C is added to, or overwritten.
    pub accumulate: bool,
}

impl Gemm<'_> {
    /// Computes it at the best level.
    pub fn run(self) {
        run(self);
    }

    /// Computes it at a given level.
    pub fn run_at(self, level: super::Level) {
        run_at(level, self);
    }
}

impl Kernel for Gemm<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { m, n, k, a, b, c, c_stride, accumulate } = self;
        if m == 0 || n == 0 {
            return;
        }
        assert_eq!(b.columns, 1, "gemm: columns of B must be 1 apart");
        assert!(k == 0 || b.data.len() >= (k - 1) * b.rows + n, "gemm: B must hold [{k}, {n}]");
        assert!(
            k == 0 || a.data.len() > (m - 1) * a.rows + (k - 1) * a.columns,
            "gemm: A must hold [{m}, {k}]"
        );
        assert!(c_stride >= n && c.len() >= (m - 1) * c_stride + n, "gemm: C must hold [{m}, {n}]");
        let panel = Panel {
            a: a.data.as_ptr(),
            a_row: a.rows,
            a_column: a.columns,
            b_row: b.rows,
            c_row: c_stride,
            k,
            accumulate,
        };
        let full = n / S::LANES;
        let mut vector = 0;
        // SAFETY: the asserts above bound every access: rows below m, columns below n, sums below k.
        unsafe {
            while vector < full {
                let at = vector * S::LANES;
                let (b, c) = (b.data.as_ptr().add(at), c.as_mut_ptr().add(at));
                vector += match full - vector {
                    4.. if S::TILE_ROWS == 12 => {
                        panel.strips::<S, 6, 4>(s, m, b, c);
                        4
                    }
                    2.. if S::TILE_ROWS == 12 => {
                        panel.strips::<S, 12, 2>(s, m, b, c);
                        2
                    }
                    2.. => {
                        panel.strips::<S, 6, 2>(s, m, b, c);
                        2
                    }
                    _ => {
                        panel.strips::<S, 12, 1>(s, m, b, c);
                        1
                    }
                };
            }
            let rest = n % S::LANES;
            if rest > 0 {
                let at = full * S::LANES;
                panel.ragged(s, m, b.data.as_ptr().add(at), c.as_mut_ptr().add(at), rest);
            }
        }
    }
}

/// What all tiles of a product share.
#[derive(Clone, Copy)]
struct Panel {
    a: *const f32,
    a_row: usize,
    a_column: usize,
    b_row: usize,
    c_row: usize,
    k: usize,
    accumulate: bool,
}

impl Panel {
    /// All rows of a panel of `N` whole vectors, `M` rows at a time, the rest one by one in fours.
    ///
    /// # Safety
    /// The panel's pointers are valid for the product's shape, and the machine has `S`.
    #[inline(always)]
    unsafe fn strips<S: Simd, const M: usize, const N: usize>(
        &self,
        s: S,
        m: usize,
        b: *const f32,
        c: *mut f32,
    ) {
        let mut i = 0;
        // SAFETY: i + the rows of the tile ≤ m.
        unsafe {
            while i + M <= m {
                self.tile::<S, M, N>(s, i, b, c);
                i += M;
            }
            while i + 4 <= m {
                self.tile::<S, 4, N>(s, i, b, c);
                i += 4;
            }
            while i < m {
                self.tile::<S, 1, N>(s, i, b, c);
                i += 1;
            }
        }
    }

    /// Rows i..i+M of a panel of N whole vectors, in registers.
    ///
    /// # Safety
    /// As [`Panel::strips`], with i + M ≤ m.
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const N: usize>(
        &self,
        s: S,
        i: usize,
        b: *const f32,
        c: *mut f32,
    ) {
        // SAFETY: the caller's promise covers rows i..i+M, N vectors of columns, and k steps.
        unsafe {
            let mut sums = [[s.splat(0.0); N]; M];
            let mut a = self.a.add(i * self.a_row);
            let mut b = b;
            for _ in 0..self.k {
                let mut row = [s.splat(0.0); N];
                for (j, v) in row.iter_mut().enumerate() {
                    *v = s.load(b.add(j * S::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = s.splat(*a.add(r * self.a_row));
                    for (sum, v) in sums.iter_mut().zip(row) {
                        *sum = s.fma(x, v, *sum);
                    }
                }
                a = a.wrapping_add(self.a_column);
                b = b.wrapping_add(self.b_row);
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (j, sum) in sums.into_iter().enumerate() {
                    let c = c.add((i + r) * self.c_row + j * S::LANES);
                    let value = if self.accumulate { s.add(s.load(c), sum) } else { sum };
                    s.store(c, value);
                }
            }
        }
    }

    /// The last `rest` < LANES columns, four rows at a time.
    ///
    /// # Safety
    /// As [`Panel::strips`], with `rest` columns.
    #[inline(always)]
    unsafe fn ragged<S: Simd>(&self, s: S, m: usize, b: *const f32, c: *mut f32, rest: usize) {
        let mut i = 0;
        // SAFETY: rows below m; partial loads and stores touch `rest` columns only.
        unsafe {
            while i < m {
                let rows = (m - i).min(4);
                let mut sums = [s.splat(0.0); 4];
                for p in 0..self.k {
                    let v = s.load_part(b.add(p * self.b_row), rest);
                    for (r, sum) in sums.iter_mut().enumerate().take(rows) {
                        let x = s.splat(*self.a.add((i + r) * self.a_row + p * self.a_column));
                        *sum = s.fma(x, v, *sum);
                    }
                }
                for (r, sum) in sums.into_iter().enumerate().take(rows) {
                    let c = c.add((i + r) * self.c_row);
                    let value =
                        if self.accumulate { s.add(s.load_part(c, rest), sum) } else { sum };
                    s.store_part(c, rest, value);
                }
                i += rows;
            }
        }
    }
}
