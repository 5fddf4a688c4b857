//! Which candidates the table shows, and in which order.

use std::cmp::Ordering;

use db::snapshot::{Candidate, Snapshot};
use search::architecture::MixerKind;
use search::campaign::CandidateState;
use search::metric::Metric;

use crate::plot::{axes, cost};

/// What the table is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// The front first, then what it dominates, each by rising cost.
    Front,
    /// Order of proposal.
    Number,
    /// The value on the plot's y axis.
    Quality,
    /// The value on the plot's x axis.
    Cost,
    /// Parameters.
    Parameters,
}

impl Column {
    /// In the order in which a key goes through them.
    pub const ALL: [Self; 5] =
        [Self::Front, Self::Number, Self::Quality, Self::Cost, Self::Parameters];
}

/// The order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: Column,
    /// Worst first, the latest or the largest; candidates without the value stay last.
    pub descending: bool,
}

impl Default for Sort {
    fn default() -> Self {
        Self { column: Column::Front, descending: false }
    }
}

/// States that can be shown alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateFilter {
    /// Every state.
    #[default]
    All,
    /// Members of the front.
    Front,
    /// Trained and timed.
    Done,
    /// At work or waiting.
    Pending,
    /// Failed.
    Failed,
    /// Outside a limit.
    Infeasible,
}

impl StateFilter {
    /// In the order in which a key goes through them.
    pub const ALL: [Self; 6] =
        [Self::All, Self::Front, Self::Done, Self::Pending, Self::Failed, Self::Infeasible];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Front => "front",
            Self::Done => "done",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Infeasible => "infeasible",
        }
    }

    fn admits(self, candidate: &Candidate) -> bool {
        match self {
            Self::All => true,
            Self::Front => candidate.rank == Some(0),
            Self::Done => candidate.row.state == CandidateState::Done,
            Self::Pending => {
                matches!(candidate.row.state, CandidateState::Proposed | CandidateState::Training)
            }
            Self::Failed => matches!(candidate.row.state, CandidateState::Failed { .. }),
            Self::Infeasible => matches!(candidate.row.state, CandidateState::Infeasible { .. }),
        }
    }
}

/// What the table shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Candidates in these states.
    pub state: StateFilter,
    /// Stacks with at least one layer of this mixer.
    pub mixer: Option<MixerKind>,
    /// Candidates in whose number, stack, origin, reference name or id each of the words occurs.
    pub text: String,
}

impl Filter {
    /// Whether everything is shown.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn admits(&self, candidate: &Candidate) -> bool {
        let has_mixer = |kind: MixerKind| {
            candidate.row.subject.stack().is_some_and(|stack| {
                stack
                    .layers()
                    .iter()
                    .any(|layer| layer.mixer.is_some_and(|mixer| mixer.kind() == kind))
            })
        };
        self.state.admits(candidate) && self.mixer.is_none_or(has_mixer) && self.finds(candidate)
    }

    fn finds(&self, candidate: &Candidate) -> bool {
        if self.text.trim().is_empty() {
            return true;
        }
        let Candidate { row, id, .. } = candidate;
        let search::campaign::Candidate { number, subject, reference, origin, .. } = row;
        let subject = subject.words();
        let reference = reference.as_deref().unwrap_or_default();
        let text = format!("#{number} {id} {subject} {reference} {origin}").to_lowercase();
        self.text.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }
}

/// The candidates that `filter` admits, in the order of `sort`; ties in the order of proposal.
pub(super) fn rows<'a>(snapshot: &'a Snapshot, sort: Sort, filter: &Filter) -> Vec<&'a Candidate> {
    let (x, (_, y)) = (cost(&snapshot.campaign), axes(&snapshot.campaign.objectives));
    let cost = |candidate: &Candidate| x.as_ref()?.minimised(&candidate.row.values);
    let key = |candidate: &Candidate| -> (Option<f64>, Option<f64>) {
        let values = &candidate.row.values;
        match sort.column {
            Column::Front => (candidate.rank.map(f64::from), cost(candidate)),
            Column::Number => (Some(f64::from(candidate.row.number)), None),
            Column::Quality => (y.minimised(values), None),
            Column::Cost => (cost(candidate), None),
            Column::Parameters => {
                (values.get(Metric::Parameters.name()).map(|value| value.mean), None)
            }
        }
    };
    let mut rows: Vec<&Candidate> =
        snapshot.candidates.iter().filter(|c| filter.admits(c)).collect();
    rows.sort_by(|a, b| {
        let ((a0, a1), (b0, b1)) = (key(a), key(b));
        compare(a0, b0, sort.descending)
            .then_with(|| compare(a1, b1, sort.descending))
            .then(a.row.number.cmp(&b.row.number))
    });
    rows
}

fn compare(a: Option<f64>, b: Option<f64>, descending: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => {
            if descending {
                b.total_cmp(&a)
            } else {
                a.total_cmp(&b)
            }
        }
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}
