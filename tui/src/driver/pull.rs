//! Workers that come by themselves: over TCP, with a token, to a coordinator that drives a campaign. What it asks of them and
//! what they say is what driver and children say to each other; around it are leases and acknowledgements.
//!
//! An evaluation may be done more than once, and is recorded once: a worker keeps its answer until the coordinator says that
//! it is written down, and says after each connection what it still holds; the campaign takes the answer to a request that it
//! waits for, and no other.

mod calling;
pub(crate) mod home;
pub(crate) mod link;
pub(crate) mod listener;
mod outfit;
pub(crate) mod post;
pub(crate) mod tls;
pub(crate) mod whereabouts;
pub(crate) mod worker;

use std::path::PathBuf;

use search::config::Precision;
use search::wire::{Configure, Request};
use serde::{Deserialize, Serialize};

use super::news::{News, Ready};
use super::spec::Role;

/// The version of what is said around the wire protocol.
pub(crate) const VERSION: u32 = 2;

/// The first message of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Join {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The secret of the token.
    pub(crate) secret: String,
    /// Tells it from all other workers, for as long as it lives.
    pub(crate) worker: String,
    /// Its machine.
    pub(crate) host: String,
    /// What it does.
    pub(crate) role: Role,
    /// Of who times, the target; none: `[latency]` itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// It can work.
    Ready(Box<Ready>),
    /// What its child says.
    News(News),
    /// It leaves, and has kept how far it came with this request.
    HandsBack { id: u64 },
    /// It is there: renews its lease.
    Alive,
}

/// To a worker.
#[derive(Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "few are on their way at a time")]
pub(crate) enum ToWorker {
    /// Who it is to be.
    Welcome(Box<Welcome>),
    /// It cannot be used.
    Refused { reason: String },
    /// A request to its child.
    Order(Request),
    /// The answer to this request is written down, or not wanted any more: it need not be kept.
    Heard { id: u64 },
    /// The coordinator is there.
    Alive,
    /// The campaign is finished.
    Farewell,
}

/// What a worker must know before it works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) configure: Configure,
    /// Whether a command of the user's does it, which each worker is given on its own command line.
    pub(crate) is_own: bool,
    /// The training rule of our own trainer.
    pub(crate) rule: u32,
    /// A child that says nothing for so long has failed.
    pub(crate) silence_s: f64,
    /// What one request may take.
    pub(crate) wall_s: Option<f64>,
    /// What a child may use.
    pub(crate) memory_gb: Option<f64>,
    /// Who is not heard of for so long is taken for lost, by either side.
    pub(crate) lease_s: f64,
    /// A file in the folder of the checkpoints, and what it holds: who sees it shares the folder.
    pub(crate) mark: (PathBuf, String),
}

impl Welcome {
    /// With what `training.precision = "auto"` is, where that is known by now.
    pub(crate) fn settled(mut self, precision: Option<Precision>) -> Self {
        if let (Some(training), Some(precision)) = (&mut self.configure.training, precision)
            && training.precision == Precision::Auto
        {
            training.precision = precision;
        }
        self
    }
}
