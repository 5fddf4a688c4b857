//! The scene laid on cells and drawn.

use std::collections::BTreeMap;

use db::snapshot::Candidate;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::scene::{Kind, Point, Scene};
use super::{Dots, Frame};
use crate::theme::Theme;

/// A scene on an area of cells.
pub(super) struct Canvas<'a> {
    frame: Frame<'a>,
    /// The cells between the axes.
    inside: Rect,
    scene: &'a Scene,
    /// The candidate that is marked, whether it has a point or not.
    selected: Option<&'a Candidate>,
    theme: Theme,
}

/// What lies below all else and stays the same from key to key: the signs of the dominated points.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// By column and row.
    signs: BTreeMap<(i64, i64), char>,
    /// Whether there are points beyond the axes, of whatever kind.
    is_clipped: bool,
}

impl<'a> Canvas<'a> {
    pub(super) fn lay_out(
        area: Rect,
        scene: &'a Scene,
        selected: Option<&'a Candidate>,
        theme: Theme,
    ) -> Self {
        let frame =
            Frame::lay_out(area, (&scene.x, &scene.x_title), (&scene.y, &scene.y_title), theme);
        Self { inside: frame.inside, frame, scene, selected, theme }
    }

    /// The cells between the axes.
    pub(super) fn inside(&self) -> Rect {
        self.inside
    }

    fn selected_point(&self) -> Option<&Point> {
        self.scene.point(self.selected?.row.number)
    }

    fn is_selected(&self, point: &Point) -> bool {
        self.selected.is_some_and(|candidate| candidate.row.number == point.number)
    }

    /// Members of the front, references and the selected point, in the order of their candidates.
    fn named(&self) -> Vec<&Point> {
        let mut points: Vec<&Point> = self.scene.emphasised().collect();
        if let Some(selected) = self.selected_point()
            && let Err(place) = points.binary_search_by_key(&selected.number, |point| point.number)
        {
            points.insert(place, selected);
        }
        points
    }

    fn column(&self, value: f64) -> Option<i64> {
        self.frame.column(value)
    }

    fn row(&self, value: f64) -> Option<i64> {
        self.frame.row(value)
    }

    fn put(&self, buffer: &mut Buffer, column: i64, row: i64, sign: char, style: Style) {
        self.frame.put(buffer, column, row, sign, style);
    }

    /// Draws it, upon the layer that [`Canvas::layer`] gives.
    pub(super) fn draw(&self, layer: &Layer, buffer: &mut Buffer) {
        self.frame.draw(buffer);
        self.legend(layer.is_clipped, buffer);
        self.frame.budget(buffer, self.scene.budget);
        self.staircase(buffer);
        self.error_bars(buffer);
        self.points(layer, buffer);
        self.labels(buffer);
    }

    fn legend(&self, clipped: bool, buffer: &mut Buffer) {
        let is_history = self.scene.is_history();
        let (first, others) = if is_history { ("best", "others") } else { ("front", "dominated") };
        let entries = [
            ('●', first, self.theme.front(), self.scene.any(Kind::Front)),
            ('◆', "reference", self.theme.reference(), self.scene.any(Kind::Reference)),
            ('·', others, self.theme.dim(), self.scene.any(Kind::Dominated)),
            ('─', "best so far", self.theme.dim(), is_history),
            (if is_history { '↕' } else { '↗' }, "beyond", self.theme.dim(), clipped),
        ];
        let present = entries.into_iter().filter(|(.., is_present)| *is_present);
        self.frame.legend(buffer, present.map(|(sign, word, style, _)| (sign, word, style)));
    }

    /// Right along a member's value until the next member's latency, then down to it; up where more is better and above.
    fn staircase(&self, buffer: &mut Buffer) {
        let style = self.theme.dim();
        let cells: Vec<(i64, i64)> = self
            .scene
            .staircase
            .iter()
            .filter_map(|&(x, y)| Some((self.column(x)?, self.row(y)?)))
            .collect();
        let Some((&(first, top), &(last, bottom))) = cells.first().zip(cells.last()) else {
            return;
        };
        // What came before the first evaluation is no value.
        for row in 0..if self.scene.is_history() { 0 } else { top } {
            self.put(buffer, first, row, '│', style);
        }
        for pair in cells.windows(2) {
            let [(c0, r0), (c1, r1)] = [pair[0], pair[1]];
            for column in c0 + 1..c1 {
                self.put(buffer, column, r0, '─', style);
            }
            if c1 > c0 && r1 != r0 {
                self.put(buffer, c1, r0, if r1 > r0 { '╮' } else { '╯' }, style);
            }
            for row in r0.min(r1) + 1..r0.max(r1) {
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
        let blank = Dots::new(self.inside);
        for point in self.named() {
            if self.is_outside(point) {
                continue;
            }
            let (Some(column), Some(row)) = (self.column(point.x), self.row(point.y)) else {
                continue;
            };
            let across = |x: f64| self.frame.across(&blank, x);
            let down = |y: f64| self.frame.down(&blank, y);
            let ends = |(a, b): (Option<i64>, Option<i64>)| Some((a?.min(b?), a?.max(b?)));
            let across = ends((across(point.x - point.x_error), across(point.x + point.x_error)));
            let down = ends((down(point.y + point.y_error), down(point.y - point.y_error)));
            let is_visible = |(lo, hi): &(i64, i64)| hi - lo >= 2 * VISIBLE;
            let (across, down) = (across.filter(is_visible), down.filter(is_visible));
            if across.is_none() && down.is_none() {
                continue;
            }
            let mut dots = blank.clone();
            if let Some((lo, hi)) = across {
                dots.line((lo, row * 4 + 1), (hi, row * 4 + 1));
            }
            if let Some((lo, hi)) = down {
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

    /// The cell of a point, at the edge where it lies beyond, and its sign there.
    fn cell(&self, point: &Point, inside: char) -> Option<((i64, i64), char)> {
        let (right, bottom) = (i64::from(self.inside.width) - 1, i64::from(self.inside.height) - 1);
        let (column, row) = (self.column(point.x)?, self.row(point.y)?);
        let sign = if self.is_outside(point) {
            match (column > right, row < 0) {
                (true, true) => '↗',
                (true, false) => '→',
                (false, _) if row > bottom => '↓',
                (false, _) => '↑',
            }
        } else {
            inside
        };
        Some(((column.clamp(0, right), row.clamp(0, bottom)), sign))
    }

    /// The signs of the dominated points: of a hundred thousand that is most of the work.
    pub(super) fn layer(&self) -> Layer {
        const CROWD: [char; 4] = ['·', '∶', '∴', '∷'];
        let mut signs = BTreeMap::new();
        let mut crowd: BTreeMap<(i64, i64), usize> = BTreeMap::new();
        let mut is_clipped = false;
        for point in &self.scene.points {
            if point.kind != Kind::Dominated {
                is_clipped = is_clipped || self.is_outside(point);
                continue;
            }
            let Some((at, mut sign)) = self.cell(point, CROWD[0]) else {
                is_clipped = is_clipped || self.is_outside(point);
                continue;
            };
            if sign == CROWD[0] {
                let here = crowd.entry(at).or_default();
                *here += 1;
                sign = CROWD[(*here - 1).min(3)];
            } else {
                is_clipped = true;
            }
            signs.insert(at, sign);
        }
        Layer { signs, is_clipped }
    }

    fn points(&self, layer: &Layer, buffer: &mut Buffer) {
        // Least important first: later ones cover earlier ones.
        for (&(column, row), &sign) in &layer.signs {
            self.put(buffer, column, row, sign, self.theme.dim());
        }
        for (kind, sign) in [(Kind::Reference, '◆'), (Kind::Front, '●')] {
            for point in self.scene.emphasised().filter(|point| point.kind == kind) {
                if let Some(((column, row), sign)) = self.cell(point, sign) {
                    self.put(buffer, column, row, sign, self.style(point));
                }
            }
        }
        let right = i64::from(self.inside.width) - 1;
        if let Some(point) = self.selected_point() {
            if let Some((at, _)) = self.cell(point, '●') {
                let sign = if point.kind == Kind::Reference { '◆' } else { '●' };
                let style = self.style(point).remove_modifier(Modifier::DIM);
                self.put(buffer, at.0, at.1, sign, style.patch(self.theme.selected()));
            }
        } else if let Some(column) = self
            .selected
            .and_then(|candidate| self.scene.across(candidate))
            .and_then(|x| self.column(x))
        {
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
        let mut order = self.named();
        order.sort_by_key(|point| (!self.is_selected(point), point.kind != Kind::Reference));
        for point in order {
            let (Some(column), Some(row)) = (self.column(point.x), self.row(point.y)) else {
                continue;
            };
            if self.is_outside(point) {
                continue;
            }
            let text = point.label();
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
            let style =
                if self.is_selected(point) { self.theme.heading() } else { self.style(point) };
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
        let clear = |c: i64| {
            symbol(c) == ' ' || covering && matches!(symbol(c), '─' | '│' | '╮' | '╯' | '┊')
        };
        let apart = |c: i64| {
            c < 0
                || c >= width
                || (c, row) == own
                || !symbol(c).is_alphanumeric() && !matches!(symbol(c), '●' | '◆')
        };
        (column..column + length).all(clear) && apart(column - 1) && apart(column + length)
    }
}
