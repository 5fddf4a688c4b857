//! How far a campaign is.

use std::cell::Cell;

use db::snapshot::{CampaignState, Counts, Snapshot};

use super::rows::{Version, version};
use crate::left::Pace;

/// How far it was when it was last counted, and how many hours it may take: all candidates are gone through once for each of
/// its versions.
#[derive(Debug, Clone, Default)]
pub struct Progress(Cell<Option<(Version, Counts, Option<f64>)>>);

/// It follows from the rest of the state.
impl PartialEq for Progress {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// How far a campaign is.
pub(super) struct Far {
    pub(super) all: usize,
    pub(super) ended: u32,
    pub(super) failed: usize,
    pub(super) infeasible: usize,
    pub(super) per_minute: Option<f64>,
    pub(super) left_seconds: Option<f64>,
}

impl Progress {
    /// Of a snapshot that has only some of the candidates that were counted.
    pub(super) fn counted(snapshot: &Snapshot, counts: Counts) -> Self {
        Self(Cell::new(Some((version(snapshot), counts, hours(&snapshot.campaign.config_toml)))))
    }

    pub(super) fn of(&self, snapshot: &Snapshot) -> Far {
        let now = version(snapshot);
        let campaign = &snapshot.campaign;
        let known = self.0.get().filter(|(of, ..)| *of == now);
        let (_, counts, hours) = known.unwrap_or_else(|| {
            (now, Counts::of(&snapshot.candidates), hours(&campaign.config_toml))
        });
        self.0.set(Some((now, counts, hours)));
        let Counts { all, done, failed, infeasible } = counts;
        let ended = (failed + done) as u32;
        let seconds = campaign.active_seconds;
        let per_minute = (ended > 0 && seconds > 1.0).then(|| f64::from(ended) / seconds * 60.0);
        let left = campaign.evaluations.saturating_sub(ended);
        let limit_seconds = hours.map(|hours| 3600.0 * hours - seconds);
        let is_running = campaign.state == CampaignState::Running;
        let pace = Pace { seconds, ended, left, limit_seconds };
        let left_seconds = pace.seconds_left().filter(|_| is_running);
        Far { all, ended, failed, infeasible, per_minute, left_seconds }
    }
}

/// `search.hours` of a campaign file.
fn hours(config_toml: &str) -> Option<f64> {
    let file: toml::Table = config_toml.parse().ok()?;
    let hours = file.get("search")?.get("hours")?;
    hours.as_float().or_else(|| hours.as_integer().map(|hours| hours as f64))
}
