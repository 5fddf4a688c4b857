//! Small statistics: how far two orders agree.

use serde::Serialize;

/// A rank correlation with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Correlation {
    /// −1 to 1.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Pairs.
    pub pairs: usize,
}

/// Kendall's τ_b, which corrects for ties, and its interval by Fisher's z with variance 0.437/(n − 4) (Fieller, Hartley
/// and Pearson 1957). None for fewer than 5 pairs, or when one side is all ties.
pub fn kendall(pairs: &[(f64, f64)]) -> Option<Correlation> {
    let n = pairs.len();
    let (mut agree, mut tied_x, mut tied_y) = (0_i64, 0_i64, 0_i64);
    for (i, a) in pairs.iter().enumerate() {
        for b in &pairs[..i] {
            let (x, y) = (a.0.total_cmp(&b.0) as i64, a.1.total_cmp(&b.1) as i64);
            agree += x * y;
            tied_x += i64::from(x == 0);
            tied_y += i64::from(y == 0);
        }
    }
    let all = (n * n.saturating_sub(1) / 2) as i64;
    let scale = (((all - tied_x) * (all - tied_y)) as f64).sqrt();
    (n >= 5 && scale > 0.0).then(|| interval(agree as f64 / scale, 0.437 / (n as f64 - 4.0), n))
}

/// Spearman's ρ, and its interval by Fisher's z with variance 1.06/(n − 3) (the same authors). None for fewer than 5 pairs,
/// or when one side is all ties.
pub fn spearman(pairs: &[(f64, f64)]) -> Option<Correlation> {
    let n = pairs.len();
    let x = mid_ranks(&pairs.iter().map(|p| p.0).collect::<Vec<_>>());
    let y = mid_ranks(&pairs.iter().map(|p| p.1).collect::<Vec<_>>());
    let mean = (n as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    let scale = (product(&x, &x) * product(&y, &y)).sqrt();
    (n >= 5 && scale > 0.0).then(|| interval(product(&x, &y) / scale, 1.06 / (n as f64 - 3.0), n))
}

fn interval(value: f64, variance: f64, pairs: usize) -> Correlation {
    let z = value.clamp(-1.0 + 1e-12, 1.0 - 1e-12).atanh();
    let reach = 1.96 * variance.sqrt();
    Correlation { value, low: (z - reach).tanh(), high: (z + reach).tanh(), pairs }
}

/// Ranks from 0, equal values sharing the mean of theirs.
fn mid_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut at = 0;
    while at < order.len() {
        let same = |&&index: &&usize| values[index].total_cmp(&values[order[at]]).is_eq();
        let end = at + order[at..].iter().take_while(same).count();
        for &index in &order[at..end] {
            ranks[index] = (at + end - 1) as f64 / 2.0;
        }
        at = end;
    }
    ranks
}

/// Mean and standard error of the mean, the latter none for a single value.
pub fn mean_and_error(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (values.len() > 1).then(|| (variance / n).sqrt()))
}
