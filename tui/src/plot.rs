//! The Pareto front of a campaign as a scatter plot: on the screen a ratatui widget, in a report [`to_text`]; and
//! [`LinePlot`], lines over the same kind of axes.
//!
//! With one objective it is a history instead: the values in the order of the evaluations, larger ones above, and a line
//! along the best so far. Of two:
//!
//! Better is down and to the left: an axis of a value of which more is better is reversed. The members of the front are joined by the staircase
//! that bounds what they dominate; error bars are drawn where they are wide enough to see; points too far from the
//! front to leave room for it stand as arrows at the edge.

mod axis;
mod canvas;
mod dots;
mod frame;
mod kept;
mod lines;
mod scene;

use db::Mark;
use db::snapshot::Snapshot;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::Widget;

pub use axis::{Axis, Tick};
use canvas::Canvas;
pub(crate) use dots::Dots;
use frame::Frame;
pub use kept::Plotted;
pub use lines::{LinePlot, Series};
pub use scene::{Kind, Point, Scene, axes, cost};

use crate::theme::Theme;
use crate::{ansi, quantity};

/// The widget.
#[derive(Debug, Clone, Copy)]
pub struct FrontPlot<'a> {
    snapshot: &'a Snapshot,
    marks: Option<&'a [Mark]>,
    selected: Option<u32>,
    kept: Option<&'a Plotted>,
    theme: Theme,
}

impl<'a> FrontPlot<'a> {
    /// A plot of what `snapshot` holds.
    pub fn new(snapshot: &'a Snapshot, theme: Theme) -> Self {
        Self { snapshot, marks: None, selected: None, kept: None, theme }
    }

    /// Points of these instead of those of the snapshot's candidates, which are only some.
    #[must_use]
    pub fn of_marks(mut self, marks: Option<&'a [Mark]>) -> Self {
        self.marks = marks;
        self
    }

    /// Marks one candidate, by number.
    #[must_use]
    pub fn select(mut self, number: Option<u32>) -> Self {
        self.selected = number;
        self
    }

    /// Takes from `kept` what stays the same from one drawing to the next, and leaves it there.
    #[must_use]
    pub fn keeping(mut self, kept: &'a Plotted) -> Self {
        self.kept = Some(kept);
        self
    }
}

/// The plot as lines of `width` characters, with ANSI colours or without.
pub fn to_text(snapshot: &Snapshot, width: u16, height: u16, colour: bool) -> String {
    ansi::to_text(FrontPlot::new(snapshot, Theme { colour }), width, height, colour)
}

/// Below this many cells there is no plot, only a sentence.
const LEAST: (u16, u16) = (24, 7);

impl Widget for FrontPlot<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let area = area.intersection(buffer.area);
        if area.width < LEAST.0 || area.height < LEAST.1 {
            say(area, buffer, "no room for the plot", self.theme.dim());
            return;
        }
        let new = Plotted::default();
        let kept = self.kept.unwrap_or(&new);
        let Some(scene) = kept.scene(self.snapshot, self.marks) else {
            say(area, buffer, nothing_yet(self.snapshot), self.theme.dim());
            return;
        };
        let candidates = &self.snapshot.candidates;
        let place = |number| candidates.binary_search_by_key(&number, |row| row.row.number).ok();
        let selected = self.selected.and_then(place).map(|place| &candidates[place]);
        let canvas = Canvas::lay_out(area, &scene, selected, self.theme);
        canvas.draw(&kept.layer(&canvas), buffer);
    }
}

/// Why there is no plot.
fn nothing_yet(snapshot: &Snapshot) -> &'static str {
    match (snapshot.campaign.is_black_box(), snapshot.campaign.objectives.len()) {
        (true, _) => "no candidate is evaluated yet",
        (false, 1) => "no candidate is trained yet",
        (false, _) => "no candidate is trained and timed yet",
    }
}

fn say(area: Rect, buffer: &mut Buffer, sentence: &str, style: Style) {
    if area.is_empty() {
        return;
    }
    let text = quantity::shortened(sentence, usize::from(area.width));
    let x = area.x + (area.width - text.chars().count() as u16) / 2;
    buffer.set_string(x, area.y + area.height / 2, text, style);
}
