//! Which candidates the table shows, and in which order.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::fmt::Write as _;

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
        self.state.admits(candidate) && self.mixer.is_none_or(has_mixer)
    }

    /// Whether `other` is the same but for a longer search text.
    fn is_widened_from(&self, other: &Self) -> bool {
        (self.state, self.mixer) == (other.state, other.mixer) && other.text.starts_with(&self.text)
    }

    fn finder(&self) -> Finder {
        let words = self.text.to_lowercase().split_whitespace().map(str::to_owned).collect();
        Finder { words, text: String::new() }
    }
}

/// The words of a search, and the text of the candidate that is looked at, whose room is used again.
struct Finder {
    words: Vec<String>,
    text: String,
}

impl Finder {
    fn finds(&mut self, candidate: &Candidate) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let Candidate { row, id, .. } = candidate;
        let search::campaign::Candidate { number, subject, reference, origin, .. } = row;
        let subject = subject.words();
        let reference = reference.as_deref().unwrap_or_default();
        self.text.clear();
        // Writing to a string does not fail.
        let _ = write!(self.text, "#{number} {id} {subject} {reference} {origin}");
        if self.text.is_ascii() {
            self.text.make_ascii_lowercase();
        } else {
            self.text = self.text.to_lowercase();
        }
        self.words.iter().all(|word| self.text.contains(word))
    }
}

/// The order of the table as it was last asked for: a key that changes neither what is shown nor its order costs no sort.
#[derive(Debug, Clone, Default)]
pub struct Order {
    known: RefCell<Option<Known>>,
    sorts: Cell<usize>,
}

#[derive(Debug, Clone)]
struct Known {
    sort: Sort,
    filter: Filter,
    /// Whose candidates: where they lie, how many, and the revision of their campaign.
    of: (usize, usize, i64),
    /// Places among the candidates.
    places: Vec<usize>,
}

/// It follows from the rest of the state.
impl PartialEq for Order {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Order {
    /// How often all candidates were put in order.
    pub fn sorts(&self) -> usize {
        self.sorts.get()
    }

    /// The candidates that `filter` admits, in the order of `sort`; ties in the order of proposal.
    pub(super) fn rows<'a>(
        &self,
        snapshot: &'a Snapshot,
        sort: Sort,
        filter: &Filter,
    ) -> Vec<&'a Candidate> {
        let candidates = &snapshot.candidates;
        let of = (candidates.as_ptr() as usize, candidates.len(), snapshot.revision);
        let mut known = self.known.borrow_mut();
        let places = match known.take().filter(|known| known.sort == sort && known.of == of) {
            Some(known) if known.filter == *filter => known.places,
            // A search text that grows only leaves out more.
            Some(known) if known.filter.is_widened_from(filter) => {
                let mut finder = filter.finder();
                let places = known.places.into_iter();
                places.filter(|&place| finder.finds(&candidates[place])).collect()
            }
            _ => {
                self.sorts.set(self.sorts.get() + 1);
                places(snapshot, sort, filter)
            }
        };
        let rows = places.iter().map(|&place| &candidates[place]).collect();
        *known = Some(Known { sort, filter: filter.clone(), of, places });
        rows
    }
}

fn places(snapshot: &Snapshot, sort: Sort, filter: &Filter) -> Vec<usize> {
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
    let mut finder = filter.finder();
    let mut rows: Vec<(Option<f64>, Option<f64>, u32, usize)> = snapshot
        .candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| filter.admits(candidate) && finder.finds(candidate))
        .map(|(place, candidate)| {
            let (first, second) = key(candidate);
            (first, second, candidate.row.number, place)
        })
        .collect();
    rows.sort_unstable_by(|a, b| {
        compare(a.0, b.0, sort.descending)
            .then_with(|| compare(a.1, b.1, sort.descending))
            .then(a.2.cmp(&b.2))
            .then(a.3.cmp(&b.3))
    });
    rows.into_iter().map(|(.., place)| place).collect()
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
