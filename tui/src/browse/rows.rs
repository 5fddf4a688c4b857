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

    /// The words that are looked for.
    fn words(&self) -> Vec<String> {
        self.text.to_lowercase().split_whitespace().map(str::to_owned).collect()
    }
}

/// What is searched in: of each candidate number, id, subject, reference name and origin in small letters. To make them is
/// most of the work of a search, and they stay as they are: they are made once, while nothing else is to be done.
#[derive(Debug, Clone, Default)]
struct Texts {
    all: String,
    /// Where the text of each candidate ends.
    ends: Vec<usize>,
}

impl Texts {
    /// Makes at most so many more of them.
    fn extend(&mut self, candidates: &[Candidate], most: usize) {
        for candidate in candidates.iter().skip(self.ends.len()).take(most) {
            let Candidate { row, id, .. } = candidate;
            let search::campaign::Candidate { number, subject, reference, origin, .. } = row;
            let subject = subject.words();
            let reference = reference.as_deref().unwrap_or_default();
            let start = self.all.len();
            // Writing to a string does not fail.
            let _ = write!(self.all, "#{number} {id} {subject} {reference} {origin}");
            let text = &mut self.all[start..];
            if text.is_ascii() {
                text.make_ascii_lowercase();
            } else {
                let lower = text.to_lowercase();
                self.all.replace_range(start.., &lower);
            }
            self.ends.push(self.all.len());
        }
    }

    fn finds(&self, words: &[String], place: usize) -> bool {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        let text = &self.all[start..self.ends[place]];
        words.iter().all(|word| text.contains(word.as_str()))
    }
}

/// The order of the table as it was last asked for: a key that changes neither what is shown nor its order costs no sort,
/// and none looks at more candidates than it shows.
#[derive(Debug, Clone, Default)]
pub struct Order {
    known: RefCell<Option<Known>>,
    texts: RefCell<Texts>,
    sorts: Cell<usize>,
}

#[derive(Debug, Clone)]
struct Known {
    sort: Sort,
    filter: Filter,
    /// Whose candidates.
    of: Version,
    /// Places among the candidates, in the order of the rows.
    places: Vec<usize>,
    /// The row of each candidate; none where the filter hides it.
    rows: Vec<Option<u32>>,
}

/// Which candidates something was made of: where they lie, how many, and the revision of their campaign.
pub(super) type Version = (usize, usize, i64);

pub(super) fn version(snapshot: &Snapshot) -> Version {
    (snapshot.candidates.as_ptr() as usize, snapshot.candidates.len(), snapshot.revision)
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

    /// Makes a part of what a search needs, a few milliseconds of work; false when there is none left.
    pub(super) fn prepare(&self, snapshot: &Snapshot) -> bool {
        const PART: usize = 1000;
        let mut texts = self.texts.borrow_mut();
        texts.extend(&snapshot.candidates, PART);
        texts.ends.len() < snapshot.candidates.len()
    }

    /// How many rows there are.
    pub(super) fn count(&self, snapshot: &Snapshot, sort: Sort, filter: &Filter) -> usize {
        self.known(snapshot, sort, filter, |known| known.places.len())
    }

    /// The row of the candidate at this place; none where the filter hides it.
    pub(super) fn row(
        &self,
        snapshot: &Snapshot,
        sort: Sort,
        filter: &Filter,
        place: usize,
    ) -> Option<usize> {
        self.known(snapshot, sort, filter, |known| {
            known.rows.get(place).copied().flatten().map(|row| row as usize)
        })
    }

    /// The candidates that `filter` admits, in the order of `sort`, ties in the order of proposal: those in these rows.
    pub(super) fn rows<'a>(
        &self,
        snapshot: &'a Snapshot,
        sort: Sort,
        filter: &Filter,
        (first, most): (usize, usize),
    ) -> Vec<&'a Candidate> {
        self.known(snapshot, sort, filter, |known| {
            let places = known.places.iter().skip(first).take(most);
            places.map(|&place| &snapshot.candidates[place]).collect()
        })
    }

    fn known<T>(
        &self,
        snapshot: &Snapshot,
        sort: Sort,
        filter: &Filter,
        use_it: impl FnOnce(&Known) -> T,
    ) -> T {
        let candidates = &snapshot.candidates;
        let of = version(snapshot);
        let mut known = self.known.borrow_mut();
        let before = known.take().filter(|known| known.sort == sort && known.of == of);
        let places = match before {
            Some(same) if same.filter == *filter => return use_it(known.insert(same)),
            // A search text that grows only leaves out more.
            Some(wider) if wider.filter.is_widened_from(filter) => {
                let mut texts = self.texts.borrow_mut();
                texts.extend(candidates, usize::MAX);
                let words = filter.words();
                wider.places.into_iter().filter(|&place| texts.finds(&words, place)).collect()
            }
            _ => {
                self.sorts.set(self.sorts.get() + 1);
                self.sorted(snapshot, sort, filter)
            }
        };
        let mut rows = vec![None; candidates.len()];
        for (row, &place) in places.iter().enumerate() {
            rows[place] = Some(row as u32);
        }
        use_it(known.insert(Known { sort, filter: filter.clone(), of, places, rows }))
    }

    /// All places in their order.
    fn sorted(&self, snapshot: &Snapshot, sort: Sort, filter: &Filter) -> Vec<usize> {
        let words = filter.words();
        if !words.is_empty() {
            self.texts.borrow_mut().extend(&snapshot.candidates, usize::MAX);
        }
        let texts = self.texts.borrow();
        places(snapshot, sort, filter, |place| words.is_empty() || texts.finds(&words, place))
    }
}

fn places(
    snapshot: &Snapshot,
    sort: Sort,
    filter: &Filter,
    is_found: impl Fn(usize) -> bool,
) -> Vec<usize> {
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
    let mut rows: Vec<(Option<f64>, Option<f64>, u32, usize)> = snapshot
        .candidates
        .iter()
        .enumerate()
        .filter(|(place, candidate)| filter.admits(candidate) && is_found(*place))
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
