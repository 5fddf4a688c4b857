//! Why an attempt fails, by kind: what to do differs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why an attempt at an evaluation or a timing came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There was too little memory, of the machine or of a GPU, or more than allowed was used.
    OutOfMemory,
    /// The loss went up, or is no number any more.
    Diverged,
    /// It took longer than it may, or was silent for too long.
    Timeout,
    /// The worker ended without a word.
    Crashed,
    /// The worker said what the protocol does not have.
    Protocol,
    /// The worker cannot work as it is set up.
    Setup,
    /// What came out cannot be used.
    Invalid,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::OutOfMemory,
        Self::Diverged,
        Self::Timeout,
        Self::Crashed,
        Self::Protocol,
        Self::Setup,
        Self::Invalid,
    ];

    /// The words in the store and on screens.
    pub fn words(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out of memory",
            Self::Diverged => "diverged",
            Self::Timeout => "timeout",
            Self::Crashed => "crashed",
            Self::Protocol => "protocol",
            Self::Setup => "setup",
            Self::Invalid => "invalid",
        }
    }

    /// The inverse of [`Self::words`].
    pub fn of_words(words: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.words() == words)
    }

    /// The kind of a failure of which a worker says no more than a sentence, and of one from before kinds were kept.
    pub fn guessed(reason: &str, log: &str) -> Self {
        let says = |words: &[&str]| {
            let in_text = |text: &str| words.iter().any(|word| text.contains(word));
            in_text(&reason.to_lowercase()) || log.lines().any(|line| in_text(&line.to_lowercase()))
        };
        if says(&[
            "out of memory",
            "outofmemory",
            "memoryerror",
            "bad_alloc",
            "cannot allocate memory",
        ]) {
            Self::OutOfMemory
        } else if says(&["diverged"]) {
            Self::Diverged
        } else {
            Self::Crashed
        }
    }

    /// What to do about a campaign that fails by it again and again.
    pub fn advice(self) -> &'static str {
        match self {
            Self::OutOfMemory => {
                "lower training.batch, training.sequence_length or search.concurrency, bound `parameters` in \
                 search.limits, or raise evaluator.memory_gb"
            }
            Self::Diverged => "lower training.learning_rate, or leave it to the training rule",
            Self::Timeout => {
                "raise evaluator.hours or evaluator.timeout_seconds, or lower training.tokens; a worker that hangs says \
                 where in its log"
            }
            Self::Crashed => "the last lines of the worker's log say where it ended",
            Self::Protocol => {
                "the worker must write one JSON message a line to stdout and nothing else; its log belongs on stderr"
            }
            Self::Setup => {
                "mend what the worker says it cannot use; deltafront doctor shows what is there"
            }
            Self::Invalid => {
                "the worker must report every objective and limit of the campaign file, as finite numbers"
            }
        }
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words())
    }
}
