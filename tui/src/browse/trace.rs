//! A training curve: loss over tokens, in dots.

use db::snapshot::Candidate;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;

use crate::plot::{Axis, Dots};
use crate::quantity;
use crate::theme::Theme;

/// The widget; the tokens axis always spans the whole training, so that its end shows how far the candidate is.
pub(super) struct Trace<'a> {
    pub(super) candidate: &'a Candidate,
    pub(super) tokens: u64,
    pub(super) theme: Theme,
}

impl Widget for Trace<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let curve: Vec<(u64, f64)> =
            self.candidate.row.curve.iter().copied().filter(|(_, loss)| loss.is_finite()).collect();
        if area.width < 20 || area.height < 3 || curve.is_empty() {
            return;
        }
        let dim = self.theme.dim();
        let (lo, hi) = curve
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), p| (lo.min(p.1), hi.max(p.1)));
        let end = self.tokens.max(curve.last().map_or(1, |point| point.0)).max(1);
        let y = Axis::spanning(lo, hi);
        let ticks = y.ticks(usize::from(area.height / 2).max(2));
        let margin = ticks.iter().map(|tick| tick.label.chars().count() as u16).max().unwrap_or(0);
        let inside =
            Rect::new(area.x + margin + 1, area.y, area.width - margin - 1, area.height - 1);
        for row in inside.y..inside.bottom() {
            buffer.set_string(inside.x - 1, row, "│", dim);
        }
        for tick in &ticks {
            let Some(at) = y.position(tick.value) else { continue };
            let row = inside.y + ((1.0 - at) * f64::from(inside.height - 1)).round() as u16;
            let margin = usize::from(margin);
            buffer.set_string(area.x, row, format!("{:>margin$}", tick.label), dim);
            buffer.set_string(inside.x - 1, row, "┤", dim);
        }
        buffer.set_string(
            inside.x - 1,
            inside.bottom(),
            format!("└{}", "─".repeat(usize::from(inside.width))),
            dim,
        );

        let mut dots = Dots::new(inside);
        let place = |&(tokens, loss): &(u64, f64)| {
            let across = tokens as f64 / end as f64 * (dots.width() - 1) as f64;
            let down = (1.0 - y.position(loss).unwrap_or(0.0)) * (dots.height() - 1) as f64;
            (across.round() as i64, down.round() as i64)
        };
        let places: Vec<(i64, i64)> = curve.iter().map(place).collect();
        dots.set(places[0].0, places[0].1);
        for pair in places.windows(2) {
            dots.line(pair[0], pair[1]);
        }
        dots.paint(buffer, self.theme.active());

        let last = curve.last().map_or(0.0, |point| point.1);
        let note = format!("loss {}, nats per token", quantity::significant(last));
        let note = quantity::shortened(&note, usize::from(inside.width));
        let x = inside.right() - note.chars().count() as u16;
        let row = inside.y..inside.bottom();
        // The curve falls, so the upper right is free.
        let free = row.clone().find(|&row| {
            (x..inside.right())
                .all(|x| buffer.cell((x, row)).is_some_and(|cell| cell.symbol() == " "))
        });
        if let Some(row) = free {
            buffer.set_string(x, row, note, dim);
        }
    }
}
