//! Dense symmetric positive definite systems. Matrices are row-major `[n, n]`; only the lower triangle counts.

/// Products in independent lanes, so that the compiler can use vector registers.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..8 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f64>() + rest
}

/// Replaces the lower triangle of `matrix` by L with L Lᵀ = matrix. False when it is not positive definite.
pub(crate) fn factorize(matrix: &mut [f64], n: usize) -> bool {
    for i in 0..n {
        let (above, rest) = matrix.split_at_mut(i * n);
        let row = &mut rest[..n];
        for j in 0..i {
            let other = &above[j * n..j * n + n];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        if pivot <= 0.0 || !pivot.is_finite() {
            return false;
        }
        row[i] = pivot.sqrt();
    }
    true
}

/// x with L x = b, in place.
pub(crate) fn solve_lower(l: &[f64], n: usize, b: &mut [f64]) {
    for i in 0..n {
        b[i] = (b[i] - dot(&l[i * n..i * n + i], &b[..i])) / l[i * n + i];
    }
}

/// x with Lᵀ x = b, in place.
pub(crate) fn solve_upper(l: &[f64], n: usize, b: &mut [f64]) {
    for i in (0..n).rev() {
        b[i] /= l[i * n + i];
        let (before, value) = (&l[i * n..i * n + i], b[i]);
        for (x, l_ij) in b[..i].iter_mut().zip(before) {
            *x -= l_ij * value;
        }
    }
}

/// L⁻¹, lower triangular, row-major.
pub(super) fn invert_lower(l: &[f64], n: usize) -> Vec<f64> {
    // Row i of the inverse is (e_i − Σ_j L_ij · row j) / L_ii.
    let mut inverse = vec![0.0; n * n];
    for i in 0..n {
        let (done, rest) = inverse.split_at_mut(i * n);
        let row = &mut rest[..n];
        for j in 0..i {
            let factor = l[i * n + j];
            for (x, y) in row[..=j].iter_mut().zip(&done[j * n..=j * n + j]) {
                *x -= factor * y;
            }
        }
        row[i] = 1.0;
        let scale = 1.0 / l[i * n + i];
        for x in &mut row[..=i] {
            *x *= scale;
        }
    }
    inverse
}

/// The lower triangle of (L Lᵀ)⁻¹ = L⁻ᵀ L⁻¹, from L⁻¹.
pub(super) fn inverse_of_product(lower_inverse: &[f64], n: usize) -> Vec<f64> {
    let mut product = vec![0.0; n * n];
    for k in 0..n {
        let row = &lower_inverse[k * n..=k * n + k];
        for i in 0..=k {
            let factor = row[i];
            for (x, y) in product[i * n..=i * n + i].iter_mut().zip(&row[..=i]) {
                *x += factor * y;
            }
        }
    }
    product
}
