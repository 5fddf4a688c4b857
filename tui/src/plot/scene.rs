//! What the plot shows, before it is laid on cells: points, ranges and the front.

use db::snapshot::{Candidate, CandidateState, Snapshot};

use search::objective::read;

use super::Axis;

/// How a point is emphasised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dominated,
    Front,
    Reference,
}

/// A candidate in the plane.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) x_error: f64,
    pub(super) y_error: f64,
    pub(super) kind: Kind,
    pub(super) on_front: bool,
    pub(super) label: String,
    pub(super) selected: bool,
}

/// Everything in the plot.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) x_name: String,
    pub(super) y_name: String,
    pub(super) points: Vec<Point>,
    /// The decode budget, when x is the decode latency.
    pub(super) budget: Option<f64>,
    /// The x of the selected candidate when it has no y yet.
    pub(super) selected_x: Option<f64>,
}

/// The names of the values on x and y: the quality is drawn over the cost. With one objective the other side is the
/// decode latency.
pub fn axes(objectives: &[String]) -> (String, String) {
    let is_quality = |name: &&String| matches!(name.as_str(), "bits_per_byte" | "validation_loss");
    let is_latency = |name: &&String| name.ends_with("_us");
    let y = objectives
        .iter()
        .find(is_quality)
        .or_else(|| objectives.iter().find(|name| !is_latency(name)))
        .or(objectives.last());
    let y = y.cloned().unwrap_or_else(|| "bits_per_byte".to_owned());
    let rest = || objectives.iter().filter(|name| **name != y);
    let x = rest().find(is_latency).or_else(|| rest().next()).cloned();
    (x.unwrap_or_else(|| if y == "decode_us" { "parameters" } else { "decode_us" }.to_owned()), y)
}

impl Scene {
    /// `None` when no candidate has both values.
    pub(super) fn of(snapshot: &Snapshot, selected: Option<u32>) -> Option<Self> {
        let (x_name, y_name) = axes(&snapshot.campaign.objectives);
        let points: Vec<Point> = snapshot
            .candidates
            .iter()
            .filter_map(|candidate| {
                point(candidate, &x_name, &y_name, selected == Some(candidate.number))
            })
            .collect();
        if points.is_empty() {
            return None;
        }
        let selected_x = snapshot
            .candidates
            .iter()
            .find(|candidate| {
                Some(candidate.number) == selected && !points.iter().any(|point| point.selected)
            })
            .and_then(|candidate| read(&candidate.values, &x_name))
            .map(|value| value.mean);
        let budget = snapshot.campaign.latency.decode_budget_us.filter(|_| x_name == "decode_us");
        let x = axis(&points, |point| point.x, budget);
        let y = axis(&points, |point| point.y, None);
        Some(Self { x, y, x_name, y_name, points, budget, selected_x })
    }

    /// Whether there is a point of this kind.
    pub(super) fn any(&self, kind: Kind) -> bool {
        self.points.iter().any(|point| point.kind == kind)
    }

    /// The members of the front that bound the plane of the plot, by rising x. With more than two objectives some
    /// members are dominated in this plane; they are not on the staircase.
    pub(super) fn staircase(&self) -> Vec<(f64, f64)> {
        let mut members: Vec<(f64, f64)> = self
            .points
            .iter()
            .filter(|point| point.on_front)
            .map(|point| (point.x, point.y))
            .collect();
        members.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut stairs: Vec<(f64, f64)> = Vec::new();
        for member in members {
            if stairs.last().is_none_or(|last| member.1 < last.1) {
                stairs.push(member);
            }
        }
        stairs
    }
}

fn point(candidate: &Candidate, x_name: &str, y_name: &str, selected: bool) -> Option<Point> {
    if candidate.state != CandidateState::Done {
        return None;
    }
    let (x, y) = (read(&candidate.values, x_name)?, read(&candidate.values, y_name)?);
    if !x.mean.is_finite() || !y.mean.is_finite() {
        return None;
    }
    // What was trained for less than others has no place among them.
    candidate.rank?;
    let on_front = candidate.rank == Some(0);
    let error = |error: Option<f64>| error.filter(|error| error.is_finite()).unwrap_or(0.0).abs();
    Some(Point {
        x: x.mean,
        y: y.mean,
        x_error: error(x.standard_error),
        y_error: error(y.standard_error),
        kind: match (&candidate.reference, on_front) {
            (Some(_), _) => Kind::Reference,
            (None, true) => Kind::Front,
            (None, false) => Kind::Dominated,
        },
        on_front,
        label: candidate.reference.clone().unwrap_or_else(|| candidate.number.to_string()),
        selected,
    })
}

/// A range that holds the front and the references, and of the rest what is not so far off that the front would be
/// pressed into a corner.
fn axis(points: &[Point], of: impl Fn(&Point) -> f64, extra: Option<f64>) -> Axis {
    /// Points farther than this many spans of the front beyond it are shown at the edge.
    const REACH: f64 = 3.0;
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), value| {
            (lo.min(value), hi.max(value))
        })
    };
    let (lo, hi) = range(&mut points.iter().map(&of));
    let (core_lo, core_hi) =
        range(&mut points.iter().filter(|point| point.kind != Kind::Dominated).map(&of));
    // Spans are ratios where they can be: a front over decades reaches far.
    let hi = if lo > 0.0 && core_hi > core_lo {
        let ratio = core_hi / core_lo;
        if hi > core_hi * ratio.powf(REACH) { core_hi * ratio } else { hi }
    } else if core_hi > core_lo && hi > core_hi + REACH * (core_hi - core_lo) {
        core_hi + (core_hi - core_lo)
    } else {
        hi
    };
    let hi = extra.filter(|&extra| extra > hi && extra < hi + 0.5 * (hi - lo)).unwrap_or(hi);
    Axis::spanning(lo, hi)
}
