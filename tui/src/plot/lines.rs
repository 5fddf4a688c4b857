//! Lines over two axes: hypervolume against evaluations, a fitted law against latency.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::widgets::Widget;

use super::frame::Title;
use super::{Axis, Dots, Frame, LEAST, say};
use crate::ansi;
use crate::theme::Theme;

/// One line with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What the legend says.
    pub name: String,
    /// The letter that stands on the line and before the name.
    pub sign: char,
    /// Points by rising x, joined by straight lines.
    pub line: Vec<(f64, f64)>,
    /// Points of its own beside the line, drawn by its sign.
    pub points: Vec<(f64, f64)>,
}

/// The widget.
#[derive(Debug, Clone, Copy)]
pub struct LinePlot<'a> {
    /// What the x axis says: a value's name, or words.
    pub x_name: &'a str,
    /// What the y axis says.
    pub y_name: &'a str,
    /// The lines, later ones over earlier ones.
    pub series: &'a [Series],
    /// Whether both axes are linear, even over decades.
    pub is_linear: bool,
    /// An x that is marked by a line and the word `budget`.
    pub budget: Option<f64>,
    /// Colours.
    pub theme: Theme,
}

impl LinePlot<'_> {
    /// The plot as lines of `width` characters.
    pub fn to_text(self, width: u16, height: u16) -> String {
        ansi::to_text(self, width, height, self.theme.colour)
    }

    /// Each line in a colour of its own, where there are colours.
    fn style(&self, index: usize) -> Style {
        let theme = self.theme;
        let styles = [theme.front(), theme.reference(), theme.active(), theme.failure()];
        styles[index % styles.len()].remove_modifier(Modifier::BOLD)
    }
}

impl Widget for LinePlot<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let area = area.intersection(buffer.area);
        if area.width < LEAST.0 || area.height < LEAST.1 {
            say(area, buffer, "no room for the plot", self.theme.dim());
            return;
        }
        let all = || self.series.iter().flat_map(|series| series.line.iter().chain(&series.points));
        let finite = || all().filter(|(x, y)| x.is_finite() && y.is_finite());
        if finite().next().is_none() {
            say(area, buffer, "nothing to draw yet", self.theme.dim());
            return;
        }
        let span = |values: &mut dyn Iterator<Item = f64>| {
            let (lo, hi) = values
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
            if self.is_linear { Axis::linear(lo, hi) } else { Axis::spanning(lo, hi) }
        };
        let x = span(&mut finite().map(|point| point.0).chain(self.budget));
        let y = span(&mut finite().map(|point| point.1));
        let (x_title, y_title) = (Title::of(self.x_name), Title::of(self.y_name));
        let frame = Frame::lay_out(area, (&x, &x_title), (&y, &y_title), self.theme);
        frame.draw(buffer);
        let entries = self.series.iter().enumerate();
        let entries = entries.map(|(i, series)| (series.sign, series.name.as_str(), self.style(i)));
        frame.legend(buffer, entries);
        frame.budget(buffer, self.budget);
        for (index, series) in self.series.iter().enumerate() {
            let mut dots = Dots::new(frame.inside);
            let places: Vec<(i64, i64)> = series
                .line
                .iter()
                .filter_map(|&(x, y)| Some((frame.across(&dots, x)?, frame.down(&dots, y)?)))
                .collect();
            for pair in places.windows(2) {
                dots.line(pair[0], pair[1]);
            }
            dots.paint(buffer, self.style(index));
        }
        for (index, series) in self.series.iter().enumerate() {
            // Lines are told apart without colour by their letters, in other places on each.
            let n = series.line.len();
            let count = self.series.len();
            let marked = (0..3).map(|i| (i * count + index + 1) * n / (3 * count + 1));
            let marked = marked.filter_map(|place| series.line.get(place));
            for &(x, y) in marked.chain(&series.points) {
                if let (Some(column), Some(row)) = (frame.column(x), frame.row(y)) {
                    frame.put(buffer, column, row, series.sign, self.style(index));
                }
            }
        }
    }
}
