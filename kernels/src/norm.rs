//! Normalisations, with and without gates.

pub mod cpu;
pub mod train;

use crate::activation::silu;

/// Added under the root of [`l2_norm_definition`].
pub const L2_EPS: f64 = 1e-6;
/// Added under the root of every RMSNorm of the models here.
pub const RMS_EPS: f64 = 1e-5;

/// RMSNorm (arXiv 1910.07467, eq. 4): x / √(mean(x²) + eps) · weight, for each row of `weight.len()`.
///
/// * `x`: `[T, C]`, `weight`: `[C]`; returns `[T, C]`
pub fn rms_norm_definition(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    x.chunks_exact(weight.len())
        .flat_map(|row| {
            let mean_square = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean_square + eps).sqrt();
            row.iter().zip(weight).map(move |(x, w)| x * scale * w)
        })
        .collect()
}

/// The output norm of Gated DeltaNet: RMSNorm(x)·weight·SiLU(gate), the norm *before* the gate.
///
/// * `x`, `gate`: `[T, C]`, `weight`: `[C]`; returns `[T, C]`
pub fn norm_then_gate_definition(x: &[f64], gate: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    rms_norm_definition(x, weight, eps).iter().zip(gate).map(|(x, z)| x * silu(*z)).collect()
}

/// The output norm of Mamba2: RMSNorm(x·SiLU(gate))·weight, the gate *before* the norm.
///
/// * `x`, `gate`: `[T, C]`, `weight`: `[C]`; returns `[T, C]`
pub fn gate_then_norm_definition(x: &[f64], gate: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let gated: Vec<f64> = x.iter().zip(gate).map(|(x, z)| x * silu(*z)).collect();
    rms_norm_definition(&gated, weight, eps)
}

/// The norm of queries and keys of the delta rule: x / √(Σx² + 10⁻⁶), of one row.
pub fn l2_norm_definition(x: &[f64]) -> Vec<f64> {
    let scale = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() + L2_EPS).sqrt();
    x.iter().map(|x| x * scale).collect()
}
