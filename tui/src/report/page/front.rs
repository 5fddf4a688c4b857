//! The front with its uncertainty, and with one objective the values in the order of the evaluations.

use std::collections::BTreeSet;

use db::snapshot::Campaign;
use maud::{Markup, html};
use tui::plot::{Kind, Point, Scene};

use super::figure::{Figure, Plane, at, legend, path, width_of};

/// Dominated candidates that are drawn at most.
pub(super) const DOTS: usize = 1500;

/// Beyond so many only the front and the references have bars.
const CROWD: usize = 60;

const SIZE: (f64, f64) = (840.0, 500.0);
const LABEL: f64 = 11.5;

/// What is known of the points beside their places.
pub(super) struct Known<'a> {
    pub(super) campaign: &'a Campaign,
    /// Of whom one axis is of a whole model's time.
    pub(super) whole: &'a BTreeSet<u32>,
    /// Who may be on the front beside its members.
    pub(super) maybe: &'a BTreeSet<u32>,
    /// Whether the latency is on an axis.
    pub(super) is_timed: bool,
}

/// The dominated points that are shown: all, or each so many, in the order of their proposal.
pub(super) fn shown<'a>(scene: &'a Scene, maybe: &BTreeSet<u32>) -> (Vec<&'a Point>, usize) {
    let is_plain = |point: &&Point| point.kind == Kind::Dominated && !maybe.contains(&point.number);
    let plain: Vec<&Point> = scene.points.iter().filter(is_plain).collect();
    let step = plain.len().div_ceil(DOTS).max(1);
    let all = plain.len();
    (plain.into_iter().step_by(step).collect(), all)
}

pub(super) fn figure(scene: &Scene, known: &Known) -> Figure {
    let plane = Plane { x: scene.x, y: scene.y, across: (52.0, 826.0), down: (46.0, 450.0) };
    let (dots, all) = shown(scene, known.maybe);
    let (x_title, y_title) = scene.titles();
    let (right, bottom) = (plane.across.1, plane.down.1);
    let special: Vec<&Point> = scene
        .points
        .iter()
        .filter(|p| p.kind != Kind::Dominated || known.maybe.contains(&p.number))
        .collect();
    let is_crowded = special.len() > CROWD;
    let corners = stairs(scene, &plane);
    let body = html! {
        (plane.frame(x_title, y_title))
        @if let Some(x) = scene.budget.and_then(|budget| plane.px(budget)) {
            line class="budget" x1=(at(x)) x2=(at(x)) y1=(at(plane.down.0)) y2=(at(bottom)) {}
            text class="small" x=(at(x - 5.0)) y=(at(plane.down.0 + 10.0)) text-anchor="end" { "budget" }
        }
        g class="dots" {
            @for point in &dots {
                @if let Some((x, y)) = plane.place((point.x, point.y)) {
                    circle class="dot" data-n=(point.number) cx=(at(x)) cy=(at(y)) r="2.6" {}
                }
            }
        }
        @if !corners.is_empty() { path class="stairs" d=(path(corners.iter().copied())) {} }
        @for point in special.iter().filter(|p| !is_crowded || p.kind != Kind::Dominated) { (errors(point, &plane)) }
        @for point in &special { (sign(point, &plane, known)) }
        (labels(&special, &dots, &corners, &plane))
        (legend(&keys(scene, known, &special, &dots), right, 12.0))
    };
    let mut caption = String::new();
    if scene.is_history() {
        caption
            .push_str("Every value in the order of the evaluations; the line is the best so far. ");
    } else {
        caption.push_str("Better is down and to the left. Bars are one standard error");
        caption.push_str(if known.campaign.target_tokens > known.campaign.tokens {
            ", of text, seed, rate and prediction. "
        } else {
            ". "
        });
        if known.is_timed {
            caption.push_str("Filled: timed as a whole model. Open: a sum of timed parts. ");
        }
    }
    if is_crowded && !scene.is_history() {
        caption.push_str("Of who may belong to the front the bars are left out. ");
    }
    if dots.len() < all {
        let drawn = dots.len().to_string();
        caption.extend(["Of ", &all.to_string(), " dominated candidates ", &drawn, " are drawn. "]);
    }
    Figure {
        name: "front".to_owned(),
        title: format!("The front of {}", known.campaign.name),
        caption: caption.trim_end().to_owned(),
        size: SIZE,
        body,
    }
}

/// The line that bounds what the front dominates, or the best so far, up to the end of the axis.
fn stairs(scene: &Scene, plane: &Plane) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for &step in &scene.staircase {
        let Some((x, y)) = plane.place(step) else { continue };
        match corners.last() {
            Some(&(_, before)) => corners.push((x, before)),
            None if !scene.is_history() => corners.push((x, plane.down.0)),
            None => {}
        }
        corners.push((x, y));
    }
    if let Some(&(_, last)) = corners.last() {
        corners.push((plane.across.1, last));
    }
    corners
}

fn errors(point: &Point, plane: &Plane) -> Markup {
    let class = if point.kind == Kind::Reference { "error-reference" } else { "error" };
    let across = (plane.px(point.x - point.x_error), plane.px(point.x + point.x_error));
    let down = (plane.py(point.y - point.y_error), plane.py(point.y + point.y_error));
    html! {
        @if let Some((x, y)) = plane.place((point.x, point.y)) {
            @if let (Some(from), Some(to)) = across {
                @if (to - from).abs() > 1.0 {
                    line class=(class) x1=(at(from)) x2=(at(to)) y1=(at(y)) y2=(at(y)) {}
                }
            }
            @if let (Some(from), Some(to)) = down {
                @if (to - from).abs() > 1.0 {
                    line class=(class) x1=(at(x)) x2=(at(x)) y1=(at(from)) y2=(at(to)) {}
                }
            }
        }
    }
}

fn diamond(r: f64) -> String {
    format!("M0 -{0}L{0} 0L0 {0}L-{0} 0Z", at(r))
}

/// A point that can be opened.
fn sign(point: &Point, plane: &Plane, known: &Known) -> Markup {
    let Some((x, y)) = plane.place((point.x, point.y)) else { return html! {} };
    let shape = match point.kind {
        Kind::Reference if point.on_front => {
            html! { path class="reference on-front" d=(diamond(6.0)) {} }
        }
        Kind::Reference => html! { path class="reference" d=(diamond(5.6)) {} },
        Kind::Dominated => html! { circle class="maybe" r="3.6" {} },
        Kind::Front if known.is_timed && !known.whole.contains(&point.number) => {
            html! { circle class="sum" r="4.2" {} }
        }
        Kind::Front => html! { circle class="front" r="5.2" {} },
    };
    html! {
        a class="pick" href=(format!("#c{}", point.number)) data-n=(point.number)
            transform=(format!("translate({} {})", at(x), at(y))) {
            title { "candidate " (point.label()) }
            (shape)
        }
    }
}

/// A box on the drawing: left, top, right, bottom.
type Area = (f64, f64, f64, f64);

fn overlaps(a: &Area, b: &Area) -> bool {
    a.0 < b.2 && b.0 < a.2 && a.1 < b.3 && b.1 < a.3
}

/// Numbers and names beside their points, where nothing else is; the others are told by the points' titles.
fn labels(special: &[&Point], dots: &[&Point], corners: &[(f64, f64)], plane: &Plane) -> Markup {
    let area = |(x, y): (f64, f64), r: f64| (x - r, y - r, x + r, y + r);
    let place = |point: &&Point| plane.place((point.x, point.y));
    let mut taken: Vec<Area> = special.iter().filter_map(place).map(|p| area(p, 6.0)).collect();
    let mut crowd: Vec<Area> = dots.iter().filter_map(place).map(|p| area(p, 2.0)).collect();
    crowd.extend(corners.windows(2).map(|ends| {
        let ((a, b), (c, d)) = (ends[0], ends[1]);
        (a.min(c) - 1.0, b.min(d) - 1.0, a.max(c) + 1.0, b.max(d) + 1.0)
    }));
    let mut placed: Vec<(f64, f64, String, Kind)> = Vec::new();
    let mut order: Vec<&&Point> = special.iter().filter(|p| p.kind != Kind::Dominated).collect();
    order.sort_by_key(|point| !point.on_front);
    for point in order {
        let Some((x, y)) = place(point) else { continue };
        let text = point.label();
        let width = width_of(&text, LABEL);
        let spots = [
            (x - 8.0 - width, y + 15.0),
            (x + 9.0, y - 7.0),
            (x - 8.0 - width, y + 4.0),
            (x + 10.0, y + 4.0),
            (x - width / 2.0, y + 19.0),
            (x - width / 2.0, y - 11.0),
            (x - 9.0 - width, y - 7.0),
            (x + 9.0, y + 15.0),
        ];
        let spots =
            spots.map(|(left, base)| (left, base, (left, base - 10.0, left + width, base + 3.0)));
        let is_inside =
            |a: &Area| a.0 > 2.0 && a.2 < SIZE.0 && a.1 > plane.down.0 - 8.0 && a.3 < plane.down.1;
        let is_free = |a: &Area| is_inside(a) && !taken.iter().any(|b| overlaps(a, b));
        let is_clear = |a: &Area| !crowd.iter().any(|b| overlaps(a, b));
        let spot = spots
            .iter()
            .find(|(.., a)| is_free(a) && is_clear(a))
            .or_else(|| spots.iter().find(|(.., a)| is_free(a)));
        if let Some(&(left, base, area)) = spot {
            taken.push(area);
            placed.push((left, base, text, point.kind));
        }
    }
    html! {
        @for (x, y, text, kind) in placed {
            text class=(if kind == Kind::Reference { "label-reference" } else { "label" }) x=(at(x)) y=(at(y)) { (text) }
        }
    }
}

fn keys<'a>(
    scene: &Scene,
    known: &Known,
    special: &[&Point],
    dots: &[&Point],
) -> Vec<(Markup, &'a str)> {
    let mut keys = Vec::new();
    let is_front = |p: &&&Point| p.kind == Kind::Front;
    if scene.any(Kind::Front) {
        let is_whole = |p: &&Point| known.whole.contains(&p.number);
        if known.is_timed {
            if special.iter().filter(is_front).any(is_whole) {
                keys.push((html! { circle class="front" r="4.6" {} }, "front, timed whole"));
            }
            if special.iter().filter(is_front).any(|p| !is_whole(p)) {
                keys.push((html! { circle class="sum" r="3.8" {} }, "front, sum of parts"));
            }
        } else {
            let word = if scene.is_history() { "the best" } else { "front" };
            keys.push((html! { circle class="front" r="4.6" {} }, word));
        }
    }
    if special.iter().any(|p| p.kind == Kind::Dominated) {
        keys.push((html! { circle class="maybe" r="3.6" {} }, "may belong to it"));
    }
    if scene.any(Kind::Reference) {
        keys.push((html! { path class="reference" d=(diamond(5.2)) {} }, "reference stack"));
    }
    if !dots.is_empty() {
        keys.push((html! { circle class="dot" r="2.6" {} }, "dominated"));
    }
    keys
}
