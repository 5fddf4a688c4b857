//! Transposes of row-major f32 matrices, in tiles of vectors.

use super::gemm::View;
use super::simd::Simd;
use super::{Kernel, run};

/// B `[n, m]` ← Aᵀ of A `[m, n]`, on the best level.
///
/// # Panics
/// When a slice is too short, or the columns of A are not 1 apart.
pub fn transpose(m: usize, n: usize, a: View, b: &mut [f32], b_row: usize) {
    run(Transpose { m, n, a, b, b_row });
}

struct Transpose<'a> {
    m: usize,
    n: usize,
    a: View<'a>,
    b: &'a mut [f32],
    b_row: usize,
}

impl Kernel for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { m, n, a: View { data: a, rows: a_row, columns }, b, b_row } = self;
        if m == 0 || n == 0 {
            return;
        }
        assert_eq!(columns, 1, "transpose: columns of A must be 1 apart");
        assert!(a.len() >= (m - 1) * a_row + n, "transpose: A must hold [{m}, {n}]");
        assert!(b.len() >= (n - 1) * b_row + m, "transpose: B must hold [{n}, {m}]");
        let (m_whole, n_whole) = (m - m % S::LANES, n - n % S::LANES);
        for i in (0..m_whole).step_by(S::LANES) {
            for j in (0..n_whole).step_by(S::LANES) {
                // SAFETY: the tile lies inside both matrices, whose extents are checked above.
                unsafe {
                    let (from, to) =
                        (a.as_ptr().add(i * a_row + j), b.as_mut_ptr().add(j * b_row + i));
                    s.transpose_tile(from, a_row, to, b_row);
                }
            }
        }
        for i in 0..m {
            for j in if i < m_whole { n_whole..n } else { 0..n } {
                b[j * b_row + i] = a[i * a_row + j];
            }
        }
    }
}
