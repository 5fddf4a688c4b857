//! How far a machine drifts: by how much a whole model takes longer or shorter minutes later.
//!
//! The spread of a timing is that of two series within a second. Other tenants, the clock and where memory lies change
//! within minutes, so each campaign times a few of its models twice, early and at its end. What all of them moved by is the
//! machine's, and moves no candidate past another; what each moved by beyond that is its own.
//!
//! On two cores of an AMD EPYC Milan beside other tenants the same models differed by 12 % in decode and 14 % in prefill
//! minutes later (`cargo bench -p profiles --bench composed`), where series agreed to 2 %; on two of an Intel Xeon with AVX-512
//! by 11 % and 18 %, and the spread of a timing alone held 27 of 76 of them, the ± of whole models 66, that of sums 135 of 152.

use super::candidate::Candidate;
use crate::latency::Timing;
use crate::statistics::{NINE_OF_TEN, median, student_90};
use crate::value::Value;

/// The drift that is believed in whatever the pairs say, and worth one of them: that of a machine which nobody else uses.
const QUIET: f64 = 0.005;
/// A pair that differs by more, as ln of the ratio, is heard no louder.
const LARGEST: f64 = 1.0;

/// What a timing minutes later differs by, beyond the spread of either: standard deviations over the median. They are as
/// wide as it takes for 1.645 of them to hold nine of ten, given how few pairs there are.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Drift {
    /// Of all models of the machine alike.
    pub common: f64,
    /// Of each by itself.
    pub individual: f64,
}

impl Drift {
    /// From pairs of timings of the same model, the earlier one first. None: no drift is known.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a Timing, &'a Timing)>) -> Self {
        let is_time = |timing: &Timing| timing.median_us.is_finite() && timing.median_us > 0.0;
        let of_series = |timing: &Timing| (timing.spread_us / timing.median_us).powi(2);
        let (mut ratios, mut series) = (Vec::new(), Vec::new());
        for (earlier, later) in pairs {
            if is_time(earlier) && is_time(later) {
                ratios.push(later.over(earlier).ln().clamp(-LARGEST, LARGEST));
                series.push(f64::midpoint(of_series(earlier), of_series(later)));
            }
        }
        if ratios.is_empty() {
            return Self::default();
        }
        let n = ratios.len() as f64;
        let shared = shared(&ratios);
        let squares: f64 = ratios.iter().map(|ratio| ratio * ratio).sum();
        // the typical one: a single timing that was disturbed is not to hide what the others moved by
        let of_series = n * median(series).unwrap_or(0.0);
        let variance = (QUIET.powi(2) + (squares - of_series).max(0.0)) / n;
        // pairs that move together say as much as one
        let freedom = 1.0 + n / (1.0 + (n - 1.0) * shared * shared);
        let deviation = variance.sqrt() * student_90(freedom) / NINE_OF_TEN;
        Self { common: deviation * shared.sqrt(), individual: deviation * (1.0 - shared).sqrt() }
    }

    /// Of a latency by its name, from the candidates that were timed twice.
    pub fn of_rows<'a>(rows: impl Iterator<Item = &'a Candidate>, name: &str) -> Self {
        Self::of(rows.filter_map(|row| row.timed_twice(name)))
    }

    /// Both together.
    pub fn total(&self) -> f64 {
        self.common.hypot(self.individual)
    }

    /// A whole model's latency, with what another timing minutes later may differ by.
    pub fn on(&self, timing: &Timing) -> Value {
        let Value { mean, standard_error } = timing.value();
        let error = standard_error.unwrap_or(0.0).hypot(self.total() * mean);
        Value { mean, standard_error: Some(error.min(f64::MAX)) }
    }
}

/// The share of the variance of these that all have in common, beyond what their scatter makes of a mean. Of one nothing tells.
fn shared(ratios: &[f64]) -> f64 {
    let n = ratios.len() as f64;
    if ratios.len() < 2 {
        return 0.0;
    }
    let mean = ratios.iter().sum::<f64>() / n;
    let squares: f64 = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum();
    let scatter = squares / (n - 1.0);
    let common = mean.powi(2) - scatter / n;
    if common > 0.0 { common / (common + scatter) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(median_us: f64, spread_us: f64) -> Timing {
        Timing {
            median_us,
            spread_us,
            samples: 100,
            other_load: 0.0,
            kernels: "test".to_owned(),
            millijoules: None,
        }
    }

    fn of(ratios: &[f64]) -> Drift {
        let pairs: Vec<(Timing, Timing)> =
            ratios.iter().map(|ratio| (timing(100.0, 0.3), timing(100.0 * ratio, 0.3))).collect();
        Drift::of(pairs.iter().map(|(earlier, later)| (earlier, later)))
    }

    #[test]
    fn what_all_moved_by_is_the_machines_and_the_rest_their_own() {
        let together = of(&[1.10, 1.10, 1.101, 1.099, 1.10, 1.10]);
        assert!(together.common > 0.09 && together.individual < 0.005, "{together:?}");
        let apart = of(&[1.1, 0.9, 1.1, 0.9, 1.1, 0.9]);
        assert!(apart.individual > 0.09 && apart.common < 0.02, "{apart:?}");
        let one = of(&[1.1]);
        assert!(
            one.common == 0.0 && one.individual > 0.1,
            "one says little, so it is wide: {one:?}"
        );
    }

    #[test]
    fn what_series_differ_by_is_not_counted_twice() {
        let quiet = of(&[1.003, 0.998, 1.002, 0.997, 1.001, 0.999]);
        assert!(quiet.total() < 0.003, "{quiet:?}");
        assert_eq!(of(&[]), Drift::default());
        assert_eq!(Drift::default().on(&timing(100.0, 0.3)), timing(100.0, 0.3).value());
        let error = of(&[1.1, 0.9, 1.1, 0.9]).on(&timing(50.0, 0.3)).standard_error;
        assert!(error.is_some_and(|error| error > 5.0), "{error:?}");
    }

    #[test]
    fn a_timing_that_was_disturbed_does_not_hide_what_the_others_moved_by() {
        let pairs: Vec<(Timing, Timing)> = (0..6)
            .map(|i| match i {
                5 => (timing(100.0, 0.3), timing(100.0, 30.0)),
                _ => (timing(100.0, 0.3), timing(110.0, 0.3)),
            })
            .collect();
        let drift = Drift::of(pairs.iter().map(|(earlier, later)| (earlier, later)));
        assert!(drift.total() > 0.08, "{drift:?}");
    }

    #[test]
    fn times_that_are_none_say_nothing_and_absurd_ones_no_more_than_others() {
        let absurd = [(5e-324, f64::MAX), (0.0, 1.0), (f64::MAX, 5e-324), (100.0, 100.0)]
            .map(|(a, b)| (timing(a, f64::MAX), timing(b, 1e-300)));
        let drift = Drift::of(absurd.iter().map(|(a, b)| (a, b)));
        assert!(drift.total().is_finite() && drift.total() < 3.0, "{drift:?}");
        let error = drift.on(&timing(f64::MAX, f64::MAX)).standard_error;
        assert!(error.is_some_and(f64::is_finite));
    }
}
