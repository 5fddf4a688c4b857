//! Where the time of a step goes: layer by layer, beside what bounds it.

use maud::{Markup, html};
use search::Architecture;
use search::architecture::MixerKind;
use search::campaign::LatencyTable;
use search::latency::{Conditions, LatencyEntry, Part, keys};
use tui::plot::Axis;
use tui::quantity;

use super::figure::{Figure, Plane, at, fill, width_of};
use crate::report::parts;

/// Stacks of the overview at most.
const STACKS: usize = 24;

/// The timed parts of a campaign, with the highest rates that any of them reached.
pub(super) struct Times {
    table: LatencyTable,
    conditions: Conditions,
    bytes_per_us: f64,
    flops_per_us: f64,
}

/// One part of a stack.
struct Piece {
    /// From 0; none of the head.
    layer: Option<usize>,
    /// None of FFN and head.
    kind: Option<MixerKind>,
    name: String,
    us: f64,
    bound_us: f64,
}

/// A row of the overview.
pub(super) struct Row<'a> {
    /// Its number in the campaign.
    pub(super) number: u32,
    /// What it is called.
    pub(super) label: String,
    pub(super) stack: &'a Architecture,
    /// The time of the whole model and its error, µs.
    pub(super) whole: Option<(f64, f64)>,
}

/// Each piece with what those before it take that `is_below` names.
fn stacked(pieces: &[Piece], is_below: impl Fn(&Piece, &Piece) -> bool) -> Vec<(&Piece, f64)> {
    let below = |(index, piece): (usize, &Piece)| {
        let before = pieces[..index].iter().filter(|other| is_below(other, piece));
        before.map(|other| other.us).sum::<f64>()
    };
    pieces.iter().enumerate().map(|(index, piece)| (piece, below((index, piece)))).collect()
}

impl Times {
    /// None where nothing was timed under these conditions.
    pub(super) fn of(entries: &[LatencyEntry], conditions: Conditions) -> Option<Self> {
        let mut times = Self {
            table: LatencyTable::default(),
            conditions,
            bytes_per_us: 0.0,
            flops_per_us: 0.0,
        };
        for entry in entries.iter().filter(|entry| entry.key.conditions == times.conditions) {
            let (bytes, flops) = parts::work(&entry.key.part, &times.conditions);
            let us = entry.timing.median_us;
            if us > 0.0 {
                times.bytes_per_us = times.bytes_per_us.max(bytes / us);
                times.flops_per_us = times.flops_per_us.max(flops / us);
            }
            times.table.insert(entry.clone());
        }
        (times.bytes_per_us > 0.0).then_some(times)
    }

    /// None while a part of it is not timed.
    fn pieces(&self, stack: &Architecture) -> Option<Vec<Piece>> {
        let layers = parts::layers(stack);
        let pieces = layers.into_iter().zip(keys(stack, &self.conditions)).map(|(layer, key)| {
            let us = self.table.get(&key)?.median_us;
            let (bytes, flops) = parts::work(&key.part, &self.conditions);
            let bound_us = (bytes / self.bytes_per_us).max(flops / self.flops_per_us);
            let kind = match &key.part {
                Part::Mixer { mixer, .. } => Some(mixer.kind()),
                Part::Ffn { .. } | Part::Head { .. } => None,
            };
            let layer = layer.parse::<usize>().ok().map(|number| number - 1);
            Some(Piece { layer, kind, name: parts::name(&key.part), us, bound_us })
        });
        pieces.collect()
    }

    /// A bar for each layer and the head, with its bound.
    pub(super) fn layers(&self, stack: &Architecture) -> Option<(f64, f64, Markup)> {
        let pieces = self.pieces(stack)?;
        let count = stack.layers().len() + 1;
        let place = |piece: &Piece| piece.layer.unwrap_or(count - 1);
        let mut sums = vec![(0.0, 0.0); count];
        for piece in &pieces {
            let (us, bound) = &mut sums[place(piece)];
            *us += piece.us;
            *bound += piece.bound_us;
        }
        let top = sums.iter().map(|sum| sum.0).fold(0.0, f64::max);
        let plane = Plane {
            x: Axis::linear(0.0, 1.0),
            y: Axis::linear(0.0, top),
            across: (44.0, 392.0),
            down: (30.0, 150.0),
        };
        let base = plane.py(0.0)?;
        let step = (plane.across.1 - plane.across.0) / count as f64;
        let width = (step * 0.78).min(26.0);
        let left = |place: usize| plane.across.0 + step * (place as f64 + 0.5) - width / 2.0;
        let every = count.div_ceil(16);
        let body = html! {
            @for tick in plane.y.ticks(4) {
                @if let Some(y) = plane.py(tick.value).filter(|_| tick.value >= 0.0) {
                    line class="grid" x1=(at(plane.across.0)) x2=(at(plane.across.1)) y1=(at(y)) y2=(at(y)) {}
                    text class="tick" x=(at(plane.across.0 - 7.0)) y=(at(y + 4.0)) text-anchor="end" { (tick.label) }
                }
            }
            text class="name" x="0" y="14" { "µs of each layer, beside its bound" }
            @for (piece, from) in stacked(&pieces, |below, piece| below.layer == piece.layer) {
                @let at_layer = place(piece);
                @if let (Some(low), Some(high)) = (plane.py(from), plane.py(from + piece.us)) {
                    rect x=(at(left(at_layer))) y=(at(high)) width=(at(width)) height=(at((low - high).max(0.3))) style=(colour(piece)) {
                        title { (piece.name) ": " (quantity::significant(piece.us)) " µs, bound " (quantity::significant(piece.bound_us)) " µs" }
                    }
                }
            }
            @for (place, (_, bound)) in sums.iter().enumerate() {
                @if let Some(y) = plane.py(*bound) {
                    line class="bound" x1=(at(left(place) - 1.5)) x2=(at(left(place) + width + 1.5)) y1=(at(y)) y2=(at(y)) {}
                }
                @let is_head = place + 1 == count;
                @if is_head || place % every == 0 && place + every < count {
                    text class="small" x=(at(left(place) + width / 2.0)) y=(at(base + 15.0)) text-anchor="middle" {
                        @if is_head { "head" } @else { (place + 1) }
                    }
                }
            }
        };
        Some((400.0, 172.0, body))
    }

    /// One row for each stack: its parts one after the other, the sum of their bounds, and the time of the whole model.
    pub(super) fn overview(&self, stacks: &[Row]) -> Option<Figure> {
        let rows: Vec<_> =
            stacks.iter().filter_map(|row| Some((row, self.pieces(row.stack)?))).collect();
        let shown = &rows[..rows.len().min(STACKS)];
        let sum = |pieces: &[Piece]| pieces.iter().map(|piece| piece.us).sum::<f64>();
        let far = |(row, pieces): &(&Row, Vec<Piece>)| {
            sum(pieces).max(row.whole.map_or(0.0, |(us, spread)| us + spread))
        };
        let most = shown.iter().map(far).reduce(f64::max)?;
        let left =
            shown.iter().map(|(row, _)| width_of(&row.label, 12.0)).fold(30.0, f64::max) + 14.0;
        let (top, height) = (34.0, 24.0);
        let bottom = top + height * shown.len() as f64;
        let plane = Plane {
            x: Axis::linear(0.0, most),
            y: Axis::linear(0.0, 1.0),
            across: (left, 826.0),
            down: (top, bottom),
        };
        let keys = [
            (html! { circle class="front" r="4" {} }, "timed whole"),
            (html! { line class="bound" x1="0" x2="0" y1="-6" y2="6" {} }, "bound"),
            (
                html! { rect x="-5" y="-5" width="10" height="10" rx="2" style="fill:var(--ffn)" {} },
                "FFN",
            ),
            (
                html! { rect x="-5" y="-5" width="10" height="10" rx="2" style="fill:var(--head)" {} },
                "embedding, head",
            ),
        ];
        let body = html! {
            (super::trust::scale(&plane, "decode µs, layer after layer"))
            @for (index, (Row { number, label, whole, .. }, pieces)) in shown.iter().enumerate() {
                @let y = top + height * (index as f64 + 0.5);
                a href=(format!("#c{number}")) data-n=(number) class="pick" {
                    text x=(at(left - 10.0)) y=(at(y + 4.0)) text-anchor="end" { (label) }
                }
                @for (piece, start) in stacked(pieces, |_, _| true) {
                    @if let (Some(a), Some(b)) = (plane.px(start), plane.px(start + piece.us)) {
                        rect x=(at(a)) y=(at(y - 7.0)) width=(at((b - a - 0.4).max(0.3))) height="14" style=(colour(piece)) {}
                    }
                }
                @if let Some(x) = plane.px(pieces.iter().map(|piece| piece.bound_us).sum()) {
                    line class="bound" x1=(at(x)) x2=(at(x)) y1=(at(y - 9.5)) y2=(at(y + 9.5)) {}
                }
                @if let Some((us, spread)) = whole {
                    @if let (Some(a), Some(x), Some(b)) = (plane.px(us - spread), plane.px(*us), plane.px(us + spread)) {
                        line class="whisker" x1=(at(a)) x2=(at(b)) y1=(at(y)) y2=(at(y)) {}
                        circle class="front" cx=(at(x)) cy=(at(y)) r="4.6" {}
                    }
                }
            }
            (super::figure::legend(&keys, 826.0, 12.0))
        };
        let mut caption = "Each bar is a mixer in its colour or an FFN, as that part was timed. The bound of a stack is the sum over its \
             parts of the larger of bytes and operations at the highest rate that any part reached in this campaign; \
             `deltafront profile` measures the machine’s own limits."
            .to_owned();
        if shown.len() < rows.len() {
            let (all, some) = (rows.len().to_string(), shown.len().to_string());
            caption.extend([" Of ", &all, " stacks the first ", &some, " are shown."]);
        }
        Some(Figure {
            name: "latency-by-layer".to_owned(),
            title: "Where the time goes".to_owned(),
            caption,
            size: (840.0, bottom + 44.0),
            body,
        })
    }
}

fn colour(piece: &Piece) -> String {
    match (piece.layer, piece.kind) {
        (None, _) => "fill:var(--head)".to_owned(),
        (Some(_), kind) => format!("fill:{}", fill(kind)),
    }
}
