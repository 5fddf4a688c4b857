//! Everything the screens are a function of.

use std::borrow::Cow;

use db::Mark;
use db::snapshot::{Campaign, Candidate, Snapshot};
use search::campaign;

use super::progress::Progress;
use super::rows::{Filter, Order, Sort};
use crate::plot::Plotted;
use crate::theme::Theme;

/// The whole state of the screens.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Colours.
    pub theme: Theme,
    /// The campaigns of the store; none: not read yet.
    pub campaigns: Option<Vec<Campaign>>,
    /// The campaign under the cursor of the chooser.
    pub chosen: usize,
    /// The campaign that is open; none: the chooser is.
    pub opened: Option<String>,
    /// What is known of the open campaign.
    pub snapshot: Option<Snapshot>,
    /// While the snapshot has only the first rows: who is in the plot.
    pub marks: Option<Vec<Mark>>,
    /// All of a candidate, where the snapshot has it in outline only: the selected one, as soon as it is read.
    pub details: Option<Box<campaign::Candidate>>,
    /// Number of the selected candidate.
    pub selected: Option<u32>,
    /// Order of the table.
    pub sort: Sort,
    /// What the table shows.
    pub filter: Filter,
    /// What has the whole screen.
    pub zoom: Zoom,
    /// Lines of the log that are scrolled away.
    pub scroll: u16,
    /// Whether keys go into the search text.
    pub typing: bool,
    /// Whether the help lies over the screen.
    pub help: bool,
    /// A sentence in the footer until the next key.
    pub notice: Option<Notice>,
    /// The order of the table, as it was last asked for.
    pub order: Order,
    /// The plot, as far as it stays the same from key to key.
    pub plotted: Plotted,
    /// How far the campaign is, as it was last counted.
    pub progress: Progress,
}

/// What has the whole screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zoom {
    /// Plot, table and details share it.
    None,
    /// The plot.
    Plot,
    /// The details of the selected candidate.
    Details,
}

/// A sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The sentence.
    pub text: String,
    /// Whether something went wrong.
    pub is_trouble: bool,
}

impl State {
    /// The start: the chooser, or at once the campaign of that name.
    pub fn new(theme: Theme, campaign: Option<String>) -> Self {
        Self {
            theme,
            campaigns: None,
            chosen: 0,
            opened: campaign,
            snapshot: None,
            marks: None,
            details: None,
            selected: None,
            sort: Sort::default(),
            filter: Filter::default(),
            zoom: Zoom::None,
            scroll: 0,
            typing: false,
            help: false,
            notice: None,
            order: Order::default(),
            plotted: Plotted::default(),
            progress: Progress::default(),
        }
    }

    /// The candidates of the table, in its order.
    pub fn rows(&self) -> Vec<&Candidate> {
        self.some_rows(0, usize::MAX)
    }

    /// Those in so many rows from the first one on.
    pub(super) fn some_rows(&self, first: usize, most: usize) -> Vec<&Candidate> {
        self.snapshot.as_ref().map_or_else(Vec::new, |snapshot| {
            self.order.rows(snapshot, self.sort, &self.filter, (first, most))
        })
    }

    /// How many rows the table has.
    pub(super) fn row_count(&self) -> usize {
        let snapshot = self.snapshot.as_ref();
        snapshot.map_or(0, |snapshot| self.order.count(snapshot, self.sort, &self.filter))
    }

    /// The row of a candidate in the table.
    pub(super) fn row_of(&self, number: Option<u32>) -> Option<usize> {
        let (snapshot, place) = (self.snapshot.as_ref()?, self.place_of(number?)?);
        self.order.row(snapshot, self.sort, &self.filter, place)
    }

    /// Does a part of what keys to come need; false when nothing is left to do.
    pub(super) fn prepare(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| self.order.prepare(snapshot))
    }

    /// Where a candidate stands among those of the snapshot.
    fn place_of(&self, number: u32) -> Option<usize> {
        let candidates = &self.snapshot.as_ref()?.candidates;
        candidates.binary_search_by_key(&number, |candidate| candidate.row.number).ok()
    }

    /// The selected candidate.
    pub fn selected(&self) -> Option<&Candidate> {
        let place = self.place_of(self.selected?)?;
        self.snapshot.as_ref()?.candidates.get(place)
    }

    /// The selected candidate with all that is known of it by now.
    pub fn detailed(&self) -> Option<Cow<'_, Candidate>> {
        let candidate = self.selected()?;
        Some(match &self.details {
            Some(row) if row.number == candidate.row.number => {
                Cow::Owned(Candidate { row: (**row).clone(), ..candidate.clone() })
            }
            _ => Cow::Borrowed(candidate),
        })
    }
}
