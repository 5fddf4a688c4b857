//! The law of depth and width: loss against latency, a line for each depth.

use maud::html;
use search::metric::Metric;
use tui::plot::Axis;
use tui::quantity;

use super::figure::{Figure, Plane, at, free, path};
use crate::report::law::Found;

/// From few layers to many: between colours that light and dark ground both show.
const RAMP: [(f64, f64, f64); 3] =
    [(214.0, 142.0, 30.0), (30.0, 152.0, 130.0), (70.0, 100.0, 190.0)];

fn ramp(share: f64) -> String {
    let place = share.clamp(0.0, 1.0) * 2.0;
    let (from, to) = if place < 1.0 { (RAMP[0], RAMP[1]) } else { (RAMP[1], RAMP[2]) };
    let part = if place < 1.0 { place } else { place - 1.0 };
    let mix = |a: f64, b: f64| (a + (b - a) * part).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// None while no stack is timed.
pub(super) fn figure(found: &Found) -> Option<Figure> {
    let series = found.series();
    let all = || series.iter().flat_map(|(_, series)| series.line.iter().chain(&series.points));
    let range = |of: fn(&(f64, f64)) -> f64| {
        all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), x| (lo.min(x), hi.max(x)))
    };
    let ((left, right), (low, high)) = (range(|point| point.0), range(|point| point.1));
    if !(left.is_finite() && low.is_finite()) {
        return None;
    }
    let plane = Plane {
        x: Axis::spanning(left, right),
        y: Axis::spanning(low, high),
        across: (52.0, 740.0),
        down: (34.0, 330.0),
    };
    let mut ends: Vec<f64> = Vec::new();
    let count = series.len().max(2) as f64 - 1.0;
    let body = html! {
        (plane.frame(&quantity::axis_title(Metric::DecodeUs.name()), &quantity::axis_title(&found.value)))
        @if let Some(x) = found.budget_us.and_then(|budget| plane.px(budget)) {
            line class="budget" x1=(at(x)) x2=(at(x)) y1=(at(plane.down.0)) y2=(at(plane.down.1)) {}
            text class="small" x=(at(x - 5.0)) y=(at(plane.down.0 + 10.0)) text-anchor="end" { "budget" }
        }
        @for (index, (depth, series)) in series.iter().enumerate() {
            @let colour = ramp(index as f64 / count);
            @let line: Vec<_> = series.line.iter().filter_map(|point| plane.place(*point)).collect();
            @for point in series.points.iter().filter_map(|point| plane.place(*point)) {
                circle cx=(at(point.0)) cy=(at(point.1)) r="3" style=(format!("fill:{colour};fill-opacity:.55")) {}
            }
            path class="line" style=(format!("stroke:{colour}")) d=(path(line.iter().copied())) {}
            @if let Some((x, y)) = line.last() {
                @let y = free(&mut ends, *y, -14.5);
                text x=(at(x + 8.0)) y=(at(y + 4.0)) style=(format!("fill:{colour};font-weight:600")) {
                        (depth) @if index == 0 { " " (series.name) }
                    }
            }
        }
    };
    Some(Figure {
        name: "depth-width-law".to_owned(),
        title: "The law of depth and width".to_owned(),
        caption: format!(
            "{}. Lines are the law, one for each depth, over the widths; points are the trained stacks of that depth. {}",
            found.formula(),
            found.gains_text().trim_end().replace('\n', " "),
        ),
        size: (840.0, 372.0),
        body,
    })
}
