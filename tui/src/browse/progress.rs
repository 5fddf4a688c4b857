//! How far a campaign is.

use std::cell::Cell;

use db::snapshot::{CampaignState, Counts, Snapshot};
use search::campaign::trust::Extra;
use search::config::CampaignFile;

use super::rows::{Version, version};
use crate::left::{Effort, Pace};

/// How far it was when it was last counted: all candidates are gone through once for each of its versions.
#[derive(Debug, Clone, Default)]
pub struct Progress(Cell<Option<(Version, Counted)>>);

/// What is counted.
#[derive(Debug, Clone, Copy)]
struct Counted {
    candidates: Counts,
    extra: Extra,
    /// Those that it may take.
    hours: Option<f64>,
}

impl Counted {
    fn of(snapshot: &Snapshot, candidates: Counts) -> Self {
        // A black box has another kind of file.
        let file = CampaignFile::parse(&snapshot.campaign.config_toml).ok();
        let rows = snapshot.candidates.iter().map(|candidate| &candidate.row);
        let extra =
            |file: &CampaignFile| Effort::of(file).extra(snapshot.campaign.evaluations, rows);
        Self {
            candidates,
            extra: file.as_ref().map(extra).unwrap_or_default(),
            hours: file.and_then(|file| file.search.hours),
        }
    }
}

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
        Self(Cell::new(Some((version(snapshot), Counted::of(snapshot, counts)))))
    }

    pub(super) fn of(&self, snapshot: &Snapshot) -> Far {
        let now = version(snapshot);
        let campaign = &snapshot.campaign;
        let known = self.0.get().filter(|(of, _)| *of == now).map(|(_, counted)| counted);
        let counted =
            known.unwrap_or_else(|| Counted::of(snapshot, Counts::of(&snapshot.candidates)));
        self.0.set(Some((now, counted)));
        let Counted { candidates, extra, hours } = counted;
        let Counts { all, done, failed, infeasible } = candidates;
        let ended = (failed + done) as u32;
        let seconds = campaign.active_seconds;
        let per_minute = (ended > 0 && seconds > 1.0).then(|| f64::from(ended) / seconds * 60.0);
        let left = campaign.evaluations.saturating_sub(ended);
        let limit_seconds = hours.map(|hours| 3600.0 * hours - seconds);
        let is_running = campaign.state == CampaignState::Running;
        let pace = Pace { seconds, ended, left, extra, limit_seconds };
        let left_seconds = pace.seconds_left().filter(|_| is_running);
        Far { all, ended, failed, infeasible, per_minute, left_seconds }
    }
}
