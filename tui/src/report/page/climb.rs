//! What each evaluation has found: the hypervolume, or the best value so far.

use maud::html;
use tui::plot::Axis;

use super::figure::{Figure, Plane, at, free, path};
use crate::report::progress::Progress;

/// Points of a line at most.
const POINTS: usize = 600;
/// Whose line has which colour; more algorithms are grey.
const COLOURS: [&str; 6] = [
    "var(--front)",
    "var(--reference)",
    "var(--m-dn)",
    "var(--m-swa)",
    "var(--m-lgdn)",
    "var(--m-attn)",
];

pub(super) fn figure(progress: &Progress) -> Option<Figure> {
    let lines = progress.lines();
    let all = || lines.iter().flat_map(|(.., line)| line);
    let last = all().map(|(n, _)| *n).max()?;
    let low = |(mean, error): (f64, Option<f64>)| mean - error.unwrap_or(0.0);
    let high = |(mean, error): (f64, Option<f64>)| mean + error.unwrap_or(0.0);
    let bottom = all().map(|(_, mean)| low(*mean)).fold(f64::INFINITY, f64::min);
    let top = all().map(|(_, mean)| high(*mean)).fold(f64::NEG_INFINITY, f64::max);
    let room = if lines.len() > 1 { 130.0 } else { 14.0 };
    let plane = Plane {
        x: Axis::linear(1.0, last.max(2) as f64),
        y: Axis::linear(bottom, top),
        across: (52.0, 840.0 - room),
        down: (34.0, 240.0),
    };
    let mut ends: Vec<f64> = Vec::new();
    let body = html! {
        (plane.frame("evaluations", &progress.y_name()))
        @for (index, (name, campaigns, line)) in lines.iter().enumerate() {
            @let colour = COLOURS.get(index).copied().unwrap_or("var(--dim)");
            @let step = line.len().div_ceil(POINTS).max(1);
            @let kept = || line.iter().enumerate().filter(|(i, _)| i % step == 0 || i + 1 == line.len()).map(|(_, p)| p);
            @let steps = stepped(kept().filter_map(|(n, mean)| plane.place((*n as f64, mean.0))));
            @if *campaigns > 1 {
                @let upper = kept().filter_map(|(n, mean)| plane.place((*n as f64, high(*mean))));
                @let lower = kept().rev().filter_map(|(n, mean)| plane.place((*n as f64, low(*mean))));
                path class="band" style=(format!("fill:{colour}")) d=(path(upper.chain(lower)) + "Z") {}
            }
            path class="line" style=(format!("stroke:{colour}")) d=(path(steps.iter().copied())) {}
            @if let (true, Some((x, y))) = (lines.len() > 1, steps.last()) {
                @let y = free(&mut ends, *y, 14.5);
                text x=(at(x + 8.0)) y=(at(y + 4.0)) style=(format!("fill:{colour};font-weight:600")) {
                    (name) @if *campaigns > 1 { " × " (campaigns) }
                }
            }
        }
    };
    let mut caption = progress.scaling().trim_end().replace('\n', " ");
    if lines.iter().any(|(_, campaigns, _)| *campaigns > 1) {
        caption.push_str(" Lines are means over campaigns, bands one standard error of them.");
    }
    Some(Figure {
        name: "hypervolume".to_owned(),
        title: progress.y_name(),
        caption,
        size: (840.0, 282.0),
        body,
    })
}

/// What was found stays found until more is.
fn stepped(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for (x, y) in points {
        match steps.last() {
            Some(&(_, before)) if (before - y).abs() > 0.05 => steps.extend([(x, before), (x, y)]),
            _ => steps.push((x, y)),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_climb_is_made_of_steps() {
        let steps = stepped([(0.0, 5.0), (1.0, 5.0), (2.0, 1.0)].into_iter());
        assert_eq!(steps, [(0.0, 5.0), (1.0, 5.0), (2.0, 5.0), (2.0, 1.0)]);
    }
}
