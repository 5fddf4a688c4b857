//! The short convolution before a linear mixer: depthwise, causal, four positions.

pub mod cpu;
pub mod train;

/// Positions that the convolution sees, the current one included.
pub const WIDTH: usize = 4;

/// The short convolution (as in H3, arXiv 2212.14052, and Mamba, arXiv 2312.00752), without the activation after it:
///
/// y_t,c = bias_c + Σ_{j=0..3} weight_c,j · x_{t−3+j},c.
///
/// * `x`: `[T, C]`, `weight`: `[C, 4]` whose last column multiplies the current position, `bias`: `[C]`
/// * `state`: `[3, C]`, the three positions before the first, oldest first; left as the last three seen
///
/// Returns y, `[T, C]`.
pub fn definition(x: &[f64], weight: &[f64], bias: Option<&[f64]>, state: &mut [f64]) -> Vec<f64> {
    let channels = weight.len() / WIDTH;
    assert_eq!(state.len(), (WIDTH - 1) * channels, "short convolution: the state must be [3, C]");
    let seen: Vec<f64> = state.iter().chain(x).copied().collect();
    let tokens = x.len() / channels;
    let mut y = vec![0.0; tokens * channels];
    for t in 0..tokens {
        for c in 0..channels {
            let sum: f64 =
                (0..WIDTH).map(|j| weight[c * WIDTH + j] * seen[(t + j) * channels + c]).sum();
            y[t * channels + c] = bias.map_or(0.0, |b| b[c]) + sum;
        }
    }
    state.copy_from_slice(&seen[tokens * channels..]);
    y
}
