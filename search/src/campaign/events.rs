//! What a campaign is told, and what it says to do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::candidate::{Candidate, Progress};
use super::settings::Quiet;
use crate::failure::FailureKind;
use crate::latency::LatencyEntry;
use crate::wire::{self, Request};

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
        /// Timings at once on each device, by its name in the conditions.
        profilers: BTreeMap<String, u32>,
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
    /// The worker at this request is lost, and with it what it was at: somebody else is asked. That is no fault of the
    /// candidate's, but for the last of many times.
    Lost {
        /// The request.
        id: u64,
    },
    /// The worker at this request leaves in order, and has kept how far it came: somebody else goes on, as often as it takes.
    HandedBack {
        /// The request.
        id: u64,
    },
    /// A worker is at this training since a run before this one, or since it was taken for lost. It goes on with it if the
    /// training is wanted and nobody else is at it; [`super::Campaign::waits_for`] says so afterwards.
    Adopted(wire::Evaluate),
    /// What must not disturb what is timed, which changes with who trains and who times.
    QuietTiming(Quiet),
    /// Something that no candidate can help is in the way, too little room on the disk say: nothing more is begun.
    Obstacle {
        /// What is in the way, and what to do.
        reason: String,
    },
    /// The time for the search is over: nothing more is proposed, what was begun is brought to its end.
    TimeOver {
        /// One sentence.
        reason: String,
    },
    /// The user wants to stop. A second one does not wait for the workers.
    StopRequested,
}

/// What to do. What an event changes in the store is written as a whole, in one transaction, before anything else is done;
/// the rest in its order.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Write this row, new or changed.
    Save(Candidate),
    /// Add a point to the curve of a row; may be lost.
    SaveProgress(Progress),
    /// Add this row to the latency table.
    SaveLatency(LatencyEntry),
    /// Remove a checkpoint that nothing goes on from any more.
    RemoveCheckpoint(PathBuf),
    /// Remove what lies beside a checkpoint for a training to go on from: none will.
    RemoveTrunk(PathBuf),
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
    /// The space holds nothing further within the limits, or the time is over.
    Exhausted {
        /// One sentence.
        reason: String,
    },
    /// The user stopped it; it can be resumed.
    Stopped,
    /// Something that no candidate can help is in the way: a name that no result has, no room for checkpoints. It can be
    /// resumed when that is mended.
    Halted {
        /// What is in the way, and what to do.
        reason: String,
    },
    /// Too many candidates failed in a row; it can be resumed when the cause is gone.
    GaveUp {
        /// The kind of all of them, if they are of one.
        kind: Option<FailureKind>,
        /// The last failure.
        reason: String,
    },
}
