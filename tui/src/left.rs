//! About how long a campaign goes on: as long for each evaluation that is left as for those that are over.
//!
//! What comes after the last evaluation, repeats from other seeds and whole models of the front, is not in it.

/// Evaluations before which nothing is foretold: the first ones wait for parts that all of them are made of.
const FEWEST: u32 = 3;

/// What a campaign took, and what it is to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Seconds of work.
    pub seconds: f64,
    /// Evaluations that ended in them.
    pub ended: u32,
    /// Evaluations that are still to end.
    pub left: u32,
    /// Seconds after which nothing more is begun; none: no such limit.
    pub limit_seconds: Option<f64>,
}

impl Pace {
    /// Seconds that the campaign goes on; none while that cannot be told, and where nothing is left.
    pub fn seconds_left(&self) -> Option<f64> {
        let Self { seconds, ended, left, limit_seconds } = *self;
        if left == 0 || ended < FEWEST || seconds <= 0.0 {
            return None;
        }
        let all = seconds / f64::from(ended) * f64::from(left);
        Some(limit_seconds.map_or(all, |limit| all.min(limit.max(0.0))))
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
