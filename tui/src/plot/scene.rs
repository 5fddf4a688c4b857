//! What the plot shows, before it is laid on cells: points, ranges and the front.

use db::snapshot::{Candidate, Snapshot};
use search::campaign::CandidateState;

use search::metric::{Known, Metric};
use search::objective::Objective;

use super::Axis;
use super::frame::Title;

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
    /// What x and y are; their best values stand at the start of the axes.
    objectives: (Objective, Objective),
    pub(super) x_title: Title,
    pub(super) y_title: Title,
    pub(super) points: Vec<Point>,
    /// The decode budget, when x is the decode latency.
    pub(super) budget: Option<f64>,
    /// The x of the selected candidate when it has no y yet.
    pub(super) selected_x: Option<f64>,
}

/// What is drawn on x and on y: the quality over the cost. With one objective the other side is the decode latency.
pub fn axes(objectives: &[Objective]) -> (Objective, Objective) {
    let usual = |metric: Metric| Objective::new(metric.name(), metric.facts().direction);
    let is_quality =
        |o: &&Objective| o.metric().is_some_and(|metric| metric.facts().known == Known::Text);
    let is_latency = |o: &&Objective| o.name().ends_with("_us");
    let y = objectives
        .iter()
        .find(is_quality)
        .or_else(|| objectives.iter().find(|o| !is_latency(o)))
        .or(objectives.last());
    let y = y.cloned().unwrap_or_else(|| usual(Metric::BitsPerByte));
    let rest = || objectives.iter().filter(|o| **o != y);
    let x = rest().find(is_latency).or_else(|| rest().next()).cloned();
    let is_decode = y.metric() == Some(Metric::DecodeUs);
    let other = if is_decode { Metric::Parameters } else { Metric::DecodeUs };
    (x.unwrap_or_else(|| usual(other)), y)
}

impl Scene {
    /// `None` when no candidate has both values.
    pub(super) fn of(snapshot: &Snapshot, selected: Option<u32>) -> Option<Self> {
        let objectives = axes(&snapshot.campaign.objectives);
        let (of_x, of_y) = &objectives;
        let points: Vec<Point> = snapshot
            .candidates
            .iter()
            .filter_map(|candidate| {
                point(candidate, of_x, of_y, selected == Some(candidate.row.number))
            })
            .collect();
        if points.is_empty() {
            return None;
        }
        let selected_x = snapshot
            .candidates
            .iter()
            .find(|candidate| {
                Some(candidate.row.number) == selected && !points.iter().any(|point| point.selected)
            })
            .and_then(|candidate| of_x.value(&candidate.row.values))
            .map(|value| value.mean);
        let is_decode = of_x.metric() == Some(Metric::DecodeUs);
        let budget = snapshot.campaign.latency.decode_budget_us.filter(|_| is_decode);
        let x = axis(&points, of_x, |point| point.x, budget);
        let y = axis(&points, of_y, |point| point.y, None);
        let (x_title, y_title) = (Title::of_objective(of_x), Title::of_objective(of_y));
        Some(Self { x, y, objectives, x_title, y_title, points, budget, selected_x })
    }

    /// Whether there is a point of this kind.
    pub(super) fn any(&self, kind: Kind) -> bool {
        self.points.iter().any(|point| point.kind == kind)
    }

    /// The members of the front that bound the plane of the plot, from the best x on. With more than two objectives some
    /// members are dominated in this plane; they are not on the staircase.
    pub(super) fn staircase(&self) -> Vec<(f64, f64)> {
        let (of_x, of_y) = &self.objectives;
        let mut members: Vec<(f64, f64)> = self
            .points
            .iter()
            .filter(|point| point.on_front)
            .map(|point| (of_x.turned(point.x), of_y.turned(point.y)))
            .collect();
        members.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut stairs: Vec<(f64, f64)> = Vec::new();
        for member in members {
            if stairs.last().is_none_or(|last| member.1 < last.1) {
                stairs.push(member);
            }
        }
        stairs.into_iter().map(|(x, y)| (of_x.turned(x), of_y.turned(y))).collect()
    }
}

fn point(
    candidate: &Candidate,
    of_x: &Objective,
    of_y: &Objective,
    selected: bool,
) -> Option<Point> {
    if candidate.row.state != CandidateState::Done {
        return None;
    }
    let values = &candidate.row.values;
    let (x, y) = (of_x.value(values)?, of_y.value(values)?);
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
        kind: match (&candidate.row.reference, on_front) {
            (Some(_), _) => Kind::Reference,
            (None, true) => Kind::Front,
            (None, false) => Kind::Dominated,
        },
        on_front,
        label: candidate.row.reference.clone().unwrap_or_else(|| candidate.row.number.to_string()),
        selected,
    })
}

/// A range that holds the front and the references, and of the rest what is not so far off that the front would be
/// pressed into a corner.
fn axis(
    points: &[Point],
    objective: &Objective,
    of: impl Fn(&Point) -> f64,
    extra: Option<f64>,
) -> Axis {
    /// Points farther than this many spans of the front beyond it are shown at the edge.
    const REACH: f64 = 3.0;
    let of = |point: &Point| objective.turned(of(point));
    let extra = extra.map(|extra| objective.turned(extra));
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
    let axis = Axis::spanning(objective.turned(lo), objective.turned(hi));
    if objective.is_maximised() { axis.reversed() } else { axis }
}
