//! What a candidate's own curve and its kin say of its loss after more tokens: a linear regression of the change from one
//! length of training to the next, on the loss, on what the length before gained, and on what the stack is made of. Stacks of
//! one kind move alike: attention learns to look back late, Mamba2 gains early and less afterwards. Beyond what anybody was
//! trained for the change is believed to go on as before, less by a power law, with an error to match.
//!
//! On 25 stacks, each left out in turn, such predictions from 1/64, 1/16 and 1/4 of the tokens order 0.83, 0.91 and 0.93 of
//! the pairs rightly, where the losses alone order 0.71, 0.83 and 0.94 (docs/studies/prediction.md).

mod backtest;
mod change;
mod kin;

use std::collections::BTreeSet;

pub use backtest::{Backtest, backtests};
use change::{Change, Observed};
use kin::Kin;

use super::candidate::Candidate;
use super::drift::Drift;
use super::measured;
use super::noise::Noise;
use crate::objective::Objective;
use crate::pareto::Objectives;
use crate::value::{Value, Values};

/// From each length that candidates were trained for to the next, up to the tokens that count.
#[derive(Debug, Clone)]
pub struct Predictor<'a> {
    objectives: &'a [Objective],
    target: u64,
    steps: Vec<Step>,
    /// Between seeds at the target, of each objective.
    seeds: Vec<(f64, usize)>,
    /// How far the machine drifts, of each objective that is timed.
    drifts: Vec<Drift>,
    /// Parts of the text, the first of the variables that errors share, of each objective.
    parts: Vec<usize>,
}

/// What the objectives of a candidate are expected to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// As they are minimised.
    pub objectives: Objectives,
    /// The error of each.
    pub noises: Vec<Noise>,
    /// Whether they are foretold, not measured.
    pub is_foretold: bool,
}

impl Expected {
    /// Those that are foretold or trained, by name, as they are measured, each with its whole error.
    pub fn values(&self, objectives: &[Objective]) -> Values {
        let all = objectives.iter().zip(self.objectives.values()).zip(&self.noises);
        all.map(|((objective, number), noise)| (objective, number, noise.total()))
            .filter(|(objective, _, error)| *error > 0.0 && !objective.is_known_before_training())
            .map(|(objective, number, error)| {
                let value = Value { mean: objective.turned(*number), standard_error: Some(error) };
                (objective.name().into(), value)
            })
            .collect()
    }
}

impl<'a> Predictor<'a> {
    /// To what the candidates would be after `target` tokens.
    pub fn new<'r>(
        objectives: &'a [Objective],
        target: u64,
        rows: &(impl Iterator<Item = &'r Candidate> + Clone),
    ) -> Self {
        let mut lengths: BTreeSet<u64> = rows
            .clone()
            .flat_map(|row| row.trained.iter().map(|trained| trained.tokens))
            .filter(|&tokens| tokens <= target)
            .collect();
        // from one length alone nothing tells how losses fall
        if lengths.len() > 1 {
            lengths.insert(target);
        }
        let lengths: Vec<u64> = lengths.into_iter().collect();
        let mut steps: Vec<Step> = Vec::new();
        for at in 1..lengths.len() {
            let step = Step::new(&lengths[..=at], objectives, rows, steps.last());
            steps.push(step);
        }
        let parts = objectives
            .iter()
            .map(|objective| {
                let of = |row: &Candidate| {
                    let parts = row.trained.iter().filter_map(|t| t.parts.get(objective.name()));
                    parts.map(Vec::len).max().unwrap_or(0)
                };
                // where nothing is foretold they have their variables to themselves
                if steps.is_empty() { 0 } else { rows.clone().map(of).max().unwrap_or(0) }
            })
            .collect();
        let seeds = measured::seed_deviations(rows, objectives, target);
        let drift = |objective: &Objective| Drift::of_rows(rows.clone(), objective.name());
        let drifts = objectives.iter().map(drift).collect();
        Self { objectives, target, steps, seeds, drifts, parts }
    }

    /// Whether what was trained for so many tokens is foretold, not measured.
    pub fn foretells(&self, tokens: u64) -> bool {
        self.steps.iter().any(|step| step.low >= tokens)
    }

    /// What is expected of a candidate, from its longest training from its own seed; none while it lacks an objective there.
    pub fn of(&self, row: &Candidate) -> Option<Expected> {
        let own = row.trained.iter().filter(|t| t.seed == row.seed && t.tokens <= self.target);
        let from = own.map(|t| t.tokens).max().map_or(row.fidelity, |of| of.max(row.fidelity));
        let known = row.objectives_at(self.objectives, from)?;
        let mut values = known.values().to_vec();
        let mut noises = self.measured(row, from);
        let kin = if self.steps.is_empty() { Kin::default() } else { Kin::of(row) };
        let below = self.steps.iter().find(|step| step.high == from).map(|step| step.low);
        let mut before = below
            .and_then(|tokens| row.objectives_at(self.objectives, tokens))
            .map(|values| values.values().to_vec());
        let mut first = self.parts.clone();
        let mut is_foretold = false;
        for step in &self.steps {
            let lows = values.clone();
            for (at, model) in step.models.iter().enumerate() {
                let Some(model) = model else { continue };
                if step.low >= from {
                    let gain = before.as_ref().map(|before| before[at] - lows[at]);
                    let (change, shared, deviation) = model.at(lows[at], gain, &kin);
                    values[at] += change;
                    let noise = std::mem::take(&mut noises[at]).scaled(model.slope());
                    noises[at] = noise.and_own(deviation).and_shared(first[at], &shared);
                    is_foretold = true;
                }
                first[at] += model.features_count();
            }
            if step.low >= from {
                before = Some(lows);
            }
        }
        let objectives = Objectives::new(values).ok()?;
        Some(Expected { objectives, noises, is_foretold })
    }

    /// The errors of what is expected of a candidate that was trained for so many tokens.
    pub(super) fn noises(&self, row: &Candidate, tokens: u64) -> Option<Vec<Noise>> {
        if self.foretells(tokens) {
            return Some(self.of(row)?.noises);
        }
        Some(self.measured(row, tokens))
    }

    /// The errors of what was measured; where it is foretold from, the scatter of changes has those of seed and rate.
    fn measured(&self, row: &Candidate, tokens: u64) -> Vec<Noise> {
        let of = |(at, objective): (usize, &Objective)| {
            let mut noise =
                measured::noise(row, objective, tokens, self.seeds[at], self.drifts[at]);
            let foretells = |step: &Step| step.low >= tokens && step.models[at].is_some();
            if self.steps.iter().any(foretells) {
                noise.own = 0.0;
            }
            noise
        };
        self.objectives.iter().enumerate().map(of).collect()
    }

    /// What all expectations from `tokens` share, of the mean of the candidates: no pair differs by it.
    pub(super) fn common(&self, tokens: u64) -> Vec<Noise> {
        let mut first = self.parts.clone();
        let mut noises = vec![Noise::default(); self.objectives.len()];
        for step in &self.steps {
            for (at, model) in step.models.iter().enumerate() {
                let Some(model) = model else { continue };
                if step.low >= tokens {
                    let noise = std::mem::take(&mut noises[at]).scaled(model.slope());
                    noises[at] = noise.and_shared(first[at], &model.at_mean());
                }
                first[at] += model.features_count();
            }
        }
        noises
    }
}

/// From one length to the next: a model for each objective; none for those that training does not change, or of which
/// nothing is known.
#[derive(Debug, Clone)]
struct Step {
    low: u64,
    high: u64,
    models: Vec<Option<Change>>,
}

impl Step {
    /// To the last of `lengths`, after the step `before`.
    fn new<'a>(
        lengths: &[u64],
        objectives: &[Objective],
        rows: &(impl Iterator<Item = &'a Candidate> + Clone),
        before: Option<&Self>,
    ) -> Self {
        let [.., low, high] = lengths[..] else { panic!("a step has two lengths") };
        let models = objectives
            .iter()
            .enumerate()
            .map(|(at, objective)| {
                let before = before.and_then(|before| before.models[at].as_ref());
                Change::new(&Observed::new(lengths, objective, rows), before)
            })
            .collect();
        Self { low, high, models }
    }
}
