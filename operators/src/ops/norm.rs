//! RMSNorm, its gated forms, and the L2 norm of heads.

mod kernel;

use tch::{Kind, Tensor};

use super::wide;
use crate::gpu;

/// Added to the mean square, everywhere.
pub const RMS_EPS: f64 = 1e-5;
/// Added to the sum of squares.
pub const L2_EPS: f64 = 1e-6;

/// Where a gate stands, which multiplies by its SiLU unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Gated DeltaNet.
    NormThenGate,
    /// Kimi Delta Attention: by its σ.
    NormThenSigmoid,
    /// Mamba2.
    GateThenNorm,
}

/// `x / √(mean x² + 1e-5) · weight` over the last dimension; x `[…, W]`, weight `[W]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor) -> Tensor {
    if kernel::suits(x, None, weight) {
        return kernel::rms_norm(x, None, weight);
    }
    if gpu::suits_norm(x, None) {
        return gpu::rms_norm(x, None, weight);
    }
    rms_norm_by_torch(x, weight)
}

/// The norm of x `[…, W]` with a gate of the same shape; by the kernels where they apply.
pub fn gated_rms_norm(x: &Tensor, gate: &Tensor, weight: &Tensor, order: Order) -> Tensor {
    if kernel::suits(x, Some(gate), weight) {
        return kernel::rms_norm(x, Some((gate, order)), weight);
    }
    if gpu::suits_norm(x, Some(gate)) {
        return gpu::rms_norm(x, Some((gate, order)), weight);
    }
    gated_rms_norm_by_torch(x, gate, weight, order)
}

/// [`rms_norm`] in torch operators.
pub fn rms_norm_by_torch(x: &Tensor, weight: &Tensor) -> Tensor {
    let narrow = x.kind();
    let y = x.to_kind(wide(narrow));
    let scale = (y.square().mean_dim(-1, true, None::<Kind>) + RMS_EPS).rsqrt();
    (y * scale * weight).to_kind(narrow)
}

/// [`gated_rms_norm`] in torch operators.
pub fn gated_rms_norm_by_torch(x: &Tensor, gate: &Tensor, weight: &Tensor, order: Order) -> Tensor {
    match order {
        Order::NormThenGate => rms_norm_by_torch(x, weight) * gate.silu(),
        Order::NormThenSigmoid => rms_norm_by_torch(x, weight) * gate.sigmoid(),
        Order::GateThenNorm => rms_norm_by_torch(&(x.to_kind(gate.kind()) * gate.silu()), weight),
    }
}

/// `x / √(Σ x² + 1e-6)` over the last dimension; x `[…, K]`. The result is wide, but on a GPU of the kind of x.
pub fn l2_norm(x: &Tensor) -> Tensor {
    if x.kind() == Kind::BFloat16 && gpu::suits_norm(x, None) {
        return gpu::l2_norm(x);
    }
    let x = x.to_kind(wide(x.kind()));
    let scale = (x.square().sum_dim_intlist(-1, true, None::<Kind>) + L2_EPS).rsqrt();
    x * scale
}
