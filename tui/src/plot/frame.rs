//! What surrounds a plot: two axes with their ticks and names, and a legend.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use search::objective::Objective;

use super::{Axis, Dots, Tick};
use crate::quantity;
use crate::theme::Theme;

/// From this height on, a legend and the name of the x axis have a row of their own.
const ROOMY_HEIGHT: u16 = 11;

/// What an axis is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Title {
    short: String,
    /// With the unit, where there is room for it.
    long: String,
}

impl Title {
    /// Of a value by its name in the store, or words for people.
    pub(super) fn of(name: &str) -> Self {
        Self {
            short: quantity::title(name).into_owned(),
            long: quantity::axis_title(name).into_owned(),
        }
    }

    /// Of an objective, whose best values stand at the start of its axis.
    pub(super) fn of_objective(objective: &Objective) -> Self {
        let long = quantity::axis_title(objective.name());
        let better = if objective.is_maximised() { ", more is better" } else { "" };
        Self { short: quantity::objective_title(objective), long: format!("{long}{better}") }
    }

    /// With the unit.
    pub(super) fn long(&self) -> &str {
        &self.long
    }
}

/// Two axes laid on an area of cells.
pub(super) struct Frame<'a> {
    area: Rect,
    /// The cells between the axes.
    pub(super) inside: Rect,
    x: &'a Axis,
    y: &'a Axis,
    x_title: &'a Title,
    y_title: &'a Title,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    theme: Theme,
}

impl<'a> Frame<'a> {
    pub(super) fn lay_out(
        area: Rect,
        (x, x_title): (&'a Axis, &'a Title),
        (y, y_title): (&'a Axis, &'a Title),
        theme: Theme,
    ) -> Self {
        // Above: the name of the y axis. Below: axis, tick labels, and the legend where there is room for it.
        let below = if area.height >= ROOMY_HEIGHT { 3 } else { 2 };
        let height = area.height - 1 - below;
        let y_ticks = y.ticks(usize::from(height).div_ceil(3).max(2));
        let margin = y_ticks
            .iter()
            .map(|tick| tick.label.chars().count() as u16)
            .max()
            .unwrap_or(0)
            .min(area.width / 3);
        let inside = Rect::new(area.x + margin + 1, area.y + 1, area.width - margin - 2, height);
        let x_ticks = x.ticks(usize::from(inside.width / 9).max(2));
        Self { area, inside, x, y, x_title, y_title, x_ticks, y_ticks, theme }
    }

    /// The column of cells of a value, from the left; beyond the field at most by one.
    pub(super) fn column(&self, value: f64) -> Option<i64> {
        let (at, width) = (self.x.position(value)?, f64::from(self.inside.width));
        Some((at * (width - 1.0)).round().clamp(-1.0, width) as i64)
    }

    /// The row of cells of a value, from the top; beyond the field at most by one.
    pub(super) fn row(&self, value: f64) -> Option<i64> {
        let (at, height) = (self.y.position(value)?, f64::from(self.inside.height));
        Some(((1.0 - at) * (height - 1.0)).round().clamp(-1.0, height) as i64)
    }

    /// The column of dots of a value; beyond the field at most by one.
    pub(super) fn across(&self, dots: &Dots, value: f64) -> Option<i64> {
        let width = dots.width() as f64;
        self.x.position(value).map(|at| (at * (width - 1.0)).clamp(-1.0, width) as i64)
    }

    /// The row of dots of a value; beyond the field at most by one.
    pub(super) fn down(&self, dots: &Dots, value: f64) -> Option<i64> {
        let height = dots.height() as f64;
        self.y.position(value).map(|at| ((1.0 - at) * (height - 1.0)).clamp(-1.0, height) as i64)
    }

    /// A sign in a cell; outside nothing happens.
    pub(super) fn put(&self, buffer: &mut Buffer, column: i64, row: i64, sign: char, style: Style) {
        if (0..i64::from(self.inside.width)).contains(&column)
            && (0..i64::from(self.inside.height)).contains(&row)
        {
            let at = (self.inside.x + column as u16, self.inside.y + row as u16);
            if let Some(cell) = buffer.cell_mut(at) {
                cell.reset();
                cell.set_char(sign).set_style(style);
            }
        }
    }

    /// The axes with ticks and names.
    pub(super) fn draw(&self, buffer: &mut Buffer) {
        let Rect { x, y, width, height } = self.inside;
        let dim = self.theme.dim();
        let name = quantity::shortened(&self.y_title.long, usize::from(self.area.width));
        buffer.set_string(self.area.x, self.area.y, name, dim);
        for row in 0..height {
            buffer.set_string(x - 1, y + row, "│", dim);
        }
        buffer.set_string(x - 1, y + height, "└", dim);
        for column in 0..width {
            buffer.set_string(x + column, y + height, "─", dim);
        }
        for tick in &self.y_ticks {
            let Some(row) = self.row(tick.value).filter(|row| (0..i64::from(height)).contains(row))
            else {
                continue;
            };
            let room = usize::from(x - 1 - self.area.x);
            let label = format!("{:>room$}", quantity::shortened(&tick.label, room));
            buffer.set_string(self.area.x, y + row as u16, label, Style::new());
            buffer.set_string(x - 1, y + row as u16, "┤", dim);
        }
        // Labels are centred below their ticks and left out where two would touch.
        let name = &self.x_title.short;
        let named_here = self.area.height < ROOMY_HEIGHT;
        let end = i64::from(width) - if named_here { name.chars().count() as i64 + 1 } else { 0 };
        let mut free_from = -i64::from(x - self.area.x);
        for tick in &self.x_ticks {
            let Some(column) =
                self.column(tick.value).filter(|c| (0..i64::from(width)).contains(c))
            else {
                continue;
            };
            buffer.set_string(x + column as u16, y + height, "┬", dim);
            let length = tick.label.chars().count() as i64;
            let start = (column - length / 2).min(i64::from(width) - length);
            if start >= free_from && start + length <= end {
                buffer.set_string(
                    (i64::from(x) + start) as u16,
                    y + height + 1,
                    &tick.label,
                    Style::new(),
                );
                free_from = start + length + 2;
            }
        }
        if named_here && end > 0 {
            buffer.set_string(x + end as u16 + 1, y + height + 1, name, dim);
        }
    }

    /// A line at the budget, if there is one within the axis.
    pub(super) fn budget(&self, buffer: &mut Buffer, budget: Option<f64>) {
        let Some(column) = budget.and_then(|budget| self.column(budget)) else { return };
        for row in 0..i64::from(self.inside.height) {
            self.put(buffer, column, row, '┊', self.theme.dim());
        }
        let word = "budget";
        let length = word.len() as i64;
        if (length..i64::from(self.inside.width)).contains(&column) {
            for (i, letter) in word.chars().enumerate() {
                self.put(buffer, column - length + i as i64, 0, letter, self.theme.dim());
            }
        }
    }

    /// The name of the x axis and what the signs mean, where there is a row for it.
    pub(super) fn legend<'w>(
        &self,
        buffer: &mut Buffer,
        entries: impl Iterator<Item = (char, &'w str, Style)>,
    ) {
        if self.area.height < ROOMY_HEIGHT {
            return;
        }
        let row = self.area.bottom() - 1;
        let name = &self.x_title.long;
        let start = i64::from(self.area.right()) - 1 - name.chars().count() as i64;
        let start = start.max(i64::from(self.area.x)) as u16;
        buffer.set_stringn(start, row, name, usize::from(self.area.width), self.theme.dim());
        let mut at = self.inside.x;
        for (sign, word, style) in entries {
            let length = word.chars().count() as u16 + 2;
            if at + length < start {
                buffer.set_string(at, row, sign.to_string(), style);
                buffer.set_string(at + 2, row, word, self.theme.dim());
                at += length + 2;
            }
        }
    }
}
