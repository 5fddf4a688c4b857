//! The scene laid on cells and drawn.

use std::collections::BTreeMap;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::scene::{Kind, Point, Scene};
use super::{Dots, Tick};
use crate::quantity;
use crate::theme::Theme;

/// From this height on, a legend and the name of the x axis have a row of their own.
const ROOMY_HEIGHT: u16 = 11;

/// A scene on an area of cells.
pub(super) struct Canvas<'a> {
    area: Rect,
    /// The cells between the axes.
    inside: Rect,
    scene: &'a Scene,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    theme: Theme,
}

impl<'a> Canvas<'a> {
    pub(super) fn lay_out(area: Rect, scene: &'a Scene, theme: Theme) -> Self {
        // Above: the name of the y axis. Below: axis, tick labels, and the legend where there is room for it.
        let below = if area.height >= ROOMY_HEIGHT { 3 } else { 2 };
        let height = area.height - 1 - below;
        let y_ticks = scene.y.ticks(usize::from(height).div_ceil(3).max(2));
        let margin = y_ticks
            .iter()
            .map(|tick| tick.label.chars().count() as u16)
            .max()
            .unwrap_or(0)
            .min(area.width / 3);
        let inside = Rect::new(area.x + margin + 1, area.y + 1, area.width - margin - 2, height);
        let x_ticks = scene.x.ticks(usize::from(inside.width / 9).max(2));
        Self { area, inside, scene, x_ticks, y_ticks, theme }
    }

    fn column(&self, value: f64) -> Option<i64> {
        let at = self.scene.x.position(value)?;
        Some((at * f64::from(self.inside.width - 1)).round() as i64)
    }

    /// Rows count from the top.
    fn row(&self, value: f64) -> Option<i64> {
        let at = self.scene.y.position(value)?;
        Some(((1.0 - at) * f64::from(self.inside.height - 1)).round() as i64)
    }

    fn put(&self, buffer: &mut Buffer, column: i64, row: i64, sign: char, style: Style) {
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

    pub(super) fn draw(&self, buffer: &mut Buffer) {
        self.axes(buffer);
        if self.area.height >= ROOMY_HEIGHT {
            self.legend(buffer);
        }
        self.budget(buffer);
        self.staircase(buffer);
        self.error_bars(buffer);
        self.points(buffer);
        self.labels(buffer);
    }

    fn axes(&self, buffer: &mut Buffer) {
        let Rect { x, y, width, height } = self.inside;
        let dim = self.theme.dim();
        let name = quantity::shortened(
            quantity::axis_title(&self.scene.y_name),
            usize::from(self.area.width),
        );
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
        let name = quantity::title(&self.scene.x_name);
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

    fn legend(&self, buffer: &mut Buffer) {
        let row = self.area.bottom() - 1;
        let name = quantity::axis_title(&self.scene.x_name);
        let start = i64::from(self.area.right()) - 1 - name.chars().count() as i64;
        let start = start.max(i64::from(self.area.x)) as u16;
        buffer.set_stringn(start, row, name, usize::from(self.area.width), self.theme.dim());
        let mut at = self.inside.x;
        let clipped = self.scene.points.iter().any(|point| self.is_outside(point));
        let entries = [
            ("●", "front", self.theme.front(), self.scene.any(Kind::Front)),
            ("◆", "reference", self.theme.reference(), self.scene.any(Kind::Reference)),
            ("·", "dominated", self.theme.dim(), self.scene.any(Kind::Dominated)),
            ("↗", "beyond", self.theme.dim(), clipped),
        ];
        for (sign, word, style, present) in entries {
            let length = word.chars().count() as u16 + 2;
            if present && at + length < start {
                buffer.set_string(at, row, sign, style);
                buffer.set_string(at + 2, row, word, self.theme.dim());
                at += length + 2;
            }
        }
    }

    fn budget(&self, buffer: &mut Buffer) {
        let Some(column) = self.scene.budget.and_then(|budget| self.column(budget)) else { return };
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

    /// Right along a member's value until the next member's latency, then down to it.
    fn staircase(&self, buffer: &mut Buffer) {
        let style = self.theme.dim();
        let cells: Vec<(i64, i64)> = self
            .scene
            .staircase()
            .into_iter()
            .filter_map(|(x, y)| Some((self.column(x)?, self.row(y)?)))
            .collect();
        let Some((&(first, top), &(last, bottom))) = cells.first().zip(cells.last()) else {
            return;
        };
        for row in 0..top {
            self.put(buffer, first, row, '│', style);
        }
        for pair in cells.windows(2) {
            let [(c0, r0), (c1, r1)] = [pair[0], pair[1]];
            for column in c0 + 1..c1 {
                self.put(buffer, column, r0, '─', style);
            }
            if c1 > c0 && r1 > r0 {
                self.put(buffer, c1, r0, '╮', style);
            }
            for row in r0 + 1..r1 {
                self.put(buffer, c1, row, '│', style);
            }
        }
        for column in last + 1..i64::from(self.inside.width) {
            self.put(buffer, column, bottom, '─', style);
        }
    }

    fn error_bars(&self, buffer: &mut Buffer) {
        /// An error shorter than this many dots is hidden by its point.
        const VISIBLE: i64 = 3;
        for point in self.scene.points.iter().filter(|p| p.kind != Kind::Dominated || p.selected) {
            if self.is_outside(point) {
                continue;
            }
            let (Some(column), Some(row)) = (self.column(point.x), self.row(point.y)) else {
                continue;
            };
            let mut dots = Dots::new(self.inside);
            let (width, height) = (dots.width() as f64, dots.height() as f64);
            let across = |x: f64| {
                self.scene.x.position(x).map(|at| (at * (width - 1.0)).clamp(-1.0, width) as i64)
            };
            let down = |y: f64| {
                self.scene
                    .y
                    .position(y)
                    .map(|at| ((1.0 - at) * (height - 1.0)).clamp(-1.0, height) as i64)
            };
            if let (Some(lo), Some(hi)) =
                (across(point.x - point.x_error), across(point.x + point.x_error))
                && hi - lo >= 2 * VISIBLE
            {
                dots.line((lo, row * 4 + 1), (hi, row * 4 + 1));
            }
            if let (Some(lo), Some(hi)) =
                (down(point.y + point.y_error), down(point.y - point.y_error))
                && hi - lo >= 2 * VISIBLE
            {
                dots.line((column * 2, lo), (column * 2, hi));
            }
            dots.paint(buffer, self.style(point).remove_modifier(Modifier::BOLD));
        }
    }

    fn style(&self, point: &Point) -> Style {
        match point.kind {
            Kind::Front => self.theme.front(),
            Kind::Reference => self.theme.reference(),
            Kind::Dominated => self.theme.dim(),
        }
    }

    fn is_outside(&self, point: &Point) -> bool {
        [self.scene.x.position(point.x), self.scene.y.position(point.y)]
            .into_iter()
            .any(|at| at.is_none_or(|at| !(0.0..=1.0).contains(&at)))
    }

    fn points(&self, buffer: &mut Buffer) {
        let mut crowd: BTreeMap<(i64, i64), usize> = BTreeMap::new();
        let (right, bottom) = (i64::from(self.inside.width) - 1, i64::from(self.inside.height) - 1);
        // Least important first: later ones cover earlier ones.
        for kind in [Kind::Dominated, Kind::Reference, Kind::Front] {
            for point in self.scene.points.iter().filter(|point| point.kind == kind) {
                let (Some(column), Some(row)) = (self.column(point.x), self.row(point.y)) else {
                    continue;
                };
                let (c, r) = (column.clamp(0, right), row.clamp(0, bottom));
                let sign = match kind {
                    _ if self.is_outside(point) => match (column > right, row < 0) {
                        (true, true) => '↗',
                        (true, false) => '→',
                        (false, _) => '↑',
                    },
                    Kind::Front => '●',
                    Kind::Reference => '◆',
                    Kind::Dominated => {
                        let here = crowd.entry((c, r)).or_default();
                        *here += 1;
                        ['·', '∶', '∴', '∷'][(*here - 1).min(3)]
                    }
                };
                self.put(buffer, c, r, sign, self.style(point));
            }
        }
        for point in self.scene.points.iter().filter(|point| point.selected) {
            if let (Some(column), Some(row)) = (self.column(point.x), self.row(point.y)) {
                let (c, r) = (column.clamp(0, right), row.clamp(0, bottom));
                let sign = if point.kind == Kind::Reference { '◆' } else { '●' };
                let style = self.style(point).remove_modifier(Modifier::DIM);
                self.put(buffer, c, r, sign, style.patch(self.theme.selected()));
            }
        }
        if let Some(column) = self.scene.selected_x.and_then(|x| self.column(x)) {
            // Timed, not trained: its place on the x axis is known.
            let column = column.clamp(0, right);
            let at = (self.inside.x + column as u16, self.inside.bottom());
            if let Some(cell) = buffer.cell_mut(at) {
                cell.reset();
                cell.set_char('▲').set_style(self.theme.active());
            }
        }
    }

    /// The selected candidate first, then references by name, then members of the front by number: each beside its
    /// point where the cells are free, or left out.
    fn labels(&self, buffer: &mut Buffer) {
        let mut order: Vec<&Point> =
            self.scene.points.iter().filter(|p| p.selected || p.kind != Kind::Dominated).collect();
        order.sort_by_key(|point| (!point.selected, point.kind != Kind::Reference));
        for point in order {
            let (Some(column), Some(row)) = (self.column(point.x), self.row(point.y)) else {
                continue;
            };
            if self.is_outside(point) {
                continue;
            }
            let text = &point.label;
            let length = text.chars().count() as i64;
            let (right, left) = (column + 2, column - 1 - length);
            let (above, below) = ((column + 1, row - 1), (column - length, row + 1));
            // Below the staircase there is nothing, so members of the front are best named there.
            let mut places = [
                (right, row),
                above,
                (column + 1, row + 1),
                (left, row),
                below,
                (column - length, row - 1),
            ];
            if point.on_front && point.kind == Kind::Front {
                places = [
                    below,
                    (left, row),
                    (column + 1, row + 1),
                    (right, row),
                    above,
                    (column - length, row - 1),
                ];
            }
            let style = if point.selected { self.theme.heading() } else { self.style(point) };
            let place = [false, true].into_iter().find_map(|covering| {
                places
                    .into_iter()
                    .find(|&(c, r)| self.is_free(buffer, (c, r), length, (column, row), covering))
            });
            if let Some((c, r)) = place {
                for (i, letter) in text.chars().enumerate() {
                    self.put(buffer, c + i as i64, r, letter, style);
                }
            }
        }
    }

    /// Whether a text fits: its cells are inside and blank, or only lines when it may cover those, and it touches
    /// neither another text nor another point than its own.
    fn is_free(
        &self,
        buffer: &Buffer,
        (column, row): (i64, i64),
        length: i64,
        own: (i64, i64),
        covering: bool,
    ) -> bool {
        let inside = self.inside;
        let (width, height) = (i64::from(inside.width), i64::from(inside.height));
        let symbol = |c: i64| {
            let cell = buffer.cell((inside.x + c as u16, inside.y + row as u16));
            cell.and_then(|cell| cell.symbol().chars().next()).unwrap_or(' ')
        };
        if row < 0 || row >= height || column < 0 || column + length > width {
            return false;
        }
        let clear =
            |c: i64| symbol(c) == ' ' || covering && matches!(symbol(c), '─' | '│' | '╮' | '┊');
        let apart = |c: i64| {
            c < 0
                || c >= width
                || (c, row) == own
                || !symbol(c).is_alphanumeric() && !matches!(symbol(c), '●' | '◆')
        };
        (column..column + length).all(clear) && apart(column - 1) && apart(column + length)
    }
}
