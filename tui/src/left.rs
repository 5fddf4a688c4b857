//! About how long a campaign goes on: as long for each evaluation that is left as for those that are over, and for the extra
//! trainings of `[trust]` by their tokens. As many of these are counted as there may be.
//!
//! The whole models of the front, which are timed at the end, are not in it.

use search::campaign::Candidate;
use search::campaign::trust::{Extra, Plan};
use search::config::CampaignFile;

/// Evaluations before which nothing is foretold: the first ones wait for parts that all of them are made of.
const FEWEST: f64 = 3.0;

/// What a campaign took, and what it is to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Seconds of work.
    pub seconds: f64,
    /// Evaluations that ended in them.
    pub ended: u32,
    /// Evaluations that are still to end.
    pub left: u32,
    /// Extra trainings that ended in them and that are to come, as evaluations.
    pub extra: Extra,
    /// Seconds after which no evaluation is begun; none: no such limit. Extra trainings follow all the same.
    pub limit_seconds: Option<f64>,
}

impl Pace {
    /// Seconds that the campaign goes on; none while that cannot be told, and where nothing is left.
    pub fn seconds_left(&self) -> Option<f64> {
        let Self { seconds, ended, left, extra, limit_seconds } = *self;
        let done = f64::from(ended) + extra.done;
        if left == 0 && extra.left <= 0.0 || done < FEWEST || seconds <= 0.0 {
            return None;
        }
        let each = seconds / done;
        let evaluations = each * f64::from(left);
        let evaluations =
            limit_seconds.map_or(evaluations, |limit| evaluations.min(limit.max(0.0)));
        Some(evaluations + each * extra.left)
    }
}

/// What evaluations and extra trainings are beside each other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effort {
    /// The extra trainings.
    pub trust: Plan,
    /// Tokens of a full training.
    pub tokens: u64,
    /// Those of the rungs below, ascending.
    pub rungs: Vec<u64>,
    /// One in so many goes on from a rung.
    pub promote: u32,
}

impl Effort {
    /// Of a campaign file.
    pub fn of(file: &CampaignFile) -> Self {
        Self {
            trust: file.trust(),
            tokens: file.tokens(),
            rungs: file.search.rungs.clone(),
            promote: file.search.promote,
        }
    }

    /// The extra trainings of these candidates that are over, and those to come in a campaign of so many evaluations, as
    /// evaluations of the usual length: with rungs these are shorter than a full training.
    pub fn extra<'a>(&self, evaluations: u32, rows: impl Iterator<Item = &'a Candidate>) -> Extra {
        let (mut tokens, mut share, mut below) = (0.0, 1.0, 0);
        for &rung in &self.rungs {
            tokens += share * rung.saturating_sub(below) as f64;
            share /= f64::from(self.promote.max(1));
            below = rung;
        }
        tokens += share * self.tokens.saturating_sub(below) as f64;
        let usual = (tokens / self.tokens.max(1) as f64).max(f64::MIN_POSITIVE);
        let extra = self.trust.extra(self.tokens, rows, share * f64::from(evaluations));
        Extra { done: extra.done / usual, left: extra.left / usual }
    }
}

/// In words that claim no more than is known: `about 40 s left`, `about 6 min left`, `about 2.5 h left`, `about 3 d left`.
pub fn words(seconds: f64) -> String {
    let (minutes, hours) = (seconds / 60.0, seconds / 3600.0);
    let about = if seconds < 10.0 {
        return "a few seconds left".to_owned();
    } else if minutes < 1.5 {
        format!("{:.0} s", 10.0 * (seconds / 10.0).round())
    } else if minutes < 99.5 {
        format!("{minutes:.0} min")
    } else if hours < 9.75 {
        let halves = (2.0 * hours).round() / 2.0;
        format!("{halves} h")
    } else if hours < 47.5 {
        format!("{hours:.0} h")
    } else {
        format!("{:.0} d", hours / 24.0)
    };
    format!("about {about} left")
}
