//! Seeded inputs for the tests.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// A source of test inputs; the same seed gives the same inputs.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform in [low, high).
    pub(crate) fn uniform(&mut self, n: usize, low: f64, high: f64) -> Vec<f64> {
        (0..n).map(|_| self.0.random_range(low..high)).collect()
    }

    /// Uniform in [−1, 1).
    pub(crate) fn signed(&mut self, n: usize) -> Vec<f64> {
        self.uniform(n, -1.0, 1.0)
    }
}

/// The largest absolute difference, NaN counted as infinite.
pub(crate) fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}
