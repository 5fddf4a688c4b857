//! How well short trainings foretell long ones, by leaving out each candidate that has both.

use std::collections::BTreeSet;

use serde::Serialize;

use super::change::{Change, ENOUGH, Observed, Seen};
use crate::campaign::candidate::Candidate;
use crate::objective::Objective;
use crate::statistics::{NINE_OF_TEN, Order};

/// The share of normal values within one.
const WITHIN_ONE: f64 = 0.683;

/// How well trainings of one length foretell those of the next, over the candidates that have both. For the prediction
/// each is left out in turn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backtest {
    /// Name of the value, e.g. `bits_per_byte`.
    pub value: String,
    /// Tokens of the shorter training.
    pub fewer: u64,
    /// Tokens of the longer one.
    pub more: u64,
    /// Candidates that have both.
    pub candidates: usize,
    /// The share of pairs that are in the order of the longer training after the shorter one.
    pub right: f64,
    /// The same by prediction.
    pub right_predicted: f64,
    /// What two thirds of the predictions are off by at most, as a standard deviation is: a few that are far off, stacks
    /// unlike the others, say nothing of the rest.
    pub error: f64,
    /// The share of candidates within the prediction's error of 90 %.
    pub covered: f64,
}

impl Backtest {
    /// Two candidates whose predictions differ by this are in their order in 84 of 100 cases: √2 times the error.
    pub fn coin_flip(&self) -> f64 {
        std::f64::consts::SQRT_2 * self.error
    }
}

/// The backtest of each length of training and the next, for each objective that trainers report.
pub fn backtests(rows: &[Candidate], objectives: &[Objective]) -> Vec<Backtest> {
    let trained = rows.iter().flat_map(|row| &row.trained);
    let lengths: BTreeSet<u64> = trained.map(|trained| trained.tokens).collect();
    let lengths: Vec<u64> = lengths.into_iter().collect();
    let mut found = Vec::new();
    for objective in objectives {
        let mut before: Option<Change> = None;
        for place in 1..lengths.len() {
            let observed = Observed::new(&lengths[..=place], objective, &rows.iter());
            let change = Change::new(&observed, before.as_ref());
            if let Some(change) = change.as_ref().filter(|_| observed.seen.len() >= ENOUGH) {
                let (low, high) = (lengths[place - 1], lengths[place]);
                found.extend(backtest(objective.name(), low, high, &observed.seen, change));
            }
            before = change;
        }
    }
    found
}

/// Of those that the others say something of, as long as these are enough.
fn backtest(
    value: &str,
    fewer: u64,
    more: u64,
    seen: &[Seen],
    change: &Change,
) -> Option<Backtest> {
    let foretold = seen.iter().zip(change.left_out());
    let (seen, predicted): (Vec<&Seen>, Vec<(f64, f64)>) = foretold
        .filter_map(|(seen, foretold)| {
            let (change, bar) = foretold?;
            Some((seen, (seen.low + change, bar)))
        })
        .unzip();
    if seen.len() < ENOUGH {
        return None;
    }
    let right = |of: &dyn Fn(usize) -> f64| {
        let points: Vec<(f64, f64)> =
            seen.iter().enumerate().map(|(i, seen)| (of(i), seen.high)).collect();
        let order = Order::of(&points);
        order.same as f64 / (order.all - order.tied_y).max(1) as f64
    };
    let n = seen.len() as f64;
    let off = |(seen, (mean, _)): (&&Seen, &(f64, f64))| (seen.high - mean).abs();
    let mut errors: Vec<f64> = seen.iter().zip(&predicted).map(off).collect();
    let covered =
        errors.iter().zip(&predicted).filter(|(e, (_, d))| **e <= NINE_OF_TEN * d).count();
    errors.sort_by(f64::total_cmp);
    Some(Backtest {
        value: value.to_owned(),
        fewer,
        more,
        candidates: seen.len(),
        right: right(&|i| seen[i].low),
        right_predicted: right(&|i| predicted[i].0),
        error: quantile(&errors, WITHIN_ONE),
        covered: covered as f64 / n,
    })
}

/// Of sorted values, linear between them.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, part) = (place as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + part * (sorted[above] - sorted[below])
}
