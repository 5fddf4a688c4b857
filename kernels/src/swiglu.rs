//! The gated feed-forward network.

pub mod cpu;
pub mod train;

use crate::activation::silu;

/// SwiGLU between its projections (arXiv 2002.05202, eq. 5): SiLU(gate) · up, element by element.
pub fn definition(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| silu(*g) * u).collect()
}
