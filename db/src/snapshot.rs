//! What viewers read: a campaign at one moment, as plain data. Screens and reports are functions of it.

use std::collections::{BTreeMap, BTreeSet};

use search::architecture::ArchitectureId;
use search::campaign::findings::Agreement;
use search::campaign::front::Contenders;
use search::campaign::prediction::Backtest;
use search::campaign::{self, CandidateState};
use search::config::LatencyConfig;
use search::latency::Timing;
use search::objective::Objective;
use search::value::{Name, Value, Values};

/// A campaign at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The campaign itself.
    pub campaign: Campaign,
    /// Its candidates, in the order of their proposal.
    pub candidates: Vec<Candidate>,
    /// How far the orders of the candidates after fewer and after more tokens agree.
    pub agreements: Vec<Agreement>,
    /// How well each length of training foretells the next.
    pub predictions: Vec<Backtest>,
    /// Seconds between the two timings of the whole models that were timed twice, on average, by the name of the latency.
    pub between_s: BTreeMap<String, f64>,
    /// Grows with every write to the campaign: equal revisions, equal snapshots.
    pub revision: i64,
}

/// A row of the campaign list.
#[derive(Debug, Clone, PartialEq)]
pub struct Campaign {
    /// Unique in the store.
    pub name: String,
    /// Where it stands.
    pub state: CampaignState,
    /// Candidates that the campaign was asked to evaluate.
    pub evaluations: u32,
    /// The seed of its proposals.
    pub seed: u64,
    /// What its candidates are.
    pub kind: CampaignKind,
    /// What spans its front.
    pub objectives: Vec<Objective>,
    /// What is timed, where, and the decode budget.
    pub latency: LatencyConfig,
    /// Tokens of a full evaluation.
    pub tokens: u64,
    /// The tokens that count: what candidates would be after so many is foretold where it is more than `tokens`.
    pub target_tokens: u64,
    /// Unix time of creation, s.
    pub created_unix_s: i64,
    /// Seconds in which a driver worked on it, all runs together.
    pub active_seconds: f64,
    /// The campaign file as it was given.
    pub config_toml: String,
}

/// What a list says of the candidates of a campaign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tally {
    /// Done, at whatever rung.
    pub done: usize,
    /// Failed.
    pub failed: usize,
    /// On the front.
    pub front: usize,
    /// The least bits per byte among the contenders for the front.
    pub best_bits_per_byte: Option<Value>,
}

/// How far the candidates of a campaign are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub all: usize,
    /// Done, at whatever rung.
    pub done: usize,
    /// Failed.
    pub failed: usize,
    /// Outside a limit.
    pub infeasible: usize,
}

impl Counts {
    /// Of these candidates.
    pub fn of(candidates: &[Candidate]) -> Self {
        let mut counts = Self { all: candidates.len(), ..Self::default() };
        for candidate in candidates {
            match candidate.row.state {
                CandidateState::Done => counts.done += 1,
                CandidateState::Failed { .. } => counts.failed += 1,
                CandidateState::Infeasible { .. } => counts.infeasible += 1,
                CandidateState::Proposed | CandidateState::Training => {}
            }
        }
        counts
    }
}

impl Campaign {
    /// Whether its candidates are points of a black box, not stacks.
    pub fn is_black_box(&self) -> bool {
        self.kind == CampaignKind::BlackBox
    }

    /// Whether the tokens that count are more than any candidate was trained for, so that its front may be foretold: who is
    /// on it is then told by all of its candidates, not by the measured values of the contenders.
    pub(crate) fn aims_beyond(&self, fidelity: i64) -> bool {
        self.target_tokens > fidelity.cast_unsigned()
    }

    /// The names of its latencies on further targets that some of these candidates have.
    pub fn values_of_targets<'c>(
        &self,
        candidates: &(impl Iterator<Item = &'c Candidate> + Clone),
    ) -> Vec<&'c str> {
        let known = |name: String| {
            let names = candidates.clone().flat_map(|of| of.row.values.keys().map(Name::as_str));
            names.into_iter().find(|known| *known == name)
        };
        self.latency.names_of_targets().filter_map(known).collect()
    }
}

/// What the candidates of a campaign are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CampaignKind {
    /// Stacks of layers, made by `deltafront run`.
    Stacks,
    /// Points of a space of parameters, made by `deltafront optimize`.
    BlackBox,
}

impl CampaignKind {
    /// As it is stored.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stacks => "stacks",
            Self::BlackBox => "black box",
        }
    }

    /// The inverse of [`CampaignKind::word`].
    pub(crate) fn of(word: &str) -> Option<Self> {
        [Self::Stacks, Self::BlackBox].into_iter().find(|kind| kind.word() == word)
    }
}

/// Where a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CampaignState {
    /// A driver is at work on it now.
    Running,
    /// Stopped before its end; `run` goes on.
    Paused,
    /// All evaluations done.
    Finished,
}

/// A candidate with what viewers show beside what the campaign knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// All that the campaign knows of it.
    pub row: campaign::Candidate,
    /// The identity of its subject.
    pub id: ArchitectureId,
    /// Of its latencies and throughput, by the names of the values, those that are sums of parts of which one was timed
    /// while other processes loaded the machine.
    pub disturbed: BTreeSet<String>,
    /// Rank of non-domination among the contenders for the front, 0 on it; none for others. See [`Contenders`].
    pub rank: Option<u32>,
    /// Of contenders whose front is foretold: their objectives after the tokens that count, by name, with the error of
    /// text, seed, rate and prediction.
    pub foretold: Values,
}

impl Snapshot {
    /// Whether its front is foretold, for the tokens that count.
    pub fn is_foretold(&self) -> bool {
        self.candidates.iter().any(|candidate| !candidate.foretold.is_empty())
    }
}

impl Candidate {
    /// The candidates of a campaign with their ranks; none of their latencies is marked as disturbed.
    pub fn of(rows: Vec<campaign::Candidate>, campaign: &Campaign) -> Vec<Self> {
        let ids = rows.iter().map(|row| row.subject.id()).collect();
        Self::with_ids(rows, ids, campaign)
    }

    /// The same, of rows whose identities are known.
    pub(crate) fn with_ids(
        rows: Vec<campaign::Candidate>,
        ids: Vec<ArchitectureId>,
        campaign: &Campaign,
    ) -> Vec<Self> {
        let contenders = Contenders::of(rows.iter(), &campaign.objectives, campaign.target_tokens);
        let foretold: Vec<Values> = if contenders.is_foretold() {
            contenders.expected().map(|expected| expected.values(&campaign.objectives)).collect()
        } else {
            Vec::new()
        };
        let mut foretold = foretold.into_iter();
        // All in the order of the rows.
        let mut ranks = contenders.ranks().into_iter().peekable();
        let mut candidates = Self::unranked(rows, ids);
        for candidate in &mut candidates {
            if let Some((_, rank)) = ranks.next_if(|(number, _)| *number == candidate.row.number) {
                candidate.rank = Some(rank);
                candidate.foretold = foretold.next().unwrap_or_default();
            }
        }
        candidates
    }

    /// Candidates whose ranks are not known yet.
    pub(crate) fn unranked(rows: Vec<campaign::Candidate>, ids: Vec<ArchitectureId>) -> Vec<Self> {
        let of = |(row, id)| Self {
            row,
            id,
            disturbed: BTreeSet::new(),
            rank: None,
            foretold: Values::new(),
        };
        rows.into_iter().zip(ids).map(of).collect()
    }

    /// What the front is made of: an objective as it is foretold, or else as it was measured.
    pub fn objective(&self, objective: &Objective) -> Option<Value> {
        self.foretold.get(objective.name()).copied().or_else(|| objective.value(&self.row.values))
    }

    /// A latency of the whole model, if that was timed.
    pub fn whole(&self, name: &str) -> Option<&Timing> {
        self.row.whole.get(name)
    }

    /// The same with what another timing may differ by, minutes later too where that is known. Of throughput, the step.
    pub fn whole_us(&self, name: &str) -> Option<Value> {
        let timed = self.whole(name)?.value();
        let is_of_it = |value: &&Value| value.mean.to_bits() == timed.mean.to_bits();
        Some(self.row.values.get(name).filter(is_of_it).copied().unwrap_or(timed))
    }
}
