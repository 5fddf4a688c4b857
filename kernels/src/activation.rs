//! The scalar functions of gates and activations, in f64.

pub mod cpu;

/// σ(x) = 1 / (1 + e⁻ˣ).
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// SiLU: x · σ(x) (arXiv 1702.03118).
pub fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// ln(1 + eˣ), without overflow for large x.
pub fn softplus(x: f64) -> f64 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}
