//! How far a campaign is.

use std::cell::Cell;

use db::snapshot::{CampaignState, Counts, Snapshot};

use super::rows::{Version, version};

/// How far it was when it was last counted: all candidates are gone through once for each of its versions.
#[derive(Debug, Clone, Default)]
pub struct Progress(Cell<Option<(Version, Counts)>>);

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
    pub(super) eta_seconds: Option<f64>,
}

impl Progress {
    /// Of a snapshot that has only some of the candidates that were counted.
    pub(super) fn counted(snapshot: &Snapshot, counts: Counts) -> Self {
        Self(Cell::new(Some((version(snapshot), counts))))
    }

    pub(super) fn of(&self, snapshot: &Snapshot) -> Far {
        let now = version(snapshot);
        let known = self.0.get().filter(|(of, _)| *of == now);
        let (_, counts) = known.unwrap_or_else(|| (now, Counts::of(&snapshot.candidates)));
        self.0.set(Some((now, counts)));
        let Counts { all, done, failed, infeasible } = counts;
        let ended = (failed + done) as u32;
        let campaign = &snapshot.campaign;
        let per_minute = (ended > 0 && campaign.active_seconds > 1.0)
            .then(|| f64::from(ended) / campaign.active_seconds * 60.0);
        let left = campaign.evaluations.saturating_sub(ended);
        let eta_seconds = per_minute
            .filter(|_| campaign.state == CampaignState::Running && left > 0)
            .map(|rate| f64::from(left) / rate * 60.0);
        Far { all, ended, failed, infeasible, per_minute, eta_seconds }
    }
}
