//! Towards the closest matrix with orthonormal rows or columns, for Muon's updates (Jordan et al. 2024,
//! kellerjordan.github.io/posts/muon): X ← (a + b A + c A²) X with A = X Xᵀ, after X / (‖X‖ + ε).
//!
//! A weight is taken in blocks of [`BLOCK`] units: rows of a matrix that reads, columns of one that writes. For so few
//! units the Gram matrix is small, and X is needed twice only: every step is a polynomial in the first A, which all
//! commute.

use crate::cpu::gemm::{Gemm, View};
use crate::cpu::pool::SharedMut;
use crate::cpu::transpose::transpose;
use crate::cpu::{Parallel, dynamic};

/// Units that are made orthogonal to one another.
pub const BLOCK: usize = 64;

/// Steps of the iteration.
pub const STEPS: usize = 3;

/// a, b and c: those of Muon, which bring small singular values up fast and leave large ones between 0.7 and 1.2.
pub const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// ε, Muon's. Nothing of a gradient is left where a task is solved, and a block without a size of its own must not become
/// one of full size: elements below 1e-19 have no squares in f32, so that the steps would make it larger than any.
pub const EPSILON: f64 = 1e-7;

/// What of a matrix is a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Units {
    /// Its rows.
    Rows,
    /// Its columns.
    Columns,
}

/// One block `[rows, columns]` after the steps, times √(its larger side): of full rank its elements' root mean square is
/// near 1.
pub fn definition(x: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt() + EPSILON;
    let product = |a: &[f64], b: &[f64], inner: usize| -> Vec<f64> {
        let (m, n) = (a.len() / inner, b.len() / inner);
        let element =
            |i: usize, j: usize| (0..inner).map(|k| a[i * inner + k] * b[k * n + j]).sum();
        (0..m * n).map(|at| element(at / n, at % n)).collect()
    };
    let [a, b, c] = COEFFICIENTS;
    let mut x: Vec<f64> = x.iter().map(|x| x / norm).collect();
    for _ in 0..STEPS {
        let transposed: Vec<f64> =
            (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect();
        let gram = product(&x, &transposed, columns);
        let square = product(&gram, &gram, rows);
        let polynomial: Vec<f64> = gram.iter().zip(&square).map(|(g, s)| b * g + c * s).collect();
        let moved = product(&polynomial, &x, rows);
        x = x.iter().zip(moved).map(|(x, moved)| a * x + moved).collect();
    }
    let size = (rows.max(columns) as f64).sqrt();
    x.into_iter().map(|x| x * size).collect()
}

/// Every block of every matrix of x `[n, rows, columns]` as [`definition`] has it, into y, by kernels.
///
/// # Panics
/// When x or y is not whole matrices.
pub fn orthogonalise(
    units: Units,
    [rows, columns]: [usize; 2],
    x: &[f32],
    y: &mut [f32],
    parallel: Parallel,
) {
    let elements = rows * columns;
    assert_eq!(x.len(), y.len(), "newton_schulz: one length");
    assert!(elements > 0 && x.len().is_multiple_of(elements), "newton_schulz: whole matrices");
    let of = match units {
        Units::Rows => rows,
        Units::Columns => columns,
    };
    let blocks = of.div_ceil(BLOCK);
    let y = SharedMut::new(y);
    dynamic(parallel, x.len() / elements * blocks, &|piece| {
        let (matrix, first) = (piece / blocks, piece % blocks * BLOCK);
        let x = &x[matrix * elements..][..elements];
        let count = BLOCK.min(of - first);
        let (at, r, c) = match units {
            Units::Rows => (first * columns, count, columns),
            Units::Columns => (first, rows, count),
        };
        let done = block(View::new(&x[at..], columns), r, c);
        for (i, row) in done.chunks_exact(c).enumerate() {
            // SAFETY: blocks share no element.
            let home = unsafe { y.part(matrix * elements + at + i * columns, c) };
            home.copy_from_slice(row);
        }
    });
}

/// One block `[r, c]`, dense.
fn block(x: View, r: usize, c: usize) -> Vec<f32> {
    let (side, length) = (r.min(c), r.max(c));
    let square = side * side;
    let mut gram = vec![0.0; square];
    if r <= c {
        let mut turned = vec![0.0; c * r]; // Xᵀ
        transpose(r, c, x, &mut turned, r);
        let b = View::new(&turned, r);
        multiply([side, side, length], x, b, &mut gram);
    } else {
        multiply([side, side, length], x.transposed(), x, &mut gram);
    }
    let trace: f32 = (0..side).map(|i| gram[i * side + i]).sum();
    let norm = trace.sqrt() + EPSILON as f32;
    let mut out = vec![0.0; r * c];
    for x in &mut gram {
        *x /= norm * norm;
    }
    let whole = polynomials(&mut gram, side);
    let whole = View::new(&whole, side);
    if r <= c {
        multiply([r, c, side], whole, x, &mut out);
    } else {
        multiply([r, c, side], x, whole, &mut out);
    }
    let size = (length as f32).sqrt() / norm;
    for x in &mut out {
        *x *= size;
    }
    out
}

/// The product of the steps' polynomials in `gram` `[side, side]`, which is overwritten.
fn polynomials(gram: &mut [f32], side: usize) -> Vec<f32> {
    let [a, b, c] = COEFFICIENTS.map(|x| x as f32);
    let mut whole: Vec<f32> = Vec::new();
    let (mut step, mut next) = (vec![0.0; side * side], vec![0.0; side * side]);
    let shape = [side, side, side];
    for number in 0..STEPS {
        // P = a + b A + c A²
        multiply(shape, View::new(gram, side), View::new(gram, side), &mut step);
        step.iter_mut().zip(&*gram).for_each(|(s, g)| *s = b * g + c * *s);
        (0..side).for_each(|i| step[i * side + i] += a);
        if number == 0 {
            whole.clone_from(&step);
        } else {
            multiply(shape, View::new(&step, side), View::new(&whole, side), &mut next);
            std::mem::swap(&mut whole, &mut next);
        }
        if number + 1 < STEPS {
            // A ← P A P
            multiply(shape, View::new(&step, side), View::new(gram, side), &mut next);
            multiply(shape, View::new(&next, side), View::new(&step, side), gram);
        }
    }
    whole
}

fn multiply([m, n, k]: [usize; 3], a: View, b: View, c: &mut [f32]) {
    Gemm { m, n, k, a, b, c, c_stride: n, accumulate: false }.run();
}
