//! One row of a campaign: a subject with all that is known of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::failure::FailureKind;
use crate::latency::Timing;
use crate::objective::{Objective, minimised};
use crate::pareto::Objectives;
use crate::subject::Subject;
use crate::value::{Name, Value, Values};
use crate::wire::LayerRetrieval;

/// One subject of a campaign with all that is known of it. This is what the store keeps and gives back.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Number in the campaign, from 1, in the order of proposal.
    pub number: u32,
    /// What it is.
    pub subject: Subject,
    /// The name of the reference stack it is; none: proposed by the search.
    pub reference: Option<String>,
    /// How it was made, e.g. `random`, `mutation of 12: layer 3 mixer gdn → swa`.
    pub origin: String,
    /// Where it stands.
    pub state: CandidateState,
    /// Trainings at this rung that failed so far. One that a kill or a stop cut off is not among them.
    pub failed_attempts: u32,
    /// Whether it is among the failures in a row that made the campaign give up: the fault was not its own, and the next run
    /// tries it again.
    pub given_up: bool,
    /// Values by name: costs at proposal, latencies when its parts are timed, the rest after training: those of its
    /// highest rung, means over the seeds where it was trained from several.
    pub values: Values,
    /// Tokens that the values were trained for: those asked for by its highest finished rung; 0 before.
    pub fidelity: u64,
    /// Its finished trainings, by tokens and seed.
    pub trained: Vec<Trained>,
    /// Times of the whole model by the name of the latency, `decode_us`, `prefill_us`: what its values say then. Of
    /// `throughput` that of a step.
    pub whole: BTreeMap<String, Timing>,
    /// Of the models that were timed as a whole twice what the first timing said, by the same names: by as much as the two
    /// differ the machine drifts.
    pub earlier: BTreeMap<String, Timing>,
    /// What the parts of the models that were timed as a whole add up to, µs, by the same names.
    pub sums: BTreeMap<String, f64>,
    /// Training loss against tokens, (tokens, nats per token).
    pub curve: Vec<(u64, f64)>,
    /// How well each layer's memory reads back what it stored, of the proxy as it was last evaluated.
    pub retrieval: Vec<LayerRetrieval>,
    /// Seed of its training.
    pub seed: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Seconds of training.
    pub train_seconds: f64,
    /// Where a longer training can go on from.
    pub checkpoint: Option<std::path::PathBuf>,
}

/// A training that came to its end, with what it reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trained {
    /// Tokens it was asked for, from its beginning: its fidelity.
    pub tokens: u64,
    /// Seed of initialisation and data order.
    pub seed: u64,
    /// What the trainer reported.
    pub values: Values,
    /// Of values on held-out text, the mean in each of so many equal parts of it, the same parts for every candidate.
    pub parts: BTreeMap<String, Vec<f32>>,
    /// Seconds, those of earlier rungs not included.
    pub seconds: f64,
}

impl Candidate {
    /// Adds a finished training, whose values outdate what is known of the same tokens and seed.
    pub(super) fn add(&mut self, trained: Trained) {
        let key = (trained.tokens, trained.seed);
        match self.trained.binary_search_by_key(&key, |t| (t.tokens, t.seed)) {
            Ok(index) => self.trained[index] = trained,
            Err(index) => self.trained.insert(index, trained),
        }
        let of_trainer: BTreeSet<&Name> =
            self.trained.iter().flat_map(|t| t.values.keys()).collect();
        self.values.retain(|name, _| !of_trainer.contains(name));
        self.values.extend(self.trained_values(self.fidelity));
    }

    /// What trainings of so many tokens reported: as it was reported for one, mean and standard error over the seeds
    /// for several.
    pub fn trained_values(&self, tokens: u64) -> Values {
        let mut seeds: BTreeMap<&Name, Vec<Value>> = BTreeMap::new();
        for trained in self.trained.iter().filter(|t| t.tokens == tokens) {
            for (name, value) in &trained.values {
                seeds.entry(name).or_default().push(*value);
            }
        }
        seeds.into_iter().map(|(name, values)| (name.clone(), over_seeds(&values))).collect()
    }

    /// What its parts add up to, µs, where it was timed as a whole model, too: campaigns of older programs, which timed none
    /// twice, kept it as the value.
    pub fn sum_us(&self, name: &str) -> Option<f64> {
        let old = || {
            let whole = self.whole.get(name).filter(|_| !self.earlier.contains_key(name))?;
            let value = self.values.get(name)?;
            (value.mean.to_bits() != whole.median_us.to_bits()).then_some(value.mean)
        };
        self.sums.get(name).copied().or_else(old)
    }

    /// Both timings of its whole model, the earlier one first, where it was timed twice.
    pub fn timed_twice(&self, name: &str) -> Option<(&Timing, &Timing)> {
        Some((self.earlier.get(name)?, self.whole.get(name)?))
    }

    /// Its values as they stood when it had been trained for so many tokens; none if it was not.
    pub fn values_at(&self, tokens: u64) -> Option<Values> {
        let trained = self.trained_values(tokens);
        if trained.is_empty() {
            return None;
        }
        let mut values = self.values.clone();
        values.extend(trained);
        Some(values)
    }

    /// Its objectives after so many tokens, as they are minimised, if it has all of them there.
    pub fn objectives_at(&self, objectives: &[Objective], tokens: u64) -> Option<Objectives> {
        if tokens == self.fidelity {
            return minimised(objectives, &self.values);
        }
        minimised(objectives, &self.values_at(tokens)?)
    }

    /// Whether it counts as an evaluation, or will: all do but those that were infeasible before a training;
    /// `refusals_count`: those too.
    pub fn is_evaluation(&self, refusals_count: bool) -> bool {
        let is_infeasible = matches!(self.state, CandidateState::Infeasible { .. });
        !is_infeasible || self.train_seconds > 0.0 || refusals_count
    }

    /// Seeds that it was trained from for so many tokens.
    pub fn seeds(&self, tokens: u64) -> usize {
        self.trained.iter().filter(|t| t.tokens == tokens).count()
    }
}

/// The mean over trainings from different seeds with its standard error, s/√n.
fn over_seeds(values: &[Value]) -> Value {
    if let [value] = values {
        return *value;
    }
    let n = values.len() as f64;
    let mean = values.iter().map(|v| v.mean).sum::<f64>() / n;
    let variance = values.iter().map(|v| (v.mean - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Value { mean, standard_error: Some((variance / n).sqrt()) }
}

/// Where a candidate stands.
#[derive(Debug, Clone, PartialEq)]
pub enum CandidateState {
    /// Proposed, waiting for its latency.
    Proposed,
    /// Within the limits, in training or waiting for it.
    Training,
    /// Trained and timed; to its end, or to the rung that its [`Candidate::fidelity`] says, from where it may go on.
    Done,
    /// Cannot be: over a limit, or its worker said so.
    Infeasible {
        /// One sentence.
        reason: String,
    },
    /// Tried and failed.
    Failed {
        /// Why, by kind.
        kind: FailureKind,
        /// One sentence.
        reason: String,
        /// The last lines of the worker's stderr.
        log: String,
    },
}

impl CandidateState {
    /// Whether nothing more will happen to it by itself.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Done | Self::Infeasible { .. } | Self::Failed { .. })
    }

    /// The word in the store and in files.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Training => "training",
            Self::Done => "done",
            Self::Infeasible { .. } => "infeasible",
            Self::Failed { .. } => "failed",
        }
    }

    /// Why it came to nothing, in one sentence.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Infeasible { reason } | Self::Failed { reason, .. } => Some(reason),
            Self::Proposed | Self::Training | Self::Done => None,
        }
    }

    /// Of what failed, the kind and the last lines of the worker's stderr.
    pub fn failure(&self) -> Option<(FailureKind, &str)> {
        match self {
            Self::Failed { kind, log, .. } => Some((*kind, log)),
            _ => None,
        }
    }
}

/// How a training goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The candidate.
    pub number: u32,
    /// Optimiser steps done.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Tokens at the end.
    pub tokens_total: u64,
    /// Training loss of the last step, nats per token.
    pub loss: f64,
    /// Training speed since the last progress.
    pub tokens_per_second: f64,
}
