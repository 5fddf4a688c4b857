//! Linear regression with a prior, for few observations of many features: y = w·x + ε, ε ~ N(0, σ²), w ~ N(m, σ²/λ) and a
//! guess of σ² (Gelman et al., Bayesian Data Analysis, section 14.8, has the conjugate form; here σ² is that of residuals freed of
//! their leverage, so that error bars stay honest where features are as many as observations).

use crate::surrogate::cholesky::{factorize, solve_lower, solve_upper};

/// What is believed before anything is seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    /// m: the weight of each feature.
    pub means: Vec<f64>,
    /// λ of each feature: how strongly its weight is held there.
    pub precisions: Vec<f64>,
    /// A guess of σ …
    pub deviation: f64,
    /// … that is worth so many observations.
    pub freedom: f64,
}

/// The regression after observations.
#[derive(Debug, Clone)]
pub struct Regression {
    weights: Vec<f64>,
    /// The lower Cholesky factor of λ + XᵀX, `[n, n]`.
    factor: Vec<f64>,
    deviation: f64,
}

impl Regression {
    /// From observations of features and their values. None where that cannot be solved, for values near overflow say.
    pub fn new(prior: &Prior, features: &[Vec<f64>], values: &[f64]) -> Option<Self> {
        let n = prior.precisions.len();
        let mut factor = vec![0.0; n * n];
        let mut weights = vec![0.0; n];
        for (i, precision) in prior.precisions.iter().enumerate() {
            factor[i * n + i] = *precision;
        }
        for (x, y) in features.iter().zip(values) {
            let beyond = y - dot(&prior.means, x);
            for i in 0..n {
                weights[i] += x[i] * beyond;
                for j in 0..=i {
                    factor[i * n + j] += x[i] * x[j];
                }
            }
        }
        if !factorize(&mut factor, n) {
            return None;
        }
        solve_lower(&factor, n, &mut weights);
        solve_upper(&factor, n, &mut weights);
        for (weight, mean) in weights.iter_mut().zip(&prior.means) {
            *weight += mean;
        }
        let mut fit = Self { weights, factor, deviation: 0.0 };
        // A residual is smaller than ε by the root of one less its leverage, the more so the more features there are.
        let squares: f64 = features
            .iter()
            .zip(values)
            .map(|(x, y)| (y - dot(&fit.weights, x)).powi(2) / (1.0 - fit.leverage(x)).max(1e-9))
            .sum();
        let of_prior = prior.freedom * prior.deviation.powi(2);
        fit.deviation = ((of_prior + squares) / (prior.freedom + values.len() as f64)).sqrt();
        fit.deviation.is_finite().then_some(fit)
    }

    /// The expected value at x.
    pub fn at(&self, x: &[f64]) -> f64 {
        dot(&self.weights, x)
    }

    /// σ
    pub fn deviation(&self) -> f64 {
        self.deviation
    }

    /// What is not known of the weights, as it moves the expected value at x: σ L⁻¹x, where LLᵀ = λ + XᵀX, loadings of as many
    /// independent standard normal variables as there are features, the same ones for every x.
    pub fn loadings(&self, x: &[f64]) -> Vec<f64> {
        let mut solved = x.to_vec();
        solve_lower(&self.factor, x.len(), &mut solved);
        solved.iter().map(|x| self.deviation * x).collect()
    }

    /// The expected value at an observation x, y if that had not been seen, with its standard deviation, that of ε included.
    pub fn without(&self, x: &[f64], y: f64) -> (f64, f64) {
        let rest = (1.0 - self.leverage(x)).max(1e-9);
        (y - (y - dot(&self.weights, x)) / rest, self.deviation / rest.sqrt())
    }

    /// The weight of a feature.
    pub fn weight(&self, feature: usize) -> f64 {
        self.weights[feature]
    }

    /// xᵀ (λ + XᵀX)⁻¹ x
    fn leverage(&self, x: &[f64]) -> f64 {
        let mut solved = x.to_vec();
        solve_lower(&self.factor, x.len(), &mut solved);
        solved.iter().map(|x| x * x).sum()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prior(means: &[f64], precisions: &[f64], deviation: f64) -> Prior {
        let (means, precisions) = (means.to_vec(), precisions.to_vec());
        Prior { means, precisions, deviation, freedom: 2.0 }
    }

    /// Expected value and standard deviation, that of ε included.
    fn total(fit: &Regression, x: &[f64]) -> (f64, f64) {
        let of_weights: f64 = fit.loadings(x).iter().map(|s| s * s).sum();
        (fit.at(x), (fit.deviation().powi(2) + of_weights).sqrt())
    }

    fn plane(n: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
        let x: Vec<Vec<f64>> = (0..n).map(|i| vec![1.0, (i as f64 * 0.7).sin()]).collect();
        let noise = |i: usize| 0.1 * (i as f64 * 12.9898).sin();
        let y = x.iter().enumerate().map(|(i, x)| 2.0 + 3.0 * x[1] + noise(i)).collect();
        (x, y)
    }

    #[test]
    fn finds_a_plane_and_its_noise() {
        let prior = prior(&[0.0, 0.0], &[1e-6, 1e-3], 1.0);
        let (x, y) = plane(200);
        let fit = Regression::new(&prior, &x, &y).expect("it can be solved");
        let (mean, deviation) = total(&fit, &[1.0, 0.5]);
        assert!((mean - 3.5).abs() < 0.03 && (fit.weight(1) - 3.0).abs() < 0.03, "{mean}");
        // 0.1 / √2, and the guess of 1 for two observations of 202
        let expected = ((200.0 * 0.005 + 2.0) / 202.0_f64).sqrt();
        assert!((deviation / expected - 1.0).abs() < 0.1, "{deviation} {expected}");
    }

    #[test]
    fn without_an_observation_is_as_if_it_had_not_been_there() {
        let prior = prior(&[1.0, -0.5], &[0.5, 2.0], 0.1);
        let (x, y) = plane(12);
        let all = Regression::new(&prior, &x, &y).expect("it can be solved");
        for i in 0..x.len() {
            let (mut rest_x, mut rest_y) = (x.clone(), y.clone());
            rest_x.remove(i);
            rest_y.remove(i);
            let rest = Regression::new(&prior, &rest_x, &rest_y).expect("it can be solved");
            let (left_out, foretold) = (all.without(&x[i], y[i]), total(&rest, &x[i]));
            assert!((left_out.0 - foretold.0).abs() < 1e-12, "{left_out:?} {foretold:?}");
            assert!((left_out.1 / foretold.1 - 1.0).abs() < 0.3, "{left_out:?} {foretold:?}");
        }
    }

    #[test]
    fn nothing_seen_is_the_prior() {
        let fit = Regression::new(&prior(&[1.5], &[4.0], 0.5), &[], &[]).expect("it can be solved");
        let (mean, deviation) = total(&fit, &[2.0]);
        assert!((mean - 3.0).abs() < 1e-12 && (deviation - 0.5 * 2.0_f64.sqrt()).abs() < 1e-12);
    }
}
