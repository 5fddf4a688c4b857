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

pub(crate) fn f32s(x: &[f64]) -> Vec<f32> {
    x.iter().map(|x| *x as f32).collect()
}

pub(crate) fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// An output that no kernel may leave as it is.
pub(crate) fn poisoned(n: usize) -> Vec<f32> {
    vec![f32::NAN; n]
}

/// Fails when an f32 result is further from the f64 one than `tolerance` of the largest value.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    let size = expected.iter().fold(1e-3_f64, |m, x| m.max(x.abs()));
    let error = largest_difference(&f64s(got), expected) / size;
    assert!(error <= tolerance, "{what}: relative error {error:.2e}, tolerance {tolerance:.0e}");
}

/// Σ a_i b_i
pub(crate) fn products(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// x + step · direction
pub(crate) fn moved(x: &[f64], direction: &[f64], step: f64) -> Vec<f64> {
    x.iter().zip(direction).map(|(x, d)| x + step * d).collect()
}

/// Where a gradient of `n` values is compared: single elements at both ends and in the middle, then a random direction
/// through all of them.
pub(crate) fn directions(random: &mut Random, n: usize) -> Vec<Vec<f64>> {
    let mut directions: Vec<Vec<f64>> =
        [0, n / 2, n - 1].map(|at| (0..n).map(|i| f64::from(u8::from(i == at))).collect()).to_vec();
    directions.push(random.signed(n));
    directions
}

/// Fails when the gradients of the inputs are not the slopes of `loss` along [`directions`]; `what` names an input.
#[track_caller]
pub(crate) fn assert_gradients<const N: usize>(
    random: &mut Random,
    inputs: &[Vec<f64>; N],
    gradients: &[Vec<f32>; N],
    loss: impl Fn(&[Vec<f64>; N]) -> f64,
    what: impl Fn(usize) -> String,
) {
    for (index, gradient) in gradients.iter().enumerate() {
        for direction in directions(random, gradient.len()) {
            let at = |step: f64| {
                let mut inputs = inputs.clone();
                inputs[index] = moved(&inputs[index], &direction, step);
                loss(&inputs)
            };
            assert_slope(gradient, &direction, at, &what(index));
        }
    }
}

/// Fails when a gradient is not the slope of `loss` in a direction; `loss` takes the length of the step.
#[track_caller]
pub(crate) fn assert_slope(
    gradient: &[f32],
    direction: &[f64],
    loss: impl Fn(f64) -> f64,
    what: &str,
) {
    let step = 1e-5;
    let expected = (loss(step) - loss(-step)) / (2.0 * step);
    let gradient = f64s(gradient);
    let got = products(&gradient, direction);
    let size = gradient.iter().zip(direction).map(|(g, d)| (g * d).powi(2)).sum::<f64>().sqrt();
    let error = (got - expected).abs();
    assert!(error < 1e-4 * (1.0 + size), "{what}: {got} for {expected}");
}
