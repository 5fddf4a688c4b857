//! A Gaussian process (Rasmussen and Williams 2006) with hyperparameters at the maximum of their posterior.

use std::f64::consts::TAU;

use rand::{Rng, RngExt};

use super::cholesky::{dot, factorize, inverse_of_product, invert_lower, solve_lower, solve_upper};
use super::kernel::{Encoded, Feature, matern, matern_with_slope, squared};
use super::optimize::minimize;

/// What a process says about a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Expected value.
    pub mean: f64,
    /// Standard deviation of the value without observation noise; positive.
    pub deviation: f64,
}

/// What is learnt about the kernel. All are natural logarithms.
#[derive(Debug, Clone, PartialEq)]
pub struct Hyperparameters {
    /// 1/ℓ² of each feature.
    pub log_weights: Vec<f64>,
    /// Variance of the product kernel.
    pub log_signal: f64,
    /// Variance of the sum of one-feature kernels.
    pub log_additive: f64,
    /// Variance of the observation noise.
    pub log_noise: f64,
}

/// Smallest noise variance, for values of unit variance: keeps the matrices positive definite.
const NOISE_FLOOR: f64 = 1e-6;

/// Noise beyond this, in units of the values' variance: what is still not positive definite holds something that is no
/// number, and is not worth another try.
const MOST_NOISE: f64 = 1e12;

/// Mean and standard deviation of the normal priors of the logarithms.
const SIGNAL_PRIOR: (f64, f64) = (-0.5, 1.0);
const ADDITIVE_PRIOR: (f64, f64) = (-1.0, 1.0);
const NOISE_PRIOR: (f64, f64) = (-6.0, 2.0);
/// Spread of the prior of a weight's logarithm; its mean falls with the number of features, so that the distance
/// between two random points stays the same (Hvarfner et al. 2024, arXiv 2402.02229).
const WEIGHT_SPREAD: f64 = 1.5;

/// Standard deviation of the logarithm of a drawn weight, times the root of the number of values.
const WEIGHT_DEVIATION: f64 = 2.2;

impl Hyperparameters {
    fn prior_mean(features: usize) -> Self {
        let weight = -((features.max(1)) as f64).ln() + 1.0;
        Self {
            log_weights: vec![weight; features],
            log_signal: SIGNAL_PRIOR.0,
            log_additive: ADDITIVE_PRIOR.0,
            log_noise: NOISE_PRIOR.0,
        }
    }

    fn to_vector(&self) -> Vec<f64> {
        let mut v = self.log_weights.clone();
        v.extend([self.log_signal, self.log_additive, self.log_noise]);
        v
    }

    fn from_vector(v: &[f64]) -> Self {
        let features = v.len() - 3;
        Self {
            log_weights: v[..features].to_vec(),
            log_signal: v[features],
            log_additive: v[features + 1],
            log_noise: v[features + 2],
        }
    }

    /// A draw from about the most probable hyperparameters of so many values, as if from their posterior: after few
    /// values other weights are nearly as probable, and a search that always believes the same ones overlooks for good
    /// what they call without effect.
    #[must_use]
    pub fn draw_about<R: Rng + ?Sized>(&self, values: usize, rng: &mut R) -> Self {
        let deviation = WEIGHT_DEVIATION / (values.max(1) as f64).sqrt();
        let mut drawn = self.clone();
        for weight in &mut drawn.log_weights {
            // Box and Muller 1958; the logarithm's argument is in (0, 1].
            let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
            *weight += deviation * (-2.0 * u.ln()).sqrt() * (TAU * v).cos();
        }
        drawn
    }

    /// The most probable hyperparameters for these values, which have zero mean and unit variance.
    pub fn fit(points: &Encoded, values: &[f64], evaluations: usize) -> Self {
        let prior = Self::prior_mean(points.features.len());
        let objective = Likelihood::new(points, values, &prior);
        Self::from_vector(&minimize(&prior.to_vector(), evaluations, |v| objective.at(v)))
    }
}

/// The negative logarithm of likelihood times prior, and its gradient.
struct Likelihood<'a> {
    values: &'a [f64],
    n: usize,
    /// For each feature the squared differences of all pairs i > j, packed by rows.
    differences: Vec<Vec<f64>>,
    prior: Vec<(f64, f64)>,
}

impl<'a> Likelihood<'a> {
    fn new(points: &Encoded, values: &'a [f64], prior: &Hyperparameters) -> Self {
        let n = points.len();
        let differences = (0..points.features.len())
            .map(|f| {
                let feature = points.features[f];
                let mut pairs = Vec::with_capacity(n * n / 2);
                for i in 0..n {
                    for j in 0..i {
                        pairs.push(squared(feature, points.row(i)[f], points.row(j)[f]));
                    }
                }
                pairs
            })
            .collect();
        let mut spread = vec![WEIGHT_SPREAD; points.features.len()];
        spread.extend([SIGNAL_PRIOR.1, ADDITIVE_PRIOR.1, NOISE_PRIOR.1]);
        let prior = prior.to_vector().into_iter().zip(spread).collect();
        Self { values, n, differences, prior }
    }

    fn at(&self, v: &[f64]) -> (f64, Vec<f64>) {
        let n = self.n;
        let features = self.differences.len();
        let weights: Vec<f64> = v[..features].iter().map(|w| w.exp()).collect();
        let [signal, additive, noise] =
            [v[features].exp(), v[features + 1].exp(), v[features + 2].exp() + NOISE_FLOOR];
        let pairs = n * (n - 1) / 2;
        // Product part: one distance over all features. Additive part: the mean over the features of 1/(1 + w d).
        let mut r2 = vec![0.0; pairs];
        let mut sum = vec![0.0; pairs];
        let share = 1.0 / features as f64;
        for (w, differences) in weights.iter().zip(&self.differences) {
            for ((r2, sum), d) in r2.iter_mut().zip(&mut sum).zip(differences) {
                *r2 += w * d;
                *sum += share * additive_correlation(w * d * features as f64);
            }
        }
        let mut slope = vec![0.0; pairs];
        let mut matrix = vec![0.0; n * n];
        let mut product = vec![0.0; pairs];
        let mut pair = 0;
        for i in 0..n {
            for j in 0..i {
                let (k, dk) = matern_with_slope(r2[pair]);
                product[pair] = k;
                slope[pair] = dk;
                matrix[i * n + j] = signal * k + additive * sum[pair];
                pair += 1;
            }
            matrix[i * n + i] = signal + additive + noise;
        }
        let mut gradient = vec![0.0; v.len()];
        if !factorize(&mut matrix, n) {
            return (f64::INFINITY, gradient);
        }
        let mut alpha = self.values.to_vec();
        solve_lower(&matrix, n, &mut alpha);
        let fit = 0.5 * dot(&alpha, &alpha);
        solve_upper(&matrix, n, &mut alpha);
        let determinant: f64 = (0..n).map(|i| matrix[i * n + i].ln()).sum();
        let mut value = fit + determinant;
        // ∂/∂θ = ½ Σ_ij (K⁻¹ − α αᵀ)_ij ∂K_ij/∂θ; pairs count twice.
        let inverse = inverse_of_product(&invert_lower(&matrix, n), n);
        let mut residual = vec![0.0; pairs];
        let mut trace = 0.0;
        let mut pair = 0;
        for i in 0..n {
            for j in 0..i {
                residual[pair] = inverse[i * n + j] - alpha[i] * alpha[j];
                pair += 1;
            }
            trace += inverse[i * n + i] - alpha[i] * alpha[i];
        }
        gradient[features] = signal * (dot(&residual, &product) + 0.5 * trace);
        gradient[features + 1] = additive * (dot(&residual, &sum) + 0.5 * trace);
        gradient[features + 2] = 0.5 * v[features + 2].exp() * trace;
        for (s, r) in slope.iter_mut().zip(&residual) {
            *s *= r;
        }
        for (f, (w, differences)) in weights.iter().zip(&self.differences).enumerate() {
            let by_product = w * signal * dot(&slope, differences);
            let mut by_sum = 0.0;
            let scale = w * features as f64;
            for (r, d) in residual.iter().zip(differences) {
                by_sum -= r * scale * d * additive_correlation(scale * d).powi(2);
            }
            gradient[f] = by_product + additive * share * by_sum;
        }
        for ((g, x), (mean, spread)) in gradient.iter_mut().zip(v).zip(&self.prior) {
            let z = (x - mean) / spread;
            value += 0.5 * z * z;
            *g += z / spread;
        }
        (value, gradient)
    }
}

/// The correlation of one feature alone at its weighted squared difference: the rational quadratic kernel with α = ½
/// of that book's ℓ, which needs no exponential.
fn additive_correlation(d: f64) -> f64 {
    1.0 / (1.0 + d)
}

/// A process that has seen some values.
#[derive(Debug, Clone)]
pub struct GaussianProcess {
    points: Encoded,
    weights: Vec<f64>,
    signal: f64,
    additive: f64,
    /// K⁻¹ y.
    alpha: Vec<f64>,
    /// L⁻¹, row-major `[n, n]`.
    lower_inverse: Vec<f64>,
    /// Variance of the observation noise, of standardised values.
    noise: f64,
    /// Of the values, which the process sees with zero mean and unit variance.
    mean: f64,
    scale: f64,
}

/// Candidates that are predicted together.
pub(super) const LANES: usize = 8;

impl GaussianProcess {
    /// Conditions on values at points. The values are standardised inside.
    pub fn new(points: Encoded, values: &[f64], hyperparameters: &Hyperparameters) -> Self {
        Self::with_noise(points, values, &vec![0.0; values.len()], hyperparameters)
    }

    /// The same with values of which some are less sure than others: `extra` is what each one's variance is above that of
    /// the rest.
    pub fn with_noise(
        points: Encoded,
        values: &[f64],
        extra: &[f64],
        hyperparameters: &Hyperparameters,
    ) -> Self {
        let n = points.len();
        assert_eq!((n, n), (values.len(), extra.len()), "a value and a variance for each point");
        let (mean, scale) = moments(values);
        let weights: Vec<f64> = hyperparameters.log_weights.iter().map(|w| w.exp()).collect();
        let mut process = Self {
            points,
            weights,
            signal: hyperparameters.log_signal.exp(),
            additive: hyperparameters.log_additive.exp(),
            alpha: values.iter().map(|v| (v - mean) / scale).collect(),
            lower_inverse: Vec::new(),
            noise: hyperparameters.log_noise.exp() + NOISE_FLOOR,
            mean,
            scale,
        };
        let mut covariance = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                covariance[i * n + j] =
                    process.covariance(process.points.row(i), process.points.row(j));
            }
        }
        let factor = loop {
            let mut matrix = covariance.clone();
            for i in 0..n {
                matrix[i * n + i] += process.noise + (extra[i] / (scale * scale)).min(MOST_NOISE);
            }
            if factorize(&mut matrix, n) {
                break matrix;
            }
            process.noise *= 10.0;
            if process.noise.is_nan() || process.noise > MOST_NOISE {
                break diagonal(n, MOST_NOISE.sqrt());
            }
        };
        solve_lower(&factor, n, &mut process.alpha);
        solve_upper(&factor, n, &mut process.alpha);
        process.lower_inverse = invert_lower(&factor, n);
        process
    }

    /// Variance of the observation noise, of standardised values.
    pub(super) fn noise(&self) -> f64 {
        self.noise
    }

    /// Standard deviation of the values.
    pub(super) fn scale(&self) -> f64 {
        self.scale
    }

    /// No variance of a standardised value is smaller.
    pub(super) fn least_variance(&self) -> f64 {
        1e-10 * (self.signal + self.additive)
    }

    pub(super) fn covariance(&self, a: &[f64], b: &[f64]) -> f64 {
        let features = self.weights.len() as f64;
        let mut r2 = 0.0;
        let mut sum = 0.0;
        for (((&feature, w), x), y) in self.points.features.iter().zip(&self.weights).zip(a).zip(b)
        {
            let d = w * squared(feature, *x, *y);
            r2 += d;
            sum += additive_correlation(d * features);
        }
        self.signal * matern(r2) + self.additive * sum / features
    }

    /// [`Self::covariance`] of several points, given feature by feature, with one: the same sums, side by side.
    fn covariances(&self, block: &[[f64; LANES]], point: &[f64]) -> [f64; LANES] {
        let features = self.weights.len() as f64;
        let mut r2 = [0.0; LANES];
        let mut sum = [0.0; LANES];
        for (((&feature, &w), xs), y) in
            self.points.features.iter().zip(&self.weights).zip(block).zip(point)
        {
            // Told apart here and not for each pair, so that numbers need no branch and categories no division.
            match feature {
                Feature::Number => {
                    for lane in 0..LANES {
                        let d = w * ((xs[lane] - y) * (xs[lane] - y));
                        r2[lane] += d;
                        sum[lane] += additive_correlation(d * features);
                    }
                }
                Feature::Category => {
                    let unlike = additive_correlation(w * features);
                    for lane in 0..LANES {
                        let is_like = xs[lane].to_bits() == y.to_bits();
                        r2[lane] += if is_like { 0.0 } else { w };
                        sum[lane] += if is_like { 1.0 } else { unlike };
                    }
                }
            }
        }
        let of =
            |lane: usize| self.signal * matern(r2[lane]) + self.additive * sum[lane] / features;
        std::array::from_fn(of)
    }

    /// Predictions at the rows of `candidates`, which are encoded as the seen points are.
    pub fn predict(&self, candidates: &Encoded) -> Vec<Prediction> {
        let total = self.signal + self.additive;
        let mut predictions = Vec::with_capacity(candidates.len());
        self.project(candidates, |lanes, means, projected| {
            // σ² = k(x, x) − |L⁻¹ k|².
            let mut explained = [0.0; LANES];
            for row in projected {
                for lane in 0..LANES {
                    explained[lane] += row[lane] * row[lane];
                }
            }
            for lane in 0..lanes {
                let variance = (total - explained[lane]).max(self.least_variance());
                predictions.push(Prediction {
                    mean: self.mean + self.scale * means[lane],
                    deviation: self.scale * variance.sqrt(),
                });
            }
        });
        predictions
    }

    /// Shows candidates side by side: how many of the lanes are filled, the standardised means, and of each L⁻¹ k, `[n]` rows.
    pub(super) fn project(
        &self,
        candidates: &Encoded,
        mut see: impl FnMut(usize, &[f64; LANES], &[[f64; LANES]]),
    ) {
        let n = self.points.len();
        let mut columns = vec![[0.0_f64; LANES]; n];
        let mut projected = vec![[0.0_f64; LANES]; n];
        let mut block = vec![[0.0_f64; LANES]; self.weights.len()];
        for start in (0..candidates.len()).step_by(LANES) {
            let lanes = LANES.min(candidates.len() - start);
            for lane in 0..lanes {
                for (of_feature, x) in block.iter_mut().zip(candidates.row(start + lane)) {
                    of_feature[lane] = *x;
                }
            }
            for (j, column) in columns.iter_mut().enumerate() {
                *column = self.covariances(&block, self.points.row(j));
            }
            let mut means = [0.0; LANES];
            for (alpha, column) in self.alpha.iter().zip(&columns) {
                for lane in 0..LANES {
                    means[lane] += alpha * column[lane];
                }
            }
            for (i, projected) in projected.iter_mut().enumerate() {
                let mut sums = [0.0; LANES];
                for (l, column) in self.lower_inverse[i * n..=i * n + i].iter().zip(&columns) {
                    for lane in 0..LANES {
                        sums[lane] += l * column[lane];
                    }
                }
                *projected = sums;
            }
            see(lanes, &means, &projected);
        }
    }
}

/// The factor of a matrix that says nothing of one point by another.
fn diagonal(n: usize, of: f64) -> Vec<f64> {
    let mut matrix = vec![0.0; n * n];
    for i in 0..n {
        matrix[i * n + i] = of;
    }
    matrix
}

/// Mean and standard deviation, the latter 1 for values without spread.
pub(crate) fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    let scale = variance.sqrt();
    (mean, if scale > 1e-12 * mean.abs().max(1e-300) { scale } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::{Encoded, Feature, GaussianProcess, Hyperparameters, LANES, Likelihood};

    #[test]
    fn covariances_side_by_side_are_those_of_single_pairs_to_the_bit() {
        let mut points = Encoded::new(vec![Feature::Number, Feature::Category, Feature::Number]);
        for i in 0..LANES as u32 {
            points.push(&[f64::from(i) / 7.0, f64::from(i % 3), (f64::from(i) * 0.37).fract()]);
        }
        let mut hyperparameters = Hyperparameters::prior_mean(3);
        hyperparameters.log_weights = vec![0.3, -0.8, 1.1];
        let process = GaussianProcess::new(points.clone(), &[0.5; LANES], &hyperparameters);
        let block: Vec<[f64; LANES]> =
            (0..3).map(|f| std::array::from_fn(|lane| points.row(lane)[f])).collect();
        for one in 0..LANES {
            for (lane, k) in process.covariances(&block, points.row(one)).into_iter().enumerate() {
                let pair = process.covariance(points.row(lane), points.row(one));
                assert_eq!(k.to_bits(), pair.to_bits(), "{lane} {one}");
            }
        }
    }

    #[test]
    fn what_is_no_number_ends_in_a_process_that_knows_nothing() {
        let mut points = Encoded::new(vec![Feature::Number]);
        for x in [0.0, f64::NAN, 1.0] {
            points.push(&[x]);
        }
        let hyperparameters = Hyperparameters::prior_mean(1);
        for values in [[1.0, 2.0, 3.0], [f64::MAX, -f64::MAX, 0.0], [5e-324, 0.0, 1e-323]] {
            let process = GaussianProcess::with_noise(
                points.clone(),
                &values,
                &[0.0, f64::INFINITY, f64::MAX],
                &hyperparameters,
            );
            assert_eq!(process.predict(&points).len(), 3);
        }
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let mut points = Encoded::new(vec![Feature::Number, Feature::Category, Feature::Number]);
        let mut values = Vec::new();
        for i in 0..13 {
            let x = f64::from(i) / 12.0;
            points.push(&[x, f64::from(i % 3), (x * 7.0).fract()]);
            values.push((3.0 * x).sin() + f64::from(i % 3) - 1.0);
        }
        let prior = Hyperparameters::prior_mean(3);
        let likelihood = Likelihood::new(&points, &values, &prior);
        let at: Vec<f64> =
            prior.to_vector().iter().enumerate().map(|(i, v)| v + 0.3 * i as f64).collect();
        let (_, gradient) = likelihood.at(&at);
        for index in 0..at.len() {
            let value = |step: f64| {
                let mut moved = at.clone();
                moved[index] += step;
                likelihood.at(&moved).0
            };
            let slope = (value(1e-5) - value(-1e-5)) / 2e-5;
            let error = (slope - gradient[index]).abs();
            assert!(error < 1e-5 * (1.0 + slope.abs()), "{index}: {slope} and {}", gradient[index]);
        }
    }
}
