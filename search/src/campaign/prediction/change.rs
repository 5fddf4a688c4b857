//! How a value changes from one length of training to the next, by regression over the candidates that have both. Where
//! hardly any has, it is believed to change as it did from the length before, less by a power law.

use std::collections::BTreeSet;

use super::kin::Kin;
use crate::campaign::candidate::Candidate;
use crate::objective::Objective;
use crate::regression::{Prior, Regression};

/// How strongly weights are held: of the constant; of the loss, for what it changes by; of the gain before; of kin.
const PRECISIONS: [f64; 4] = [1e-3, 0.1, 1.0, 1.0];

/// How strongly kin are held to what they did before.
const OF_KIN: f64 = 3.0;

/// Spreads that features are measured in, where the candidates that are known would give too few: of the share of layers
/// that a mixer has, of log₂ of the width, of log₂ of the depth.
const SPREADS: [f64; 3] = [0.3, 0.6, 0.5];

/// The scatter of changes over the spread of losses, before any change is known.
const SCATTER: f64 = 0.25;

/// The observations that this guess is worth.
const FREEDOM: f64 = 1.0;

/// What is left to gain falls as tokens^-α: of 37 stacks on two texts the mean gains at four times the tokens are 0.52,
/// 0.72, 0.58 and 0.64 of those before, 4^-α = 0.62 (`tools/truth_table`) …
const EXPONENT: f64 = 0.345;

/// … within this part.
const SHIFT: f64 = 0.16;

/// The part of that fall by which what kin gained beyond others is believed to go on.
const GOES_ON: f64 = 0.5;

/// Candidates that were trained for both lengths, from which on these alone tell how values change: what was before helps
/// no more then (docs/studies/prediction.md).
pub(super) const ENOUGH: usize = 5;

/// A candidate with its value at a length, at the one before, and at the next.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) kin: Kin,
    pub(super) before: Option<f64>,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// The value that training from the candidate's own seed gave an objective, as it is minimised.
fn of_own_seed(row: &Candidate, objective: &Objective, tokens: u64) -> Option<f64> {
    let trained = row.trained.iter().find(|t| t.tokens == tokens && t.seed == row.seed)?;
    objective.minimised(&trained.values)
}

/// What candidates were at the last two of some lengths of training.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    /// Those that have both.
    pub(super) seen: Vec<Seen>,
    /// The values of all at the last but one.
    lows: Vec<f64>,
    /// Those that went no further, where none has both.
    left: Vec<Seen>,
    /// The last three lengths.
    lengths: (Option<u64>, u64, u64),
}

impl Observed {
    pub(super) fn new<'a>(
        lengths: &[u64],
        objective: &Objective,
        rows: &(impl Iterator<Item = &'a Candidate> + Clone),
    ) -> Self {
        let [.., low, high] = lengths[..] else { panic!("a step has two lengths") };
        let below = lengths.len().checked_sub(3).map(|at| lengths[at]);
        let at = |row: &Candidate, tokens: u64| of_own_seed(row, objective, tokens);
        let with = |row: &Candidate, low: f64, high: f64| {
            let before = below.and_then(|tokens| at(row, tokens));
            Seen { kin: Kin::of(row), before, low, high }
        };
        let both = |row: &Candidate| Some(with(row, at(row, low)?, at(row, high)?));
        let seen: Vec<Seen> = rows.clone().filter_map(both).collect();
        let one = |row: &Candidate| at(row, low).map(|low| with(row, low, f64::NAN));
        let left =
            if seen.is_empty() { rows.clone().filter_map(one).collect() } else { Vec::new() };
        let lows = rows.clone().filter_map(|row| at(row, low)).collect();
        Self { seen, lows, left, lengths: (below, low, high) }
    }

    /// Whether more tokens changed nothing for anybody: a task that is learnt beside the text, of its own tokens, stays what
    /// it is.
    fn is_unchanged(&self) -> bool {
        !self.seen.is_empty() && self.seen.iter().all(|seen| seen.high.total_cmp(&seen.low).is_eq())
    }
}

/// How a value changes from one length to the next.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// The mixers of the candidates that are known.
    mixers: Vec<&'static str>,
    has_gains: bool,
    /// Means over those candidates, of the features in their order but for the constant.
    means: Vec<f64>,
    /// Spreads likewise.
    spreads: Vec<f64>,
    /// The mean change of those that were seen, or the one expected.
    mean: f64,
    regression: Regression,
}

impl Change {
    /// From what was seen, and the change `before` it; none while nothing is known of either, or nothing changes.
    pub(super) fn new(observed: &Observed, before: Option<&Self>) -> Option<Self> {
        let Observed { seen, lows, left, lengths } = observed;
        let before = before.filter(|_| seen.len() < ENOUGH);
        let basis = if seen.is_empty() && before.is_some() { left } else { seen };
        if basis.is_empty() || observed.is_unchanged() {
            return None;
        }
        let of_basis = basis.iter().flat_map(|seen| seen.kin.shares.keys().copied());
        let of_before = before.iter().flat_map(|before| before.mixers.iter().copied());
        let mixers: BTreeSet<&'static str> = of_basis.chain(of_before).collect();
        let mixers: Vec<&'static str> = mixers.into_iter().collect();
        let has_gains = basis.iter().all(|seen| seen.before.is_some());
        let spread = deviation(lows);
        let raw: Vec<Vec<f64>> = basis
            .iter()
            .map(|seen| raw(&mixers, has_gains, seen.low, seen.gain(), &seen.kin))
            .collect();
        let (means, spreads) = scales(&raw, has_gains, spread, mixers.len());
        let changes: Vec<f64> = seen.iter().map(|seen| seen.high - seen.low).collect();
        let mean_seen = changes.iter().sum::<f64>() / changes.len().max(1) as f64;
        let [constant, loss, gain, kin] = PRECISIONS;
        let mut precisions = vec![constant, loss];
        precisions.extend(has_gains.then_some(gain));
        let first = precisions.len();
        let mut prior = if let Some(before) = before {
            precisions.resize(means.len() + 1, OF_KIN);
            let fall = fall(*lengths);
            let deviation = before.regression.deviation();
            let mut weights = vec![0.0; precisions.len()];
            weights[0] = fall * before.mean;
            precisions[0] = (deviation / (SHIFT * weights[0])).powi(2).clamp(constant, 1e3);
            before.hand_on(GOES_ON * fall, &mixers, &mut weights[first..]);
            Prior { means: weights, precisions, deviation, freedom: FREEDOM }
        } else {
            precisions.resize(means.len() + 1, kin);
            // One change says nothing about the scatter: as much as the change itself, if losses are all alike.
            let deviation = if spread > 0.0 { SCATTER * spread } else { changes[0].abs() };
            Prior { means: vec![0.0; precisions.len()], precisions, deviation, freedom: FREEDOM }
        };
        let mean = if seen.is_empty() { prior.means[0] } else { mean_seen };
        if !prior.deviation.is_finite() || prior.deviation <= 0.0 {
            prior.deviation = f64::MIN_POSITIVE;
        }
        let scaled = raw.iter().map(|raw| standard(raw, &means, &spreads));
        // of those that went no further there are no changes
        let regression = Regression::new(prior, scaled.zip(changes).collect())?;
        Some(Self { mixers, has_gains, means, spreads, mean, regression })
    }

    /// A part of the weights of kin: of mixers, of width and depth.
    fn hand_on(&self, part: f64, mixers: &[&'static str], weights: &mut [f64]) {
        let first = 1 + usize::from(self.has_gains) + 1;
        let of_mixer = |mixer: &&'static str| self.mixers.iter().position(|own| own == mixer);
        let of_mixers = mixers.iter().map(|mixer| of_mixer(mixer).map(|place| first + place));
        let size = first + self.mixers.len();
        let places = of_mixers.chain([Some(size), Some(size + 1)]);
        for (weight, place) in weights.iter_mut().zip(places) {
            *weight = place.map_or(0.0, |place| part * self.regression.weight(place));
        }
    }

    fn features(&self, low: f64, gain: Option<f64>, kin: &Kin) -> Vec<f64> {
        // without a gain of its own it gains as the others do
        let gain = gain.or_else(|| self.has_gains.then(|| self.means[1]));
        let raw = raw(&self.mixers, self.has_gains, low, gain, kin);
        standard(&raw, &self.means, &self.spreads)
    }

    /// The change expected of a value, with what all such expectations share and the standard deviation of the rest.
    pub(super) fn at(&self, low: f64, gain: Option<f64>, kin: &Kin) -> (f64, Vec<f64>, f64) {
        let features = self.features(low, gain, kin);
        let shared = self.regression.loadings(&features);
        (self.regression.at(&features), shared, self.regression.deviation())
    }

    /// What expectations share, of the mean of the candidates that are known.
    pub(super) fn at_mean(&self) -> Vec<f64> {
        let mut features = vec![0.0; self.features_count()];
        features[0] = 1.0;
        self.regression.loadings(&features)
    }

    /// Variables that expectations share.
    pub(super) fn features_count(&self) -> usize {
        self.means.len() + 1
    }

    /// The change expected of each that was seen, had it not been, with its standard deviation; none where the others say
    /// nothing of it.
    pub(super) fn left_out(&self) -> Vec<Option<(f64, f64)>> {
        self.regression.left_out()
    }

    /// How much the value after the change differs with the one before.
    pub(super) fn slope(&self) -> f64 {
        1.0 + self.regression.weight(1) / self.spreads[0]
    }
}

impl Seen {
    fn gain(&self) -> Option<f64> {
        self.before.map(|before| before - self.low)
    }
}

/// The mean change over that of the step before, by the power law; as large where there is none before.
fn fall((before, low, high): (Option<u64>, u64, u64)) -> f64 {
    let left = |tokens: u64| (tokens.max(1) as f64).powf(-EXPONENT);
    let part = |before: u64| (left(low) - left(high)) / (left(before) - left(low));
    before.map(part).filter(|part| part.is_finite()).unwrap_or(1.0)
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

/// Means of features over candidates, and the spreads that they are measured in; `spread`: of the value at the length
/// below.
fn scales(raw: &[Vec<f64>], has_gains: bool, spread: f64, mixers: usize) -> (Vec<f64>, Vec<f64>) {
    let (count, n) = (raw[0].len(), raw.len() as f64);
    let means = (0..count).map(|i| raw.iter().map(|raw| raw[i]).sum::<f64>() / n).collect();
    let of_value = |x: f64| if x > 0.0 { x } else { 1.0 };
    let mut spreads = vec![of_value(spread)];
    if has_gains {
        let gains: Vec<f64> = raw.iter().map(|raw| raw[1]).collect();
        spreads.push(of_value(deviation(&gains)));
    }
    spreads.extend(std::iter::repeat_n(SPREADS[0], mixers));
    spreads.extend([SPREADS[1], SPREADS[2]]);
    (means, spreads)
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
