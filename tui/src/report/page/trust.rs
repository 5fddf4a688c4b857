//! How far short trainings tell of long ones: rank correlations with their intervals, and pairs in the right order.

use maud::html;
use search::campaign::findings::Agreement;
use search::campaign::prediction::Backtest;
use tui::plot::Axis;
use tui::quantity;

use super::figure::{Figure, Plane, at};

const ROW: f64 = 30.0;
const LEFT: f64 = 300.0;
const TOP: f64 = 34.0;

fn row_title(value: &str, fewer: u64, more: u64, candidates: usize) -> String {
    format!(
        "{}, {} → {} tokens, {candidates}",
        quantity::title(value),
        quantity::scaled(fewer as f64),
        quantity::scaled(more as f64),
    )
}

/// Shares up to 1 across, so many rows down.
fn plane(low: f64, rows: usize) -> Plane {
    Plane {
        x: Axis::linear(low, 1.0),
        y: Axis::linear(0.0, 1.0),
        across: (LEFT, 800.0),
        down: (TOP, TOP + ROW * rows as f64),
    }
}

/// Kendall's τ of each two lengths of training; none where nothing was trained twice.
pub(super) fn agreements(agreements: &[Agreement]) -> Option<Figure> {
    let rows: Vec<_> = agreements.iter().filter_map(|a| Some((a, a.kendall?))).collect();
    let low = rows.iter().map(|(_, tau)| tau.low).reduce(f64::min)?;
    let plane = plane(low.min(0.0), rows.len());
    let body = html! {
        (scale(&plane, "Kendall’s τ_b"))
        @for (index, (agreement, tau)) in rows.iter().enumerate() {
            @let y = TOP + ROW * (index as f64 + 0.5);
            text x=(at(LEFT - 18.0)) y=(at(y + 4.0)) text-anchor="end" {
                (row_title(&agreement.value, agreement.fewer, agreement.more, agreement.pairs))
            }
            @if let (Some(from), Some(x), Some(to)) = (plane.px(tau.low), plane.px(tau.value), plane.px(tau.high)) {
                line class="error" style="stroke-width:2" x1=(at(from)) x2=(at(to)) y1=(at(y)) y2=(at(y)) {}
                circle class="front" cx=(at(x)) cy=(at(y)) r="5" {}
            }
        }
    };
    Some(Figure {
        name: "rank-agreement".to_owned(),
        title: "Rank correlation between shorter and longer trainings".to_owned(),
        caption: "Kendall’s τ_b between shorter and longer trainings of the same candidates, with 95 % intervals; the last \
                  number is that of the candidates."
            .to_owned(),
        size: (840.0, plane.down.1 + 44.0),
        body,
    })
}

/// The share of pairs in the order of the longer trainings; none where nothing was trained twice.
pub(super) fn pairs(tests: &[Backtest]) -> Option<Figure> {
    let low = tests.iter().flat_map(|t| [t.right, t.right_predicted]).reduce(f64::min)?;
    let plane = plane(low.min(0.5), tests.len());
    let keys = [
        (html! { circle class="sum" r="4" {} }, "as measured"),
        (html! { circle class="front" r="4.6" {} }, "by prediction"),
    ];
    let body = html! {
        (scale(&plane, "share of pairs in the order of the longer training"))
        @for (index, test) in tests.iter().enumerate() {
            @let y = TOP + ROW * (index as f64 + 0.5);
            text x=(at(LEFT - 18.0)) y=(at(y + 4.0)) text-anchor="end" {
                (row_title(&test.value, test.fewer, test.more, test.candidates))
            }
            @if let (Some(from), Some(to)) = (plane.px(test.right), plane.px(test.right_predicted)) {
                line class="error" x1=(at(from)) x2=(at(to)) y1=(at(y)) y2=(at(y)) {}
                circle class="sum" cx=(at(from)) cy=(at(y)) r="4.4" {}
                circle class="front" cx=(at(to)) cy=(at(y)) r="5" {}
            }
        }
        (super::figure::legend(&keys, 800.0, 12.0))
    };
    Some(Figure {
        name: "pair-accuracy".to_owned(),
        title: "Pairs in the order of longer trainings".to_owned(),
        caption: "How many pairs of candidates the shorter training puts in the order of the longer one; a half is chance."
            .to_owned(),
        size: (840.0, plane.down.1 + 44.0),
        body,
    })
}

/// Rules at round numbers, with their labels below.
pub(super) fn scale(plane: &Plane, title: &str) -> maud::Markup {
    let ((_, right), (top, bottom)) = (plane.across, plane.down);
    html! {
        @for tick in plane.x.ticks(6) {
            @if let Some(x) = plane.px(tick.value) {
                line class="grid" x1=(at(x)) x2=(at(x)) y1=(at(top)) y2=(at(bottom)) {}
                text class="tick" x=(at(x)) y=(at(bottom + 15.0)) text-anchor="middle" { (tick.label) }
            }
        }
        text class="name" x=(at(right)) y=(at(bottom + 34.0)) text-anchor="end" { (title) }
    }
}
