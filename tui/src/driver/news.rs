//! What the driver hears of its workers.

use std::collections::VecDeque;

use search::config::Precision;
use search::wire::{Hello, Refusal, Reply, Request};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// What a slot tells the driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum News {
    /// A worker stands ready; again after each restart.
    Ready(Hello),
    /// Progress, or the final reply to the request.
    Reply(Reply),
    /// The worker failed at the request.
    Failed {
        refusal: Refusal,
        /// The last lines of its stderr.
        log: String,
    },
    /// No worker can be had in this slot: nothing the campaign could do would help.
    Broken { reason: String, log: String },
    /// A pull worker can work.
    #[serde(skip)]
    Joined(Box<Ready>),
    /// A pull worker is there.
    #[serde(skip)]
    Alive,
    /// A pull worker leaves, and has kept how far it came with this request.
    #[serde(skip)]
    HandedBack { id: u64 },
    /// The connection to a pull worker is gone.
    #[serde(skip)]
    Gone,
}

impl News {
    /// The request that these news are the end of.
    pub(crate) fn ends(&self) -> Option<u64> {
        match self {
            Self::Failed { refusal, .. } => Some(refusal.id),
            Self::Reply(reply) if !matches!(reply, Reply::Progress(_)) => id_of_reply(reply),
            Self::Reply(_)
            | Self::Ready(_)
            | Self::Broken { .. }
            | Self::Joined(_)
            | Self::Alive
            | Self::HandedBack { .. }
            | Self::Gone => None,
        }
    }
}

/// A worker that can work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) hello: Hello,
    /// Whether it sees the folder of the campaign's checkpoints; if not, they go through the connection.
    pub(crate) shares: bool,
    /// Which GPU of its machine it computes on.
    pub(crate) gpu: Option<String>,
    /// What `training.precision = "auto"` is there, where the campaign did not know it yet.
    pub(crate) precision: Option<Precision>,
    /// What it is at, or has done while there was no connection.
    pub(crate) holds: Option<Request>,
}

/// The number of a request that is answered.
pub(super) fn id_of_request(request: &Request) -> Option<u64> {
    match request {
        Request::Configure(_) | Request::Space { .. } | Request::Stop { .. } => None,
        Request::Check(request) => Some(request.id),
        Request::Evaluate(request) => Some(request.id),
        Request::Eval(request) => Some(request.id),
        Request::Measure(request) => Some(request.id),
        Request::MeasureWhole(request) => Some(request.id),
        Request::MeasureLimit(request) => Some(request.id),
    }
}

/// The request that a reply is to.
pub(super) fn id_of_reply(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Hello(_) | Reply::Space(_) => None,
        Reply::Checked(reply) => Some(reply.id),
        Reply::Values(reply) => Some(reply.id),
        Reply::Progress(reply) => Some(reply.id),
        Reply::Result(reply) => Some(reply.id),
        Reply::Timing(reply) => Some(reply.id),
        Reply::Infeasible(reply) | Reply::Failed(reply) => Some(reply.id),
    }
}

/// News of all workers, in the order in which they come; the first ones may have come before there was a campaign to hear
/// them.
pub(super) struct Inbox {
    pub(super) before: VecDeque<(usize, News)>,
    pub(super) news: mpsc::UnboundedReceiver<(usize, News)>,
}

impl Inbox {
    /// The next ones; none: no worker is left.
    pub(super) async fn next(&mut self) -> Option<(usize, News)> {
        match self.before.pop_front() {
            Some(news) => Some(news),
            None => self.news.recv().await,
        }
    }
}
