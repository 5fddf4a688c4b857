//! Rotary positions, given or learnt.

pub mod cpu;
pub mod train;

/// Rotates the pairs (i, i + K/2) of every row by position · θ^(−2i/K) (RoFormer, arXiv 2104.09864, eq. 34, with the
/// halves paired as GPT-NeoX and the Llama checkpoints do).
///
/// * `x`: `[T, K]`, rotated in place; its first row is at `first_position`
pub fn definition(x: &mut [f64], head_width: usize, first_position: usize, theta: f64) {
    let half = head_width / 2;
    for (t, row) in x.chunks_exact_mut(head_width).enumerate() {
        for i in 0..half {
            let angle =
                (first_position + t) as f64 * theta.powf(-2.0 * i as f64 / head_width as f64);
            let (a, b) = (row[i], row[i + half]);
            row[i] = a * angle.cos() - b * angle.sin();
            row[i + half] = b * angle.cos() + a * angle.sin();
        }
    }
}

/// Rotates the first `turned` channels of every row of x `[T, K]` as [`definition`] does rows of that width; the others
/// stay as they are, all of them where `turned` is 0: partial rotary positions, as GPT-NeoX has them, and NoPE.
pub fn partial_definition(
    x: &mut [f64],
    head_width: usize,
    turned: usize,
    first_position: usize,
    theta: f64,
) {
    if turned == 0 {
        return;
    }
    for (t, row) in x.chunks_exact_mut(head_width).enumerate() {
        definition(&mut row[..turned], turned, first_position + t, theta);
    }
}

/// Selective RoPE (arXiv 2511.17388, with the halves paired as above): rotates the pairs (i, i + K/2) of row t by
/// θ^(−2i/K) · Σ_{s≤t} φ_s.
///
/// * `x`: `[T, K]`, rotated in place; `phi`: `[T, K/2]`
pub fn selective_definition(x: &mut [f64], phi: &[f64], head_width: usize, theta: f64) {
    let half = head_width / 2;
    let mut sums = vec![0.0; half];
    for (row, phi) in x.chunks_exact_mut(head_width).zip(phi.chunks_exact(half)) {
        for i in 0..half {
            sums[i] += phi[i];
            let angle = sums[i] * theta.powf(-2.0 * i as f64 / head_width as f64);
            let (a, b) = (row[i], row[i + half]);
            row[i] = a * angle.cos() - b * angle.sin();
            row[i + half] = b * angle.cos() + a * angle.sin();
        }
    }
}
