//! How well a mixer reads back what it has stored: the retrieval SNR of the associative-memory view (arXiv 2505.19488).
//!
//! After N positions the memory is read with every stored key. Each read is linear in the stored values, ŷ_i = Σ_j A_ij v_j,
//! so it is A_ii v_i, what was asked for, plus r_i, what the other pairs left there.

use tch::{Kind, Tensor};

/// The reads of all stored keys from a full memory.
#[derive(Debug)]
pub struct Retrieval {
    /// A, the weight of each stored value j in the read with key i; zero where the memory no longer holds j. `[B, H, N, N]`
    pub weights: Tensor,
    /// The stored values. `[B, H, N, V]`
    pub values: Tensor,
}

/// A memory that reads this well is exact for every use; the bound keeps the number finite.
pub const LARGEST_SNR: f64 = 1e9;

impl Retrieval {
    /// Pairs that were stored: positions, or steps of them where a position stores several.
    pub fn pairs(&self) -> i64 {
        self.values.size()[2]
    }

    /// E[A_ii² ‖v_i‖²] / E[‖r_i‖²] over pairs, heads and sequences.
    ///
    /// The paper has the mean of the ratios, which a few values near zero, or one forgotten pair, make infinite; the ratio
    /// of the means equals it for values of one length and stays a number.
    pub fn snr(&self) -> f64 {
        let weights = self.weights.to_kind(Kind::Double);
        let values = self.values.to_kind(Kind::Double);
        let own = weights.diagonal(0, -2, -1).unsqueeze(-1) * &values; // [B, H, N, V]
        let rest = weights.matmul(&values) - &own;
        let power = |x: &Tensor| x.square().sum(Kind::Double).double_value(&[]);
        let (signal, noise) = (power(&own), power(&rest));
        if signal == 0.0 { 0.0 } else { (signal / noise).min(LARGEST_SNR) }
    }
}

/// The values that show A when they are stored instead of the true ones: `[B, N, H, N]`, the identity for every head.
pub(crate) fn unit_values(like: &Tensor) -> Tensor {
    let (b, n, h, _) = like.size4().expect("values are [B, N, H, V]");
    let kind = crate::ops::wide(like.kind());
    Tensor::eye(n, (kind, like.device())).reshape([1, n, 1, n]).expand([b, n, h, n], false)
}
