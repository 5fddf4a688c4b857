//! Minimisation of a smooth function of some tens of variables: L-BFGS with a backtracking line search (Nocedal 1980).

use super::cholesky::dot;

/// Pairs of steps and gradient changes kept.
const MEMORY: usize = 8;

/// Minimises from `start` with at most `evaluations` evaluations; the best point found. `f` gives value and gradient;
/// a value that is not finite counts as infinitely bad.
pub(super) fn minimize(
    start: &[f64],
    evaluations: usize,
    mut f: impl FnMut(&[f64]) -> (f64, Vec<f64>),
) -> Vec<f64> {
    let mut x = start.to_vec();
    let (mut value, mut gradient) = f(&x);
    let mut left = evaluations.saturating_sub(1);
    // Steps s, gradient changes y, and 1/(s·y).
    let mut pairs: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
    while left > 0 && value.is_finite() {
        let mut direction = two_loop(&pairs, &gradient);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 {
            pairs.clear();
            direction = gradient.iter().map(|g| -g).collect();
            slope = dot(&direction, &gradient);
        }
        if slope > -1e-8 {
            break;
        }
        // No variable, all of which are logarithms, moves by more than 1 at a time.
        let longest = direction.iter().fold(0.0_f64, |m, d| m.max(d.abs()));
        let mut step = (1.0 / longest).min(1.0);
        let mut accepted = None;
        while left > 0 {
            let trial: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
            let (trial_value, trial_gradient) = f(&trial);
            left -= 1;
            if trial_value.is_finite() && trial_value <= value + 1e-4 * step * slope {
                accepted = Some((trial, trial_value, trial_gradient));
                break;
            }
            step *= 0.4;
            if step < 1e-4 {
                break;
            }
        }
        let Some((next, next_value, next_gradient)) = accepted else { break };
        let s: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let sy = dot(&s, &y);
        if sy > 1e-10 {
            if pairs.len() == MEMORY {
                pairs.remove(0);
            }
            pairs.push((s, y, 1.0 / sy));
        }
        let gain = value - next_value;
        (x, value, gradient) = (next, next_value, next_gradient);
        if gain < 1e-4 {
            break;
        }
    }
    x
}

/// −H g, with H the inverse Hessian that the pairs suggest.
fn two_loop(pairs: &[(Vec<f64>, Vec<f64>, f64)], gradient: &[f64]) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for (s, y, rho) in pairs.iter().rev() {
        let alpha = rho * dot(s, &q);
        for (q, y) in q.iter_mut().zip(y) {
            *q -= alpha * y;
        }
        alphas.push(alpha);
    }
    if let Some((s, y, _)) = pairs.last() {
        let scale = dot(s, y) / dot(y, y);
        for q in &mut q {
            *q *= scale;
        }
    }
    for ((s, y, rho), alpha) in pairs.iter().zip(alphas.iter().rev()) {
        let beta = rho * dot(y, &q);
        for (q, s) in q.iter_mut().zip(s) {
            *q += (alpha - beta) * s;
        }
    }
    q
}
