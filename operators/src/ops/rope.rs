//! Rotary positions on halves: channels i and i + K/2 turn by position · θ^(−2i/K).

use tch::{Kind, Tensor};

use super::parts;

/// θ of every attention layer here.
pub const THETA: f64 = 1e4;

/// Turns x `[B, T, H, K]`, whose first position is `first`.
pub fn rotate(x: &Tensor, first: i64) -> Tensor {
    let (_, t, _, k) = x.size4().expect("[B, T, H, K]");
    let half = k / 2;
    let wide = (Kind::Double, x.device());
    let frequencies = (Tensor::arange(half, wide) * (-2.0 * THETA.ln() / k as f64)).exp();
    let positions = Tensor::arange_start(first, first + t, wide);
    // [T, 1, K/2]
    let angles = positions.reshape([t, 1, 1]) * frequencies;
    let (cos, sin) = (angles.cos().to_kind(x.kind()), angles.sin().to_kind(x.kind()));
    let [a, b] = parts(x, [half, half]);
    Tensor::cat(&[&a * &cos - &b * &sin, &b * &cos + &a * &sin], -1)
}
