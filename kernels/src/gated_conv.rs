//! The gated short convolution: depthwise, causal, of few positions, between two gates.

pub mod cpu;
pub mod train;

/// The gated short convolution of LFM2 (arXiv 2511.23404), without bias and without an activation:
///
/// u_t = B_t ⊙ x̃_t, y_t,c = C_t,c · Σ_{j=0..k−1} weight_c,j · u_{t−k+1+j},c.
///
/// * `rows`: `[T, 3, C]`, of each position B, C and x̃
/// * `weight`: `[C, k]` whose last column multiplies the current position, k = `taps`
/// * `state`: `[k − 1, C]`, u of the positions before the first, oldest first; left as that of the last ones seen
///
/// Returns y, `[T, C]`.
pub fn definition(rows: &[f64], weight: &[f64], taps: usize, state: &mut [f64]) -> Vec<f64> {
    let channels = weight.len() / taps;
    let past = (taps - 1) * channels;
    assert_eq!(state.len(), past, "gated convolution: the state must be [k − 1, C]");
    let mut products = state.to_vec(); // [k − 1 + T, C]
    let mut y = Vec::new();
    for (t, row) in rows.chunks_exact(3 * channels).enumerate() {
        let (b, rest) = row.split_at(channels);
        let (gate, x) = rest.split_at(channels);
        products.extend(b.iter().zip(x).map(|(b, x)| b * x));
        for c in 0..channels {
            let seen = |j: usize| weight[c * taps + j] * products[(t + j) * channels + c];
            y.push(gate[c] * (0..taps).map(seen).sum::<f64>());
        }
    }
    state.copy_from_slice(&products[products.len() - past..]);
    y
}
