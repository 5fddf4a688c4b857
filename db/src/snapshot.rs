//! What viewers read: a campaign at one moment, as plain data. Screens and reports are functions of it.

use std::collections::{BTreeMap, BTreeSet};

use search::architecture::ArchitectureId;
use search::campaign::Trained;
use search::campaign::findings::Agreement;
use search::config::LatencyConfig;
use search::latency::Timing;
use search::subject::Subject;
use search::wire::{LayerRetrieval, Value};

/// A campaign at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The campaign itself.
    pub campaign: Campaign,
    /// Its candidates, in the order of their proposal.
    pub candidates: Vec<Candidate>,
    /// How far the orders of the candidates after fewer and after more tokens agree.
    pub agreements: Vec<Agreement>,
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
    /// The objectives, see [`search::objective`], e.g. `bits_per_byte`, `decode_us`.
    pub objectives: Vec<String>,
    /// What is timed, where, and the decode budget.
    pub latency: LatencyConfig,
    /// Tokens of a full evaluation.
    pub tokens: u64,
    /// Unix time of creation, s.
    pub created_unix_s: i64,
    /// Seconds in which a driver worked on it, all runs together.
    pub active_seconds: f64,
    /// The campaign file as it was given.
    pub config_toml: String,
}

/// How the text begins that stands in the place of the campaign file of a black box's campaign.
pub const BLACK_BOX: &str = "# Made by `deltafront optimize`.\n";

impl Campaign {
    /// Whether its candidates are points of a black box, not stacks.
    pub fn is_black_box(&self) -> bool {
        self.config_toml.starts_with(BLACK_BOX)
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

/// One subject of a campaign with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Number in the campaign, from 1, in the order of proposal.
    pub number: u32,
    /// Identity.
    pub id: ArchitectureId,
    /// What it is.
    pub subject: Subject,
    /// The name of the reference stack it is; none: proposed by the search.
    pub reference: Option<String>,
    /// How it was made, e.g. `random`, `mutation of 12: layer 3 mixer gdn → swa`.
    pub origin: String,
    /// Where it stands.
    pub state: CandidateState,
    /// Values by name: `bits_per_byte`, `validation_loss`, `decode_us`, `prefill_us`, `parameters`, `state_bytes`, ….
    pub values: BTreeMap<String, Value>,
    /// Tokens that its values were trained for; 0 before the first rung is finished.
    pub fidelity: u64,
    /// Its finished trainings, by tokens and seed: rungs, repeats from other seeds, longer ones.
    pub trained: Vec<Trained>,
    /// Decode time of the whole model, measured (front members only).
    pub decode_whole: Option<Timing>,
    /// Prefill time of the whole model, measured (front members only).
    pub prefill_whole: Option<Timing>,
    /// Of its latencies and throughput, by the names of the values, those that are sums of parts of which one was timed
    /// while other processes loaded the machine.
    pub disturbed: BTreeSet<String>,
    /// Training loss against tokens, (tokens, nats per token); grows while it trains.
    pub curve: Vec<(u64, f64)>,
    /// How well each layer's memory reads back what it stored; empty until done, or when the trainer does not say.
    pub retrieval: Vec<LayerRetrieval>,
    /// Seed of its training.
    pub seed: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Seconds of training.
    pub train_seconds: f64,
    /// Rank of non-domination among the candidates done at the highest fidelity that one has reached, 0 = the Pareto
    /// front; none for others.
    pub rank: Option<u32>,
}

/// Where a candidate stands.
#[derive(Debug, Clone, PartialEq)]
pub enum CandidateState {
    /// Proposed, waiting for its latency.
    Proposed,
    /// Within the budget, in training or waiting for it.
    Training,
    /// Trained and timed.
    Done,
    /// Cannot be: over the latency budget or outside another limit.
    Infeasible {
        /// One sentence.
        reason: String,
    },
    /// Tried and failed.
    Failed {
        /// One sentence.
        reason: String,
        /// The last lines of the worker's stderr.
        log: String,
    },
}
