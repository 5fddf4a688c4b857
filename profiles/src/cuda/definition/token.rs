//! What every mixer's definition does.

use super::weights::Keep;

/// A mixer with its weights and its past.
pub(super) trait Token: std::fmt::Debug {
    /// y of u, `[d]` both, at a position; `keep` is what is left of the results of an operation.
    fn step(&mut self, u: &[f64], position: usize, keep: Keep) -> Vec<f64>;
}
