//! RMSNorm and the L2 norm of heads.

use tch::{Kind, Tensor};

use super::wide;

/// Added to the mean square, everywhere.
pub const RMS_EPS: f64 = 1e-5;
/// Added to the sum of squares.
pub const L2_EPS: f64 = 1e-6;

/// `x / √(mean x² + 1e-5) · weight` over the last dimension; x `[…, W]`, weight `[W]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor) -> Tensor {
    let narrow = x.kind();
    let y = x.to_kind(wide(narrow));
    let scale = (y.square().mean_dim(-1, true, None::<Kind>) + RMS_EPS).rsqrt();
    (y * scale * weight).to_kind(narrow)
}

/// `x / √(Σ x² + 1e-6)` over the last dimension; x `[…, K]`. The result is wide.
pub fn l2_norm(x: &Tensor) -> Tensor {
    let x = x.to_kind(wide(x.kind()));
    let scale = (x.square().sum_dim_intlist(-1, true, None::<Kind>) + L2_EPS).rsqrt();
    x * scale
}
