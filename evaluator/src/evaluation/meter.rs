//! How far an evaluation is.

use std::time::{Duration, Instant};

use search::wire::Progress;

/// Time between two reports of progress, at least.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Counts steps and tokens over all trainings of an evaluation, and reports now and then.
pub(super) struct Meter<'a> {
    id: u64,
    steps: u64,
    /// Seen.
    pub(super) tokens: u64,
    tokens_total: u64,
    reported_at: Instant,
    reported_tokens: u64,
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a> Meter<'a> {
    pub(super) fn new(id: u64, progress: &'a mut dyn FnMut(Progress)) -> Self {
        Self {
            id,
            steps: 0,
            tokens: 0,
            tokens_total: 0,
            reported_at: Instant::now(),
            reported_tokens: 0,
            progress,
        }
    }

    /// Counts what is to be done.
    pub(super) fn expect(&mut self, tokens: u64) {
        self.tokens_total += tokens;
    }

    /// Counts what an earlier rung has done and what is left of this one.
    pub(super) fn resume(&mut self, done: u64, left: u64) {
        self.tokens += done;
        self.reported_tokens += done;
        self.tokens_total += done + left;
    }

    pub(super) fn step(&mut self, tokens: u64, loss: f64) {
        self.steps += 1;
        self.tokens += tokens;
        let since = self.reported_at.elapsed();
        if since < PROGRESS_INTERVAL && self.tokens < self.tokens_total {
            return;
        }
        (self.progress)(Progress {
            id: self.id,
            step: self.steps,
            tokens: self.tokens,
            tokens_total: self.tokens_total,
            loss,
            tokens_per_second: (self.tokens - self.reported_tokens) as f64
                / since.as_secs_f64().max(1e-9),
        });
        (self.reported_at, self.reported_tokens) = (Instant::now(), self.tokens);
    }
}
