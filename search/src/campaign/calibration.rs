//! What whole models tell of the sums of timed parts: how far sums of a size are off, and how much that varies.
//!
//! A sum is of parts that were timed at other moments, each among copies of itself; the whole model shares its caches with
//! all of its parts at once. How far that goes depends on the machine and on the size of the model, so each campaign asks a
//! few of its own stacks. On 50 stacks (`cargo bench -p profiles --bench composed`) sums were off by 3 to 4 % on average.

use std::collections::BTreeMap;

use super::drift::Drift;
use crate::latency::Timing;
use crate::statistics::median;
use crate::value::Value;

/// What is known of each latency by its name.
pub(super) type Calibrations = BTreeMap<String, Calibration>;

/// The stacks that are asked: more of them foretell no better (2.0 % off after 8, 1.9 % after 12, of 50 in prefill).
pub const SAMPLE: usize = 6;

/// The deviation of a sum from its whole model before any is known.
const DEVIATION: f64 = 0.03;
/// The stacks that this knowledge is worth.
const FREEDOM: f64 = 2.0;
/// How far stacks speak for others: a factor of two in time, as a standard deviation.
const REACH: f64 = 1.0;
/// What one stack is worth beside the belief that sums are right.
const DOUBT: f64 = 1.0;
/// Deviations beyond the typical after which a stack is heard no louder: one timing may have been disturbed.
const LOUDEST: f64 = 3.0;

/// What is known of one latency under one set of conditions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Calibration {
    /// Of each stack log₂ of the sum of its parts in µs, and ln(whole / sum).
    stacks: Vec<(f64, f64)>,
    /// The typical ln(whole / sum).
    centre: f64,
    /// The typical deviation from that.
    deviation: f64,
    /// How far the machine drifts.
    drift: Drift,
}

impl Calibration {
    /// From the sum of the parts and the time of the whole model, of some stacks.
    pub fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let is_time = |us: f64| us.is_finite() && us > 0.0;
        let stacks: Vec<(f64, f64)> = pairs
            .into_iter()
            .filter(|(sum, whole)| is_time(*sum) && is_time(*whole))
            .map(|(sum, whole)| (sum.log2(), (whole / sum).ln()))
            .collect();
        let ratios: Vec<f64> = stacks.iter().map(|(_, ratio)| *ratio).collect();
        let n = ratios.len() as f64;
        let centre = median(ratios.clone()).unwrap_or(0.0) * n / (n + DOUBT);
        let squares: f64 = ratios.iter().map(|ratio| (ratio - centre).powi(2)).sum();
        let deviation = ((FREEDOM * DEVIATION.powi(2) + squares) / (FREEDOM + n)).sqrt();
        Self { stacks, centre, deviation, drift: Drift::default() }
    }

    /// With what timings differ by minutes later.
    #[must_use]
    pub fn drifting(self, drift: Drift) -> Self {
        Self { drift, ..self }
    }

    /// The latency that a whole model took, with what it may take minutes later.
    pub fn of_whole(&self, timing: &Timing) -> Value {
        self.drift.on(timing)
    }

    /// The latency that a whole model is expected to have, from the sum of its parts with the error of that.
    ///
    /// What each timing drifts by itself is in the scatter of whole over sum already, so it only widens what is believed of
    /// that before enough is seen; what all drift by together is in no ratio of timings of the same minutes, and is added.
    pub fn expected(&self, sum: Value) -> Value {
        let at = sum.mean.max(f64::MIN_POSITIVE).log2();
        let weight = |x: f64| (-0.5 * ((x - at) / REACH).powi(2)).exp();
        let bounds = LOUDEST * self.deviation;
        let (mut weights, mut beyond) = (0.0, 0.0);
        for (x, ratio) in &self.stacks {
            weights += weight(*x);
            beyond += weight(*x) * (ratio - self.centre).clamp(-bounds, bounds);
        }
        let ratio = self.centre + beyond / (weights + DOUBT);
        let squares: f64 =
            self.stacks.iter().map(|(x, own)| weight(*x) * (own - ratio).powi(2)).sum();
        let believed = DEVIATION.powi(2) + self.drift.individual.powi(2);
        let variance = (FREEDOM * believed + squares) / (FREEDOM + weights);
        let deviation = (variance * (1.0 + 1.0 / (weights + DOUBT))).sqrt();
        let mean = sum.mean * ratio.exp();
        let of_parts = sum.standard_error.unwrap_or(0.0) * ratio.exp();
        let error = of_parts.hypot(deviation.hypot(self.drift.common) * mean);
        Value { mean, standard_error: Some(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(pairs: &[(f64, f64)], sum: f64) -> (f64, f64) {
        let sum = Value { mean: sum, standard_error: Some(0.0) };
        let value = Calibration::of(pairs.iter().copied()).expected(sum);
        (value.mean, value.standard_error.expect("it has an error"))
    }

    #[test]
    fn without_whole_models_a_sum_stands_with_the_error_that_sums_have() {
        let (mean, error) = expected(&[], 100.0);
        assert!((mean - 100.0).abs() < 1e-9);
        assert!((error - 100.0 * DEVIATION * 2.0_f64.sqrt()).abs() < 1e-9, "{error}");
        assert_eq!(expected(&[(0.0, 1.0), (f64::NAN, 1.0)], 100.0), (mean, error));
    }

    #[test]
    fn what_all_sums_miss_is_added_and_what_they_scatter_is_the_error() {
        let even: Vec<(f64, f64)> = [90.0, 100.0, 110.0, 120.0].map(|us| (us, 1.05 * us)).to_vec();
        let (mean, error) = expected(&even, 100.0);
        assert!((103.5..105.0).contains(&mean), "most of the way: {mean}");
        assert!((1.5..3.5).contains(&error), "{error}");
        let uneven = [(90.0, 72.0), (100.0, 125.0), (110.0, 88.0), (120.0, 150.0)];
        let (_, wide) = expected(&uneven, 100.0);
        assert!(wide > 3.0 * error, "{wide} against {error}");
        let of_parts = Value { mean: 100.0, standard_error: Some(40.0) };
        let both = Calibration::of(even).expected(of_parts).standard_error.expect("it has one");
        assert!(both > 40.0);
    }

    #[test]
    fn small_models_say_little_of_large_ones_and_one_outlier_says_little_at_all() {
        let pairs = [(10.0, 10.0), (11.0, 11.0), (12.0, 12.0), (900.0, 1080.0), (1000.0, 1200.0)];
        let (small, small_error) = expected(&pairs, 10.0);
        let (large, large_error) = expected(&pairs, 1000.0);
        assert!((small / 10.0 - 1.0).abs() < 0.01, "{small}");
        assert!((1080.0..1200.0).contains(&large), "{large}");
        assert!(small_error / small < large_error / large);
        let mut with_outlier = vec![(100.0, 100.0); 5];
        with_outlier.push((100.0, 1000.0));
        let (mean, _) = expected(&with_outlier, 100.0);
        assert!(mean < 200.0, "{mean}");
    }
}
