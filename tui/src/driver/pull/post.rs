//! What a worker is told on its command line.

use std::path::PathBuf;
use std::time::Duration;

use super::home::Home;
use super::tls::Token;
use crate::driver::spec::Role;

/// Digits of a campaign's mark in the name of the folder of its checkpoints.
const MARK: usize = 12;

/// What a worker is told on its command line.
#[derive(Debug)]
pub(crate) struct Post {
    /// `HOST:PORT`.
    pub(crate) address: String,
    pub(crate) token: Token,
    /// Without encryption.
    pub(crate) plain: bool,
    /// What it does: trains, or times.
    pub(crate) role: Role,
    /// Of who times, the target; none: `[latency]` itself.
    pub(crate) target: Option<String>,
    /// The program of a campaign that is trained, or timed, by a command of the user's.
    pub(crate) command: Option<String>,
    /// Where the text and its tokenizer lie here.
    pub(crate) corpus: Option<PathBuf>,
    pub(crate) tokenizer: Option<PathBuf>,
    /// CPU threads of a training.
    pub(crate) threads: Option<u32>,
    /// Whether checkpoints go through the connection in any case.
    pub(crate) is_apart: bool,
    /// For its log, and for checkpoints where the campaign's folder is not seen.
    pub(crate) home: Home,
    /// How long it waits for a coordinator while there is nothing to do.
    pub(crate) patience: Duration,
}

impl Post {
    /// Where checkpoints of this campaign lie that the coordinator does not see.
    pub(super) fn checkpoints(&self) -> PathBuf {
        let mark = self.token.mark();
        self.home.folder.join(format!("checkpoints-{}", mark.get(..MARK).unwrap_or(&mark)))
    }
}
