//! Linear regression with a prior, for few observations of many features: y = w·x + ε, ε of a t distribution of four degrees
//! of freedom and scale σ, w ~ N(m, σ²/λ) and a guess of σ². A normal ε is moved by its outliers: of 43 stacks two of attention
//! alone, which learn late, made the bars of all others three times as wide (docs/studies/prediction.md).
//!
//! Fitted by expectation and maximisation (Lange, Little & Taylor, Robust statistical modeling using the t distribution, JASA
//! 1989): an observation counts by (ν + 1) / (ν + r²/σ²), r its residual, until that changes no more. Given these weights it
//! is the conjugate form (Gelman et al., Bayesian Data Analysis, section 14.8), but for σ², which is that of residuals freed of
//! their leverage, so that error bars stay honest where features are as many as observations.

use crate::statistics::{NINE_OF_TEN, student_90};
use crate::surrogate::cholesky::{factorize, solve_lower, solve_upper};

/// Degrees of freedom of ε: the usual choice where outliers are few and nothing else is known (Lange et al., section 5).
const NU: f64 = 4.0;

/// The weights of observations settle within far fewer rounds; where two fits are as good they need not.
const ROUNDS: usize = 100;

/// Fits that foretell what is left out.
const FOLDS: usize = 64;

/// What is believed before anything is seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    /// m: the weight of each feature.
    pub means: Vec<f64>,
    /// λ of each feature: how strongly its weight is held there.
    pub precisions: Vec<f64>,
    /// A guess of the deviation, as [`Regression::deviation`] gives it …
    pub deviation: f64,
    /// … that is worth so many observations.
    pub freedom: f64,
}

/// The regression after observations.
#[derive(Debug, Clone)]
pub struct Regression {
    prior: Prior,
    /// Features and value of each observation.
    seen: Vec<(Vec<f64>, f64)>,
    fit: Fit,
}

/// The weights of features, given those of observations.
#[derive(Debug, Clone)]
struct Fit {
    weights: Vec<f64>,
    /// The lower Cholesky factor of λ + XᵀWX, `[n, n]`.
    factor: Vec<f64>,
    /// σ
    scale: f64,
    /// W: how much each observation counts.
    counts: Vec<f64>,
}

impl Regression {
    /// From observations, features and value of each. None where that cannot be solved, for values near overflow say.
    pub fn new(prior: Prior, seen: Vec<(Vec<f64>, f64)>) -> Option<Self> {
        let fit = Fit::settled(&prior, &seen, vec![1.0; seen.len()])?;
        Some(Self { prior, seen, fit })
    }

    /// The expected value at x.
    pub fn at(&self, x: &[f64]) -> f64 {
        dot(&self.fit.weights, x)
    }

    /// The standard deviation of the normal distribution that stands for ε: 90 of 100 are within 1.645 of it.
    pub fn deviation(&self) -> f64 {
        normal() * self.fit.scale
    }

    /// What is not known of the weights, as it moves the expected value at x: the deviation times L⁻¹x, where
    /// LLᵀ = λ + XᵀWX, loadings of as many independent standard normal variables as there are features, the same ones for
    /// every x.
    pub fn loadings(&self, x: &[f64]) -> Vec<f64> {
        self.fit.solved(x).iter().map(|x| self.deviation() * x).collect()
    }

    /// The expected value at each observation if that had not been seen, with its standard deviation, that of ε included;
    /// none where the others determine nothing. Of more than 64 as many as it takes are left out together, so that the time
    /// grows no faster than their number.
    pub fn left_out(&self) -> Vec<Option<(f64, f64)>> {
        let folds = self.seen.len().min(FOLDS);
        let without = |fold: usize| {
            let stays = |at: &usize| at % folds != fold;
            let (seen, counts): (Vec<_>, Vec<_>) = (0..self.seen.len())
                .filter(stays)
                .map(|at| (self.seen[at].clone(), self.fit.counts[at]))
                .unzip();
            Fit::settled(&self.prior, &seen, counts)
        };
        let fits: Vec<Option<Fit>> = (0..folds).map(without).collect();
        let foretold = |(at, (x, _)): (usize, &(Vec<f64>, f64))| {
            let fit = fits[at % folds].as_ref()?;
            Some((dot(&fit.weights, x), normal() * fit.scale * (1.0 + fit.leverage(x)).sqrt()))
        };
        self.seen.iter().enumerate().map(foretold).collect()
    }

    /// The weight of a feature.
    pub fn weight(&self, feature: usize) -> f64 {
        self.fit.weights[feature]
    }
}

impl Fit {
    /// From these counts of observations on, until they change no more.
    fn settled(prior: &Prior, seen: &[(Vec<f64>, f64)], mut counts: Vec<f64>) -> Option<Self> {
        let mut fit = None;
        for _ in 0..ROUNDS {
            let (of_counts, squares) = Self::of(prior, seen, counts)?;
            let count = |square: &f64| (NU + 1.0) / (NU + square / of_counts.scale.powi(2));
            counts = squares.iter().map(count).collect();
            let moved = counts.iter().zip(&of_counts.counts).map(|(a, b)| (a - b).abs());
            let is_settled = moved.fold(0.0, f64::max) < 1e-6;
            fit = Some(of_counts);
            if is_settled {
                break;
            }
        }
        fit
    }

    /// With the square of each residual.
    fn of(prior: &Prior, seen: &[(Vec<f64>, f64)], counts: Vec<f64>) -> Option<(Self, Vec<f64>)> {
        let n = prior.precisions.len();
        let mut factor = vec![0.0; n * n];
        let mut weights = vec![0.0; n];
        for (i, precision) in prior.precisions.iter().enumerate() {
            factor[i * n + i] = *precision;
        }
        for ((x, y), count) in seen.iter().zip(&counts) {
            let beyond = count * (y - dot(&prior.means, x));
            for i in 0..n {
                weights[i] += x[i] * beyond;
                for j in 0..=i {
                    factor[i * n + j] += count * x[i] * x[j];
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
        let mut fit = Self { weights, factor, scale: 0.0, counts };
        // A residual is smaller than ε by the root of one less its leverage, the more so the more features there are.
        let square = |((x, y), count): (&(Vec<f64>, f64), &f64)| {
            (y - dot(&fit.weights, x)).powi(2) / (1.0 - count * fit.leverage(x)).max(1e-9)
        };
        let squares: Vec<f64> = seen.iter().zip(&fit.counts).map(square).collect();
        let of_seen: f64 =
            squares.iter().zip(&fit.counts).map(|(square, count)| count * square).sum();
        let of_prior = prior.freedom * (prior.deviation / normal()).powi(2);
        fit.scale = ((of_prior + of_seen) / (prior.freedom + seen.len() as f64)).sqrt();
        fit.scale.is_finite().then_some((fit, squares))
    }

    /// L⁻¹x
    fn solved(&self, x: &[f64]) -> Vec<f64> {
        let mut solved = x.to_vec();
        solve_lower(&self.factor, x.len(), &mut solved);
        solved
    }

    /// xᵀ (λ + XᵀWX)⁻¹ x
    fn leverage(&self, x: &[f64]) -> f64 {
        self.solved(x).iter().map(|x| x * x).sum()
    }
}

/// A normal distribution of this standard deviation, in σ, has its 90 of 100 within where ε has them.
fn normal() -> f64 {
    student_90(NU) / NINE_OF_TEN
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

    fn regression(prior: &Prior, seen: &[(Vec<f64>, f64)]) -> Regression {
        Regression::new(prior.clone(), seen.to_vec()).expect("it can be solved")
    }

    /// Expected value and standard deviation, that of ε included.
    fn total(fit: &Regression, x: &[f64]) -> (f64, f64) {
        let of_weights: f64 = fit.loadings(x).iter().map(|s| s * s).sum();
        (fit.at(x), (fit.deviation().powi(2) + of_weights).sqrt())
    }

    fn plane(n: usize) -> Vec<(Vec<f64>, f64)> {
        // nearly normal, of deviation 0.1 / √2
        let turns = [12.9898, 78.233, 37.719, 4.898];
        let noise = |i: usize| turns.iter().map(|turn| 0.05 * (i as f64 * turn).sin()).sum::<f64>();
        let of = |i: usize| ((i as f64 * 0.7).sin(), noise(i));
        (0..n).map(of).map(|(x, noise)| (vec![1.0, x], 2.0 + 3.0 * x + noise)).collect()
    }

    #[test]
    fn finds_a_plane_and_its_noise() {
        let fit = regression(&prior(&[0.0, 0.0], &[1e-6, 1e-3], 0.1), &plane(200));
        let (mean, deviation) = total(&fit, &[1.0, 0.5]);
        assert!((mean - 3.5).abs() < 0.03 && (fit.weight(1) - 3.0).abs() < 0.03, "{mean}");
        // somewhat wide of what is normal
        assert!((0.95..1.25).contains(&(deviation / 0.005_f64.sqrt())), "{deviation}");
    }

    #[test]
    fn a_few_outliers_move_neither_the_plane_nor_the_bars_of_the_rest() {
        let prior = prior(&[0.0, 0.0], &[1e-6, 1e-3], 0.1);
        let clean = regression(&prior, &plane(40));
        let mut seen = plane(40);
        for at in [3, 17] {
            seen[at].1 += 5.0; // fifty times the noise
        }
        let fit = regression(&prior, &seen);
        let ((mean, bar), (clean, clean_bar)) =
            (total(&fit, &[1.0, 0.5]), total(&clean, &[1.0, 0.5]));
        assert!((mean - clean).abs() < 0.05, "{mean} {clean}");
        assert!(bar / clean_bar < 1.5, "{bar} {clean_bar}");
    }

    #[test]
    fn what_is_left_out_is_as_if_it_had_not_been_there() {
        let prior = prior(&[1.0, -0.5], &[0.5, 2.0], 0.1);
        let mut seen = plane(12);
        seen[4].1 -= 2.0;
        let left_out = regression(&prior, &seen).left_out();
        for (i, left_out) in left_out.into_iter().enumerate() {
            let (mean, deviation) = left_out.expect("the others determine the plane");
            let mut rest = seen.clone();
            let (x, _) = rest.remove(i);
            let foretold = total(&regression(&prior, &rest), &x);
            assert!((mean - foretold.0).abs() < 1e-4, "{mean} {foretold:?}");
            assert!((deviation / foretold.1 - 1.0).abs() < 1e-4, "{deviation} {foretold:?}");
        }
    }

    #[test]
    fn nothing_seen_is_the_prior() {
        let fit = regression(&prior(&[1.5], &[4.0], 0.5), &[]);
        let (mean, deviation) = total(&fit, &[2.0]);
        assert!((mean - 3.0).abs() < 1e-12 && (deviation - 0.5 * 2.0_f64.sqrt()).abs() < 1e-12);
    }
}
