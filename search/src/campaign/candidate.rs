//! One row of a campaign: a subject with all that is known of it.

use std::collections::BTreeMap;

use crate::latency::Timing;
use crate::subject::Subject;
use crate::wire::{LayerRetrieval, Value};

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
    /// Trainings that failed so far. One that a kill or a stop cut off is not among them.
    pub failed_attempts: u32,
    /// Values by name: costs at proposal, latencies when its parts are timed, the rest after training.
    pub values: BTreeMap<String, Value>,
    /// Times of the whole model by the name of the latency, `decode_us`, `prefill_us`; front members and references.
    pub whole: BTreeMap<String, Timing>,
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

/// Where a candidate stands.
#[derive(Debug, Clone, PartialEq)]
pub enum CandidateState {
    /// Proposed, waiting for its latency.
    Proposed,
    /// Within the limits, in training or waiting for it.
    Training,
    /// Trained and timed.
    Done,
    /// Cannot be: over a limit, or its worker said so.
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

impl CandidateState {
    /// Whether nothing more will happen to it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Done | Self::Infeasible { .. } | Self::Failed { .. })
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
