//! A campaign as a state machine without clock or I/O: events in, commands out.
//!
//! The driver in `tui` owns the processes and the store. It builds a [`Campaign`] from what the store holds, tells it
//! which workers exist ([`Event::Workers`]), hands it every reply, and does what the [`Command`]s say, in their order:
//! a [`Command::Save`] is written before the request behind it is sent, so that a kill at any moment leaves a history
//! that goes on where it stood.
//!
//! The life of a candidate: proposed → its parts timed (known ones are not timed again) → over a limit? dropped before
//! a token is trained → trained, a failed attempt is repeated → done, infeasible or failed. With rungs a candidate is
//! done at the lowest one first, and is trained on when it is among the best there ([`rungs`]). When all evaluations are
//! over, extra trainings measure how far the front is to be trusted ([`trust`]), and its members are timed as whole
//! models.
//!
//! Proposals depend on the campaign's seed, the candidate's number and the earlier candidates' outcomes, never on the
//! order in which these arrived. With one trainer, a campaign that was killed and resumed proposes what it would have
//! proposed anyway.

mod candidate;
pub mod findings;
mod machine;
pub mod rungs;
mod table;
pub mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::latency::{Conditions, LatencyEntry, Throughput};
use crate::wire::{self, Request};

pub use candidate::{Candidate, CandidateState, Progress, Trained};
pub use machine::Campaign;
pub use table::LatencyTable;

/// What a campaign is asked to do. Everything that a resumed campaign must share with the one that began.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Seed of the proposals and of every training.
    pub seed: u64,
    /// Candidates to train, successfully or not. Those dropped before training do not count.
    pub evaluations: u32,
    /// Whether a candidate that its worker calls infeasible counts as an evaluation: where trying is what costs.
    pub refusals_count: bool,
    /// The objectives, see [`crate::objective`], e.g. `bits_per_byte`, `decode_us`.
    pub objectives: Vec<String>,
    /// Tokens of a full evaluation.
    pub tokens: u64,
    /// Tokens of the rungs below, ascending; none: every candidate is trained to the end.
    pub rungs: Vec<u64>,
    /// One in so many of the candidates at a rung is trained on to the next; at least 2.
    pub promote: u32,
    /// Extra trainings that measure how far results are to be trusted.
    pub trust: trust::Plan,
    /// The latencies of a candidate: name of the value (`decode_us`, `prefill_us`) and the conditions it is taken under.
    pub latencies: Vec<(String, Conditions)>,
    /// The throughput of a candidate, if it is asked for.
    pub throughput: Option<Throughput>,
    /// Largest value by name: before training for values known by then (`decode_us`, `parameters`, …), after it for
    /// what the trainer reports.
    pub limits: BTreeMap<String, f64>,
    /// Tries of a request before its candidate fails; at least 1.
    pub attempts: u32,
    /// Failed candidates in a row after which the campaign gives up: the fault is not the candidates'.
    pub give_up_after: u32,
    /// Nothing is timed while something trains: right where both use the same device.
    pub quiet_timing: bool,
    /// Whether front members, references and stacks given by name are timed as whole models at the end.
    pub time_whole_models: bool,
}

/// What the store holds of a campaign; empty for a new one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// All candidates ever saved, in any order.
    pub candidates: Vec<Candidate>,
    /// The latency table; other campaigns' rows are welcome.
    pub latencies: Vec<LatencyEntry>,
}

/// What happened. Replies to requests that the campaign does not wait for, repeats among them, change nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// How many workers stand ready, busy ones included. Nothing is sent before the first of these.
    Workers {
        /// Trainings at once.
        trainers: u32,
        /// Timings at once.
        profilers: u32,
    },
    /// A training goes on.
    Progress(wire::Progress),
    /// A training ended well.
    Result(wire::Evaluation),
    /// A black box has given the values at a point; and the seconds that it took.
    Values {
        /// What it said.
        values: wire::Values,
        /// From request to reply.
        seconds: f64,
    },
    /// A timing of a part or of a whole model ended well.
    Timing(wire::Measured),
    /// The request cannot be done, and trying again would not help.
    Infeasible(wire::Refusal),
    /// The request failed: the worker said so, said something that does not parse, was silent, or died.
    Failed {
        /// The request and the reason.
        refusal: wire::Refusal,
        /// The last lines of the worker's stderr.
        log: String,
    },
    /// The user wants to stop. A second one does not wait for the workers.
    StopRequested,
}

/// What to do. Commands are done in their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Write this row, new or changed, before doing anything behind it.
    Save(Candidate),
    /// Add a point to the curve of a row; may be lost.
    SaveProgress(Progress),
    /// Add this row to the latency table.
    SaveLatency(LatencyEntry),
    /// Remove a checkpoint that nothing goes on from any more, once the rows before it are written.
    RemoveCheckpoint(PathBuf),
    /// Send this to a worker that can do it and is idle; there is one by [`Event::Workers`]. `Stop` goes to the worker
    /// at the named request.
    Send(Request),
    /// Nothing is left to do; no command follows.
    Finish(Finish),
}

/// Why a campaign came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// All evaluations are done.
    Complete,
    /// The space holds nothing further within the limits.
    Exhausted {
        /// One sentence.
        reason: String,
    },
    /// The user stopped it; it can be resumed.
    Stopped,
    /// Too many candidates failed in a row; it can be resumed when the cause is gone.
    GaveUp {
        /// The last failure.
        reason: String,
    },
}
