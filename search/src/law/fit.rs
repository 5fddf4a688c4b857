//! Bounded least squares on the logarithms of the law's unknowns, by Levenberg and Marquardt (Marquardt 1963).

use super::terms::{Law, Observation, Power};
use crate::surrogate::cholesky::{factorize, solve_lower, solve_upper};

/// Exponents to start from; each term finds its own from there.
const STARTS: [f64; 3] = [0.3, 0.8, 2.0];
/// The smallest and the largest exponent: beyond them a power is a constant, or a step.
const EXPONENTS: (f64, f64) = (0.05, 5.0);
const ITERATIONS: usize = 100;

/// What a fit found: logarithms of L0, a, α, b, β and, with data, c, γ; factors at the geometric means of D, W and N.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) unknowns: Vec<f64>,
    /// Sum of the squared residuals.
    pub(super) squares: f64,
}

/// The observations without their losses.
pub(super) struct Problem {
    /// Of each observation: ln(D/D̄), ln(W/W̄) and, with data, ln(N/N̄).
    logs: Vec<Vec<f64>>,
    /// ln D̄, ln W̄, ln N̄.
    centres: Vec<f64>,
}

impl Problem {
    pub(super) fn new(observations: &[Observation], has_tokens: bool) -> Self {
        let of = |o: &Observation| {
            let all = [o.ln_depth(), o.ln_width(), (o.tokens as f64).ln()];
            all[..if has_tokens { 3 } else { 2 }].to_vec()
        };
        let mut logs: Vec<Vec<f64>> = observations.iter().map(of).collect();
        let n = logs.len().max(1) as f64;
        let terms = if has_tokens { 3 } else { 2 };
        let centres: Vec<f64> =
            (0..terms).map(|j| logs.iter().map(|row| row[j]).sum::<f64>() / n).collect();
        for row in &mut logs {
            for (log, centre) in row.iter_mut().zip(&centres) {
                *log -= centre;
            }
        }
        Self { logs, centres }
    }

    /// The best fit from several starts.
    pub(super) fn fit(&self, losses: &[f64]) -> Found {
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let most = losses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let share = ((most - least) / 2.0).max(1e-6 * most.abs()).max(f64::MIN_POSITIVE);
        let floor = (least - share).max(0.5 * least).max(f64::MIN_POSITIVE);
        STARTS
            .iter()
            .map(|exponent| {
                let mut start = vec![floor.ln()];
                for _ in &self.centres {
                    start.extend([share.ln(), exponent.ln()]);
                }
                self.fit_from(&start, losses)
            })
            .min_by(|a, b| a.squares.total_cmp(&b.squares))
            .expect("there are starts")
    }

    /// The fit that a start leads to.
    pub(super) fn fit_from(&self, start: &[f64], losses: &[f64]) -> Found {
        let bounds = self.bounds(losses);
        let clamp = |unknowns: &mut Vec<f64>| {
            for (unknown, (low, high)) in unknowns.iter_mut().zip(&bounds) {
                *unknown = unknown.clamp(*low, *high);
            }
        };
        let n = start.len();
        let mut unknowns = start.to_vec();
        clamp(&mut unknowns);
        let mut squares = self.squares(&unknowns, losses);
        let mut damping = 1e-3;
        for _ in 0..ITERATIONS {
            let (normal, gradient) = self.normal(&unknowns, losses);
            let mut is_better = false;
            while damping < 1e9 {
                let mut matrix = normal.clone();
                for i in 0..n {
                    matrix[i * n + i] += damping * normal[i * n + i] + 1e-14;
                }
                let mut step = gradient.clone();
                if factorize(&mut matrix, n) {
                    solve_lower(&matrix, n, &mut step);
                    solve_upper(&matrix, n, &mut step);
                    let mut next: Vec<f64> =
                        unknowns.iter().zip(&step).map(|(u, s)| u - s.clamp(-2.0, 2.0)).collect();
                    clamp(&mut next);
                    let now = self.squares(&next, losses);
                    if now < squares {
                        is_better = now < squares * (1.0 - 1e-8);
                        (unknowns, squares) = (next, now);
                        damping = (damping / 5.0).max(1e-9);
                        break;
                    }
                }
                damping *= 5.0;
            }
            if !is_better {
                break;
            }
        }
        Found { unknowns, squares }
    }

    /// Of the logarithms: the floor below the losses, each factor from nothing to well above them.
    fn bounds(&self, losses: &[f64]) -> Vec<(f64, f64)> {
        let most = losses.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let mut bounds = vec![((1e-6 * most).ln(), most.ln())];
        for _ in &self.centres {
            bounds.push(((1e-9 * most).ln(), (10.0 * most).ln()));
            bounds.push((EXPONENTS.0.ln(), EXPONENTS.1.ln()));
        }
        bounds
    }

    /// The law's loss at each observation.
    pub(super) fn values(&self, unknowns: &[f64]) -> Vec<f64> {
        let (floor, terms) = (unknowns[0].exp(), &unknowns[1..]);
        let at = |row: &Vec<f64>| {
            let terms = terms.chunks_exact(2).zip(row);
            terms.map(|(term, log)| (term[0] - term[1].exp() * log).exp()).sum::<f64>() + floor
        };
        self.logs.iter().map(at).collect()
    }

    fn squares(&self, unknowns: &[f64], losses: &[f64]) -> f64 {
        let values = self.values(unknowns);
        let squares: f64 = values.iter().zip(losses).map(|(v, l)| (v - l).powi(2)).sum();
        if squares.is_finite() { squares } else { f64::INFINITY }
    }

    /// JᵀJ, and Jᵀr of the residuals r = law − loss.
    fn normal(&self, unknowns: &[f64], losses: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let n = unknowns.len();
        let (mut normal, mut gradient) = (vec![0.0; n * n], vec![0.0; n]);
        let values = self.values(unknowns);
        let mut slopes = vec![0.0; n];
        for ((row, value), loss) in self.logs.iter().zip(values).zip(losses) {
            fill_slopes(unknowns, row, &mut slopes);
            for i in 0..n {
                gradient[i] += slopes[i] * (value - loss);
                for j in 0..=i {
                    normal[i * n + j] += slopes[i] * slopes[j];
                }
            }
        }
        (normal, gradient)
    }

    /// How much each observation pulls the law to itself: the diagonal of J (JᵀJ)⁻¹ Jᵀ, 0 to 1.
    pub(super) fn leverages(&self, unknowns: &[f64]) -> Vec<f64> {
        let n = unknowns.len();
        let (mut normal, _) = self.normal(unknowns, &vec![0.0; self.logs.len()]);
        // An unknown at its bound has no slope, and pulls nothing.
        let largest = (0..n).map(|i| normal[i * n + i]).fold(f64::MIN_POSITIVE, f64::max);
        for i in 0..n {
            normal[i * n + i] += 1e-10 * largest;
        }
        if !factorize(&mut normal, n) {
            return vec![n as f64 / self.logs.len().max(1) as f64; self.logs.len()];
        }
        let of = |row: &Vec<f64>| {
            let mut slopes = vec![0.0; n];
            fill_slopes(unknowns, row, &mut slopes);
            solve_lower(&normal, n, &mut slopes);
            slopes.iter().map(|x| x * x).sum()
        };
        self.logs.iter().map(of).collect()
    }

    /// The law in D, W and N themselves.
    pub(super) fn law(&self, unknowns: &[f64]) -> Law {
        let power = |j: usize| {
            let exponent = unknowns[2 + 2 * j].exp();
            Power { factor: (unknowns[1 + 2 * j] + exponent * self.centres[j]).exp(), exponent }
        };
        Law {
            floor: unknowns[0].exp(),
            depth: power(0),
            width: power(1),
            tokens: (self.centres.len() > 2).then(|| power(2)),
        }
    }
}

/// The slopes of the law at one observation, by the logarithm of each unknown.
fn fill_slopes(unknowns: &[f64], row: &[f64], slopes: &mut [f64]) {
    slopes[0] = unknowns[0].exp();
    for (j, log) in row.iter().enumerate() {
        let exponent = unknowns[2 + 2 * j].exp();
        let term = (unknowns[1 + 2 * j] - exponent * log).exp();
        // ∂/∂ln a = a·x^−α; ∂/∂ln α = −α·ln x·a·x^−α
        slopes[1 + 2 * j] = term;
        slopes[2 + 2 * j] = -exponent * log * term;
    }
}
