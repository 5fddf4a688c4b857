//! What a candidate's own curve and its kin say of its loss after more tokens: a linear regression of the change from one
//! rung to the next, on the loss, on what the rung before gained, and on what the stack is made of. Stacks of one kind move
//! alike: attention learns to look back late, Mamba2 gains early and less afterwards.
//!
//! On 25 stacks, each left out in turn, such predictions from 1/64, 1/16 and 1/4 of the tokens order 0.81, 0.92 and 0.93 of
//! the pairs rightly, where the losses alone order 0.71, 0.83 and 0.94 (docs/studies/prediction.md).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::candidate::Candidate;
use super::front::{objectives_at, top};
use crate::objective::Objective;
use crate::pareto::Objectives;
use crate::regression::{Prior, Regression};
use crate::statistics::Order;

/// How strongly weights are held at 0: of the constant; of the loss, for what it changes by; of the gain before; of kin.
const PRECISIONS: [f64; 4] = [1e-3, 0.1, 1.0, 1.0];

/// Spreads that features are measured in, where the candidates that are known would give too few: of the share of layers
/// that a mixer has, of log₂ of the width, of log₂ of the depth.
const SPREADS: [f64; 3] = [0.3, 0.6, 0.5];

/// The scatter of changes over the spread of losses, before any change is known.
const SCATTER: f64 = 0.25;

/// The observations that this guess is worth.
const FREEDOM: f64 = 1.0;

/// 90 of 100 normal values are within so many standard deviations.
const NINETY: f64 = 1.645;

/// From each rung to the next, up to the highest that a candidate is done at.
#[derive(Debug, Clone)]
pub(super) struct Predictor {
    steps: Vec<Step>,
    top: u64,
}

impl Predictor {
    pub(super) fn new<'a>(
        rungs: &[u64],
        objectives: &[Objective],
        rows: &(impl Iterator<Item = &'a Candidate> + Clone),
    ) -> Self {
        let top = top(rows.clone());
        let steps = (1..rungs.len())
            .filter(|&at| rungs[at] <= top)
            .map(|at| Step::new(&rungs[..=at], objectives, rows))
            .collect();
        Self { steps, top }
    }

    /// The highest rung that a candidate is done at.
    pub(super) fn top(&self) -> u64 {
        self.top
    }

    /// What the objectives of a candidate are expected to be at the highest rung, with the standard deviation of each; none
    /// while it lacks one at its own.
    pub(super) fn of(
        &self,
        row: &Candidate,
        objectives: &[Objective],
    ) -> Option<(Objectives, Vec<f64>)> {
        let known = objectives_at(row, objectives, row.fidelity)?;
        let mut values = known.values().to_vec();
        let mut variances = vec![0.0; values.len()];
        let kin = Kin::of(row);
        let below = self.steps.iter().find(|step| step.high == row.fidelity).map(|step| step.low);
        let mut before = below
            .and_then(|tokens| objectives_at(row, objectives, tokens))
            .map(|values| values.values().to_vec());
        for step in self.steps.iter().filter(|step| step.low >= row.fidelity) {
            let from = values.clone();
            for (at, model) in step.models.iter().enumerate() {
                let Some(model) = model else { continue };
                let gain = before.as_ref().map(|before| before[at] - from[at]);
                let (change, deviation) = model.at(from[at], gain, &kin);
                values[at] += change;
                variances[at] = variances[at] * model.slope().powi(2) + deviation.powi(2);
            }
            before = Some(from);
        }
        let deviations = variances.into_iter().map(f64::sqrt).collect();
        Some((Objectives::new(values).unwrap_or(known), deviations))
    }
}

/// From one rung to the next: a model for each objective; none for those that training does not change, or of which
/// nothing is known.
#[derive(Debug, Clone)]
struct Step {
    low: u64,
    high: u64,
    models: Vec<Option<Change>>,
}

impl Step {
    /// To the last of `rungs`.
    fn new<'a>(
        rungs: &[u64],
        objectives: &[Objective],
        rows: &(impl Iterator<Item = &'a Candidate> + Clone),
    ) -> Self {
        let [.., low, high] = rungs[..] else { panic!("a step has two rungs") };
        let models = objectives
            .iter()
            .map(|objective| {
                let (seen, lows) = observed(rungs, objective, rows);
                Change::new(&seen, &lows)
            })
            .collect();
        Self { low, high, models }
    }
}

/// The value that training from the candidate's own seed gave an objective, as it is minimised.
fn of_own_seed(row: &Candidate, objective: &Objective, tokens: u64) -> Option<f64> {
    let trained = row.trained.iter().find(|t| t.tokens == tokens && t.seed == row.seed)?;
    objective.minimised(&trained.values)
}

/// A candidate with its value at two rungs, and at the one before them.
#[derive(Debug, Clone)]
struct Seen {
    kin: Kin,
    before: Option<f64>,
    low: f64,
    high: f64,
}

/// The candidates that were trained for the last two of `lengths`, and the values of all at the last but one.
fn observed<'a>(
    lengths: &[u64],
    objective: &Objective,
    rows: &(impl Iterator<Item = &'a Candidate> + Clone),
) -> (Vec<Seen>, Vec<f64>) {
    let [.., low, high] = lengths[..] else { panic!("a step has two lengths") };
    let below = lengths.len().checked_sub(3).map(|at| lengths[at]);
    let at = |row: &Candidate, tokens: u64| of_own_seed(row, objective, tokens);
    let seen = |row: &Candidate| {
        let (low, high) = (at(row, low)?, at(row, high)?);
        let before = below.and_then(|tokens| at(row, tokens));
        Some(Seen { kin: Kin::of(row), before, low, high })
    };
    let lows = rows.clone().filter_map(|row| at(row, low)).collect();
    (rows.clone().filter_map(seen).collect(), lows)
}

/// What a stack is made of.
#[derive(Debug, Clone, Default)]
struct Kin {
    /// Of the layers, by mixer.
    shares: BTreeMap<&'static str, f64>,
    /// log₂ of width and depth.
    size: [f64; 2],
}

impl Kin {
    fn of(row: &Candidate) -> Self {
        let Some(stack) = row.subject.stack() else { return Self::default() };
        let layers = stack.layers();
        let mut shares = BTreeMap::new();
        for layer in layers {
            let name = layer.mixer.map_or("none", |mixer| mixer.kind().name());
            *shares.entry(name).or_insert(0.0) += 1.0 / layers.len().max(1) as f64;
        }
        let log = |n: f64| n.max(1.0).log2();
        Self { shares, size: [log(f64::from(stack.d_model())), log(layers.len() as f64)] }
    }
}

/// How a value changes from one rung to the next.
#[derive(Debug, Clone)]
struct Change {
    /// The mixers of the candidates that are known.
    mixers: Vec<&'static str>,
    has_gains: bool,
    /// Means over those candidates, of the features in their order but for the constant.
    means: Vec<f64>,
    /// Spreads likewise.
    spreads: Vec<f64>,
    regression: Regression,
}

impl Change {
    /// From the candidates that are known at both rungs, and the values of all at the lower.
    fn new(seen: &[Seen], lows: &[f64]) -> Option<Self> {
        if seen.is_empty() {
            return None;
        }
        let mixers: BTreeSet<&'static str> =
            seen.iter().flat_map(|seen| seen.kin.shares.keys().copied()).collect();
        let mixers: Vec<&'static str> = mixers.into_iter().collect();
        let has_gains = seen.iter().all(|seen| seen.before.is_some());
        let spread = deviation(lows);
        let raw: Vec<Vec<f64>> = seen
            .iter()
            .map(|seen| {
                let gain = seen.before.map(|before| before - seen.low);
                raw(&mixers, has_gains, seen.low, gain, &seen.kin)
            })
            .collect();
        let count = raw[0].len();
        let n = seen.len() as f64;
        let means: Vec<f64> =
            (0..count).map(|i| raw.iter().map(|raw| raw[i]).sum::<f64>() / n).collect();
        let column = |i: usize| raw.iter().map(|raw| raw[i]).collect::<Vec<f64>>();
        let of_value = |x: f64| if x > 0.0 { x } else { 1.0 };
        let mut spreads = vec![of_value(spread)];
        if has_gains {
            spreads.push(of_value(deviation(&column(1))));
        }
        spreads.extend(mixers.iter().map(|_| SPREADS[0]));
        spreads.extend([SPREADS[1], SPREADS[2]]);
        let [constant, loss, gain, kin] = PRECISIONS;
        let mut precisions = vec![constant, loss];
        precisions.extend(has_gains.then_some(gain));
        precisions.resize(count + 1, kin);
        let changes: Vec<f64> = seen.iter().map(|seen| seen.high - seen.low).collect();
        // One change says nothing about the scatter: as much as the change itself, if losses are all alike.
        let guess = if spread > 0.0 { SCATTER * spread } else { changes[0].abs() };
        let prior = Prior { precisions, deviation: guess, freedom: FREEDOM };
        let scaled: Vec<Vec<f64>> = raw.iter().map(|raw| standard(raw, &means, &spreads)).collect();
        let regression = Regression::new(&prior, &scaled, &changes)?;
        Some(Self { mixers, has_gains, means, spreads, regression })
    }

    fn features(&self, low: f64, gain: Option<f64>, kin: &Kin) -> Vec<f64> {
        // without a gain of its own it gains as the others do
        let gain = gain.or_else(|| self.has_gains.then(|| self.means[1]));
        let raw = raw(&self.mixers, self.has_gains, low, gain, kin);
        standard(&raw, &self.means, &self.spreads)
    }

    /// The change expected of a value, with its standard deviation.
    fn at(&self, low: f64, gain: Option<f64>, kin: &Kin) -> (f64, f64) {
        self.regression.at(&self.features(low, gain, kin))
    }

    /// The change expected of one that was seen, had it not been.
    fn without(&self, seen: &Seen) -> (f64, f64) {
        let gain = seen.before.map(|before| before - seen.low);
        let features = self.features(seen.low, gain, &seen.kin);
        self.regression.without(&features, seen.high - seen.low)
    }

    /// How much the value after the change differs with the one before.
    fn slope(&self) -> f64 {
        1.0 + self.regression.weight(1) / self.spreads[0]
    }
}

fn raw(mixers: &[&str], has_gains: bool, low: f64, gain: Option<f64>, kin: &Kin) -> Vec<f64> {
    let mut raw = vec![low];
    if has_gains {
        raw.push(gain.unwrap_or(0.0));
    }
    raw.extend(mixers.iter().map(|mixer| kin.shares.get(mixer).copied().unwrap_or(0.0)));
    raw.extend(kin.size);
    raw
}

/// With a constant before them.
fn standard(raw: &[f64], means: &[f64], spreads: &[f64]) -> Vec<f64> {
    let scaled = raw.iter().zip(means).zip(spreads).map(|((x, mean), spread)| (x - mean) / spread);
    std::iter::once(1.0).chain(scaled).collect()
}

fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt()
}

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
    /// Root mean square error of the prediction.
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

/// Candidates that a backtest needs.
const FEWEST: usize = 5;

/// The backtest of each length of training and the next, for each objective that trainers report.
pub fn backtests(rows: &[Candidate], objectives: &[Objective]) -> Vec<Backtest> {
    let trained = rows.iter().flat_map(|row| &row.trained);
    let lengths: BTreeSet<u64> = trained.map(|trained| trained.tokens).collect();
    let lengths: Vec<u64> = lengths.into_iter().collect();
    let mut found = Vec::new();
    for objective in objectives {
        for place in 1..lengths.len() {
            let (seen, lows) = observed(&lengths[..=place], objective, &rows.iter());
            if seen.len() < FEWEST {
                continue;
            }
            if let Some(change) = Change::new(&seen, &lows) {
                let (low, high) = (lengths[place - 1], lengths[place]);
                found.push(backtest(objective.name(), low, high, &seen, &change));
            }
        }
    }
    found
}

fn backtest(value: &str, fewer: u64, more: u64, seen: &[Seen], change: &Change) -> Backtest {
    let predicted: Vec<(f64, f64)> = seen
        .iter()
        .map(|seen| {
            let (change, deviation) = change.without(seen);
            (seen.low + change, deviation)
        })
        .collect();
    let right = |of: &dyn Fn(usize) -> f64| {
        let points: Vec<(f64, f64)> =
            seen.iter().enumerate().map(|(i, seen)| (of(i), seen.high)).collect();
        let order = Order::of(&points);
        order.same as f64 / (order.all - order.tied_y).max(1) as f64
    };
    let n = seen.len() as f64;
    let errors = || seen.iter().zip(&predicted).map(|(seen, (mean, _))| seen.high - mean);
    let covered = errors().zip(&predicted).filter(|(e, (_, d))| e.abs() <= NINETY * d).count();
    Backtest {
        value: value.to_owned(),
        fewer,
        more,
        candidates: seen.len(),
        right: right(&|i| seen[i].low),
        right_predicted: right(&|i| predicted[i].0),
        error: (errors().map(|e| e * e).sum::<f64>() / n).sqrt(),
        covered: covered as f64 / n,
    }
}
