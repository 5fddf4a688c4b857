//! What the driver hears of its workers.

use search::wire::{Evaluate, Hello, Refusal, Reply};
use serde::{Deserialize, Serialize};

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
    Joined(Ready),
    /// A pull worker is there.
    #[serde(skip)]
    Alive,
    /// The connection to a pull worker is gone.
    #[serde(skip)]
    Gone,
}

impl News {
    /// The request that these news are the end of.
    pub(crate) fn ends(&self) -> Option<u64> {
        match self {
            Self::Failed { refusal, .. } => Some(refusal.id),
            Self::Reply(Reply::Progress(_)) => None,
            Self::Reply(reply) => id_of_reply(reply),
            Self::Ready(_) | Self::Broken { .. } | Self::Joined(_) | Self::Alive | Self::Gone => {
                None
            }
        }
    }
}

/// A worker that can work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) hello: Hello,
    /// Whether it sees the folder of the campaign's checkpoints; if not, they go through the connection.
    pub(crate) shares: bool,
    /// What it is at, or has done while there was no connection.
    pub(crate) holds: Option<Evaluate>,
}

/// The request that a reply is to.
pub(super) fn id_of_reply(reply: &Reply) -> Option<u64> {
    reply.id()
}
