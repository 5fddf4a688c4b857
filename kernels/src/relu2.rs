//! The squared ReLU of a feed-forward network without a gate.

pub mod cpu;
pub mod train;

/// Between the projections (Primer, arXiv 2109.08668, section 4): max(x, 0)², element by element.
pub fn definition(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x.max(0.0).powi(2)).collect()
}
