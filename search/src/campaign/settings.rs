//! What a campaign is asked to do.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::latency::{Conditions, Throughput, WholeModels};
use crate::limits::Limits;
use crate::metric::Metric;
use crate::objective::Objective;

/// What a campaign is asked to do. Everything that a resumed campaign must share with the one that began.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Seed of the proposals and of every training.
    pub seed: u64,
    /// Candidates to train, successfully or not. Those dropped before training do not count.
    pub evaluations: u32,
    /// Whether a candidate that its worker calls infeasible counts as an evaluation: where trying is what costs.
    pub refusals_count: bool,
    /// What spans the front.
    pub objectives: Vec<Objective>,
    /// Tokens of a full evaluation.
    pub tokens: u64,
    /// The tokens that count: what a candidate would be after so many is what search and front are after. At least `tokens`.
    pub target_tokens: u64,
    /// Tokens of the rungs below, ascending; none: every candidate is trained to the end.
    pub rungs: Vec<u64>,
    /// One in so many of the candidates at a rung is trained on to the next; at least 2.
    pub promote: u32,
    /// Extra trainings that measure how far results are to be trusted.
    pub trust: Plan,
    /// The latencies of a candidate: name of the value (`decode_us`, `prefill_us`, of further targets `decode_us.NAME`) and
    /// the conditions it is taken under.
    pub latencies: Vec<(String, Conditions)>,
    /// The throughput of a candidate, if it is asked for.
    pub throughput: Option<Throughput>,
    /// What values may be: before training for those known by then (`decode_us`, `parameters`, …), after it for what the
    /// trainer reports.
    pub limits: Limits,
    /// Tries of a request before its candidate fails; at least 1.
    pub attempts: u32,
    /// Failed candidates in a row after which the campaign gives up: the fault is not the candidates'.
    pub give_up_after: u32,
    /// What must not disturb what is timed.
    pub quiet: Quiet,
    /// Which candidates are timed as whole models; stacks given by name count as front members.
    pub time_whole_models: WholeModels,
    /// Latencies, and the throughput, that no timed parts tell of: every candidate is timed as a whole before it is trained.
    pub whole_only: BTreeSet<String>,
    /// Of whom the weights are kept.
    pub keep: Keep,
}

impl Settings {
    /// The names of what is timed.
    pub(super) fn timed(&self) -> Vec<String> {
        let latencies = self.latencies.iter().map(|(name, _)| name.as_str());
        let throughput = self.throughput.iter().map(|_| Metric::Throughput.name());
        latencies.chain(throughput).map(str::to_owned).collect()
    }

    /// Whether a latency of this name can be known from timed parts.
    pub(super) fn composes(&self, name: &str) -> bool {
        !self.whole_only.contains(name)
    }

    /// Whether each candidate is timed as a whole model for it before it is trained.
    pub(super) fn times_all(&self, name: &str) -> bool {
        !self.composes(name) || self.time_whole_models == WholeModels::All
    }
}

/// What must not happen while something is timed, by the names of devices in the conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quiet {
    /// Devices on which nothing is timed while something trains: those that something trains on.
    pub from_training: BTreeSet<String>,
    /// Sets of devices of which one is timed at a time: those of one machine, whose processor serves all of them.
    pub by_turns: BTreeSet<BTreeSet<String>>,
}

impl Quiet {
    /// Both at once.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            from_training: self.from_training.union(&other.from_training).cloned().collect(),
            by_turns: self.by_turns.union(&other.by_turns).cloned().collect(),
        }
    }

    /// Whether one of two different devices is not timed while the other is.
    pub(super) fn takes_turns(&self, one: &str, other: &str) -> bool {
        one != other && self.by_turns.iter().any(|of| of.contains(one) && of.contains(other))
    }
}

/// What may be spent on extra trainings, once all candidates are evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Plan {
    /// Trainings of front members from other seeds, at most.
    pub repeats: u32,
    /// Candidates trained for longer.
    pub longer: u32,
    /// Tokens of these.
    pub longer_tokens: u64,
    /// Seeds that every candidate is trained from, whatever its place; at least 1. For comparisons of a few.
    pub seeds: u32,
}

/// Of which candidates the weights are kept when nothing is trained on from them any more. What rungs and longer trainings go
/// on from is kept until then, whatever this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Of those that are or may be on the front, without what a training would go on from.
    #[default]
    Front,
    /// Of all, with what a longer training can go on from.
    All,
    /// Of none.
    None,
}
