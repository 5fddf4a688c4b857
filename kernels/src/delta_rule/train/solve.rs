//! Triangular systems with the unit lower matrix I + A of a chunk, in place, for all columns of V at once.
//!
//! Blocks of [`BLOCK`] rows: what earlier blocks contribute is a matrix product, the block itself is solved with its
//! rows in registers.

use crate::cpu::gemm::{Gemm, View};
use crate::cpu::{Kernel, Simd, run};

/// Rows that are solved in registers; two tiles of the product of the rows before.
const BLOCK: usize = 12;

/// X with (I + A) X = R: `x` holds R `[rows, v]` and then X; `minus_a` is −A, `[rows, rows]`, of which what is strictly
/// lower is read.
pub(crate) fn forward(minus_a: View, x: &mut [f32], rows: usize, v: usize) {
    for start in (0..rows).step_by(BLOCK) {
        let height = BLOCK.min(rows - start);
        let (solved, rest) = x.split_at_mut(start * v);
        let block = &mut rest[..height * v];
        if start > 0 {
            multiply((height, v, start), minus_a.from_row(start), (solved, v), (block, v));
        }
        run(Block::<false> { minus_a: corner(minus_a, start), x: block, height, v });
    }
}

/// X with (I + A)ᵀ X = R, arguments as of [`forward`].
pub(crate) fn transposed(minus_a: View, x: &mut [f32], rows: usize, v: usize) {
    for start in (0..rows).step_by(BLOCK).rev() {
        let height = BLOCK.min(rows - start);
        let end = start + height;
        let (head, solved) = x.split_at_mut(end * v);
        let block = &mut head[start * v..];
        if end < rows {
            let below = View { data: &minus_a.data[end * minus_a.rows + start..], ..minus_a };
            multiply((height, v, rows - end), below.transposed(), (solved, v), (block, v));
        }
        run(Block::<true> { minus_a: corner(minus_a, start), x: block, height, v });
    }
}

/// The matrix from element (start, start) on.
fn corner(minus_a: View, start: usize) -> View {
    View { data: &minus_a.data[start * minus_a.rows + start..], ..minus_a }
}

/// The diagonal block: forward from the first row, or with the transpose from the last.
struct Block<'a, const TRANSPOSED: bool> {
    /// −A from the block's corner on.
    minus_a: View<'a>,
    /// `[height, v]`.
    x: &'a mut [f32],
    height: usize,
    v: usize,
}

impl<const TRANSPOSED: bool> Kernel for Block<'_, TRANSPOSED> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { minus_a, x, height, v } = self;
        assert!(height <= BLOCK && x.len() == height * v);
        // −A of the block, zero outside, so that short blocks run the same code.
        let mut a = [[0.0; BLOCK]; BLOCK];
        for i in 0..height {
            for (j, value) in minus_a.row(i, i).iter().enumerate() {
                let (row, column) = if TRANSPOSED { (j, i) } else { (i, j) };
                a[row][column] = *value;
            }
        }
        let mut column = 0;
        while column < v {
            let width = S::LANES.min(v - column);
            let mut r = [s.splat(0.0); BLOCK];
            for (i, r) in r.iter_mut().enumerate().take(height) {
                // SAFETY: row i < height of x, `width` columns from `column`, all inside by the assert above.
                *r = unsafe {
                    let p = x.as_ptr().add(i * v + column);
                    if width == S::LANES { s.load(p) } else { s.load_part(p, width) }
                };
            }
            if TRANSPOSED {
                for i in (0..BLOCK).rev() {
                    for j in i + 1..BLOCK {
                        r[i] = s.fma(s.splat(a[i][j]), r[j], r[i]);
                    }
                }
            } else {
                for i in 0..BLOCK {
                    for j in 0..i {
                        r[i] = s.fma(s.splat(a[i][j]), r[j], r[i]);
                    }
                }
            }
            for (i, r) in r.into_iter().enumerate().take(height) {
                // SAFETY: as for the loads.
                unsafe {
                    let p = x.as_mut_ptr().add(i * v + column);
                    if width == S::LANES { s.store(p, r) } else { s.store_part(p, width, r) }
                }
            }
            column += width;
        }
    }
}

/// C `[m, n]` += A `[m, k]` · B `[k, n]`, for (m, n, k) and row strides of B and C.
fn multiply(
    (m, n, k): (usize, usize, usize),
    a: View,
    (b, b_row): (&[f32], usize),
    (c, c_stride): (&mut [f32], usize),
) {
    Gemm { m, n, k, a, b: View::new(b, b_row), c, c_stride, accumulate: true }.run();
}
