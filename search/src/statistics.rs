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
    let Order { all, tied_x, tied_y, same, opposite } = Order::of(pairs);
    let scale = ((all - tied_x) as f64 * (all - tied_y) as f64).sqrt();
    let agree = same as f64 - opposite as f64;
    (n >= 5 && scale > 0.0).then(|| interval(agree / scale, 0.437 / (n as f64 - 4.0), n))
}

/// How many pairs of points two numbers put in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// Pairs of points.
    pub(crate) all: u64,
    /// Those with equal x.
    pub(crate) tied_x: u64,
    /// Those with equal y.
    pub(crate) tied_y: u64,
    /// Those in the same order by both.
    pub(crate) same: u64,
    /// Those in opposite orders.
    pub(crate) opposite: u64,
}

impl Order {
    /// In the time of a sort (Knight 1966): in the order of x, those in opposite orders are the inversions of y.
    pub(crate) fn of(points: &[(f64, f64)]) -> Self {
        let two = |n: usize| n as u64 * (n as u64).saturating_sub(1) / 2;
        let mut points = points.to_vec();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let same_x = |a: &(f64, f64), b: &(f64, f64)| a.0.total_cmp(&b.0).is_eq();
        let same_y = |a: &f64, b: &f64| a.total_cmp(b).is_eq();
        let tied_x = points.chunk_by(same_x).map(|tied| two(tied.len())).sum();
        let both = |a: &(f64, f64), b: &(f64, f64)| same_x(a, b) && same_y(&a.1, &b.1);
        let tied_both: u64 = points.chunk_by(both).map(|tied| two(tied.len())).sum();
        let mut y: Vec<f64> = points.iter().map(|point| point.1).collect();
        let opposite = sort_counting(&mut y);
        let tied_y = y.chunk_by(same_y).map(|tied| two(tied.len())).sum();
        let all = two(points.len());
        Self { all, tied_x, tied_y, same: all + tied_both - tied_x - tied_y - opposite, opposite }
    }
}

/// Sorts by merging; returns how many pairs stood the wrong way round.
fn sort_counting(values: &mut [f64]) -> u64 {
    let (mut inversions, mut merged) = (0, Vec::with_capacity(values.len()));
    let mut length = 1;
    while length < values.len() {
        for part in values.chunks_mut(2 * length) {
            let (left, right) = part.split_at(length.min(part.len()));
            let (mut i, mut j) = (0, 0);
            merged.clear();
            while i < left.len() && j < right.len() {
                if right[j].total_cmp(&left[i]).is_lt() {
                    inversions += (left.len() - i) as u64;
                    merged.push(right[j]);
                    j += 1;
                } else {
                    merged.push(left[i]);
                    i += 1;
                }
            }
            merged.extend_from_slice(&left[i..]);
            merged.extend_from_slice(&right[j..]);
            part.copy_from_slice(&merged);
        }
        length *= 2;
    }
    inversions
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

/// The middle of all, of an even number the mean of the two in the middle; none of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

/// Mean and standard error of the mean, the latter none for a single value.
pub fn mean_and_error(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (values.len() > 1).then(|| (variance / n).sqrt()))
}

/// The 97.5 % quantile of Student's t: half the width of a 95 % interval in standard errors, at so many degrees of freedom. The
/// table's to 10 (Student 1908 as Fisher printed it), by Cornish and Fisher's expansion beyond, which is within 1e-4 there.
pub fn student_95(freedom: usize) -> f64 {
    const TABLE: [f64; 10] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    match freedom {
        0 => f64::INFINITY,
        1..=10 => TABLE[freedom - 1],
        _ => expanded(1.959_963_985, freedom as f64),
    }
}

/// Half the width of a normal interval of 90 %, in standard deviations.
pub const NINE_OF_TEN: f64 = 1.645;

/// The 95 % quantile of Student's t, half the width of a 90 % interval, at a number of degrees of freedom of at least 1 that
/// need not be whole: between those of the table linear in 1 / `freedom`, within 0.5 % from 2 on.
pub fn student_90(freedom: f64) -> f64 {
    const TABLE: [f64; 10] = [6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812];
    let below = (freedom.max(1.0) as usize).min(TABLE.len());
    if below == TABLE.len() {
        return expanded(1.644_853_627, freedom);
    }
    let (low, high) = (below as f64, below as f64 + 1.0);
    let share = (1.0 / low - 1.0 / freedom.max(1.0)) / (1.0 / low - 1.0 / high);
    TABLE[below - 1] + share * (TABLE[below] - TABLE[below - 1])
}

/// The quantile of Student's t of which that of a normal distribution is `z`, by Cornish and Fisher's expansion.
fn expanded(z: f64, freedom: f64) -> f64 {
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    z + (z3 + z) / (4.0 * freedom)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * freedom * freedom)
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * freedom.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_counted_as_pair_by_pair() {
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for n in [0, 1, 2, 3, 63, 100, 257] {
            for values in [1, 3, 1000] {
                let mut number = || next(values) as f64 - 1.0;
                let mut points: Vec<(f64, f64)> = (0..n).map(|_| (number(), number())).collect();
                if let Some(first) = points.first_mut() {
                    *first = (f64::NAN, -0.0);
                }
                let mut order = Order { all: 0, tied_x: 0, tied_y: 0, same: 0, opposite: 0 };
                for (i, a) in points.iter().enumerate() {
                    for b in &points[..i] {
                        let (x, y) = (a.0.total_cmp(&b.0), a.1.total_cmp(&b.1));
                        order.all += 1;
                        order.tied_x += u64::from(x.is_eq());
                        order.tied_y += u64::from(y.is_eq());
                        order.same += u64::from(x == y && x.is_ne());
                        order.opposite += u64::from(x == y.reverse() && x.is_ne());
                    }
                }
                assert_eq!(Order::of(&points), order, "{n} points of {values} values");
            }
        }
    }
}
