//! What the plot shows, before it is laid on cells: points, ranges and the front.

use db::Mark;
use db::snapshot::{Campaign, Candidate, Snapshot};
use search::campaign::CandidateState;

use search::metric::{Known, Metric};
use search::objective::Objective;
use search::value::Value;

use super::Axis;
use super::frame::Title;

/// How a point is emphasised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Neither of the others.
    Dominated,
    /// On the front.
    Front,
    /// A reference stack, on the front or not.
    Reference,
}

/// A candidate in the plane.
#[derive(Debug, Clone)]
pub struct Point {
    /// Its value on x.
    pub x: f64,
    /// Its value on y.
    pub y: f64,
    /// The standard error of x; 0 where none is known.
    pub x_error: f64,
    /// The same of y.
    pub y_error: f64,
    /// How it is emphasised.
    pub kind: Kind,
    /// Whether it is on the front.
    pub on_front: bool,
    /// The number of its candidate.
    pub number: u32,
    /// The name of the reference stack that it is.
    pub reference: Option<String>,
}

impl Point {
    /// What it is called in the plot.
    pub fn label(&self) -> String {
        self.reference.clone().unwrap_or_else(|| self.number.to_string())
    }
}

/// Everything in the plot.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The axis of the costs, or of the evaluations.
    pub x: Axis,
    /// The axis of the quality.
    pub y: Axis,
    /// What x and y are; with two, their best values stand at the start of the axes.
    objectives: (Option<Objective>, Objective),
    pub(super) x_title: Title,
    pub(super) y_title: Title,
    /// By the numbers of their candidates.
    pub points: Vec<Point>,
    /// Those of references and members of the front, among the points.
    emphasised: Vec<usize>,
    /// The corners of the line that bounds what the front dominates.
    pub staircase: Vec<(f64, f64)>,
    /// The decode budget, when x is the decode latency.
    pub budget: Option<f64>,
}

/// What is drawn on x and on y: the quality over the cost. With one objective there is no cost: its values are drawn over
/// the evaluations in their order.
pub fn axes(objectives: &[Objective]) -> (Option<Objective>, Objective) {
    let is_quality =
        |o: &&Objective| o.metric().is_some_and(|metric| metric.facts().known == Known::Text);
    let is_latency = |o: &&Objective| {
        let is_on_a_target = Metric::of(o.name()).is_some_and(|(metric, _)| metric.is_latency());
        is_on_a_target || o.name().ends_with("_us")
    };
    let y = objectives
        .iter()
        .find(is_quality)
        .or_else(|| objectives.iter().find(|o| !is_latency(o)))
        .or(objectives.last());
    let y = y.cloned().unwrap_or_else(|| usual(Metric::BitsPerByte));
    let rest = || objectives.iter().filter(|o| **o != y);
    let x = rest().find(is_latency).or_else(|| rest().next()).cloned();
    (x, y)
}

/// What tables name beside the quality: the x of the plot; of stacks with one objective the decode latency, or what else
/// they cost.
pub fn cost(campaign: &Campaign) -> Option<Objective> {
    let (x, y) = axes(&campaign.objectives);
    let is_decode = y.metric() == Some(Metric::DecodeUs);
    let other = if is_decode { Metric::Parameters } else { Metric::DecodeUs };
    x.or_else(|| (!campaign.is_black_box()).then(|| usual(other)))
}

fn usual(metric: Metric) -> Objective {
    Objective::new(metric.name(), metric.facts().direction)
}

impl Scene {
    /// `None` when no candidate has both values. Of the marks where there are some, else of all candidates.
    pub fn of(snapshot: &Snapshot, marks: Option<&[Mark]>) -> Option<Self> {
        let objectives = axes(&snapshot.campaign.objectives);
        let (of_x, of_y) = &objectives;
        let points: Vec<Point> = if let Some(marks) = marks {
            let place = |of| snapshot.campaign.objectives.iter().position(|o| o == of);
            let (x, y) = (of_x.as_ref().and_then(place), place(of_y)?);
            marks.iter().filter_map(|mark| marked(mark, x, y)).collect()
        } else {
            let candidates = snapshot.candidates.iter();
            candidates.filter_map(|row| point(row, of_x.as_ref(), of_y)).collect()
        };
        if points.is_empty() {
            return None;
        }
        let y_title = Title::of_objective(of_y);
        let (x, y, x_title, budget) = if let Some(of_x) = of_x {
            let is_decode = of_x.metric() == Some(Metric::DecodeUs);
            let budget = snapshot.campaign.latency.decode_budget_us.filter(|_| is_decode);
            let x = axis(&points, of_x, |point| point.x, budget);
            let y = axis(&points, of_y, |point| point.y, None);
            (x, y, Title::of_objective(of_x), budget)
        } else {
            let last = points.iter().map(|point| point.x as u32).max().unwrap_or(1);
            let (x, y) = (Axis::counting(1, last.max(2)), history_axis(&points, of_y));
            (x, y, Title::of("evaluations"), None)
        };
        let staircase = staircase(&points, &objectives);
        let is_emphasised = |place: &usize| points[*place].kind != Kind::Dominated;
        let emphasised = (0..points.len()).filter(is_emphasised).collect();
        Some(Self { x, y, objectives, x_title, y_title, points, emphasised, staircase, budget })
    }

    /// What the axes are called, where there is room for their units.
    pub fn titles(&self) -> (&str, &str) {
        (self.x_title.long(), self.y_title.long())
    }

    /// The point of a candidate.
    pub(super) fn point(&self, number: u32) -> Option<&Point> {
        let place = self.points.binary_search_by_key(&number, |point| point.number).ok()?;
        self.points.get(place)
    }

    /// The points of references and members of the front.
    pub fn emphasised(&self) -> impl Iterator<Item = &Point> {
        self.emphasised.iter().map(|&place| &self.points[place])
    }

    /// Where a candidate stands on x, whether it has a point or not.
    pub(super) fn across(&self, candidate: &Candidate) -> Option<f64> {
        Some(across(candidate, self.objectives.0.as_ref())?.mean)
    }

    /// Whether it shows the values of one objective in the order of the evaluations.
    pub fn is_history(&self) -> bool {
        self.objectives.0.is_none()
    }

    /// Whether there is a point of this kind.
    pub fn any(&self, kind: Kind) -> bool {
        match kind {
            Kind::Dominated => self.emphasised.len() < self.points.len(),
            Kind::Front | Kind::Reference => self.emphasised().any(|point| point.kind == kind),
        }
    }
}

/// The members of the front that bound the plane of the plot, from the best x on. With more than two objectives some
/// members are dominated in this plane; they are not on the staircase. With one objective: each best so far.
fn staircase(points: &[Point], (of_x, of_y): &(Option<Objective>, Objective)) -> Vec<(f64, f64)> {
    let turned_x = |x: f64| of_x.as_ref().map_or(x, |of_x| of_x.turned(x));
    let mut members: Vec<(f64, f64)> = points
        .iter()
        .filter(|point| point.on_front || of_x.is_none())
        .map(|point| (turned_x(point.x), of_y.turned(point.y)))
        .collect();
    members.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut stairs: Vec<(f64, f64)> = Vec::new();
    for member in members {
        if stairs.last().is_none_or(|last| member.1 < last.1) {
            stairs.push(member);
        }
    }
    stairs.into_iter().map(|(x, y)| (turned_x(x), of_y.turned(y))).collect()
}

/// The x of a candidate: its value, or its place among the evaluations.
fn across(candidate: &Candidate, of_x: Option<&Objective>) -> Option<Value> {
    match of_x {
        Some(of_x) => candidate.objective(of_x),
        None => Some(evaluation(candidate.row.number)),
    }
}

fn evaluation(number: u32) -> Value {
    Value { mean: f64::from(number), standard_error: None }
}

fn point(candidate: &Candidate, of_x: Option<&Objective>, of_y: &Objective) -> Option<Point> {
    if candidate.row.state != CandidateState::Done {
        return None;
    }
    let at = (across(candidate, of_x)?, candidate.objective(of_y)?);
    // What was trained for less than others has no place among them.
    let rank = candidate.rank?;
    placed(at, rank, candidate.row.number, candidate.row.reference.as_ref())
}

/// The point of a mark, of whose values these are shown.
fn marked(mark: &Mark, x: Option<usize>, y: usize) -> Option<Point> {
    let x = match x {
        Some(x) => *mark.values.get(x)?,
        None => evaluation(mark.number),
    };
    placed((x, *mark.values.get(y)?), mark.rank, mark.number, mark.reference.as_ref())
}

fn placed(
    (x, y): (Value, Value),
    rank: u32,
    number: u32,
    reference: Option<&String>,
) -> Option<Point> {
    if !x.mean.is_finite() || !y.mean.is_finite() {
        return None;
    }
    let on_front = rank == 0;
    let error = |error: Option<f64>| error.filter(|error| error.is_finite()).unwrap_or(0.0).abs();
    Some(Point {
        x: x.mean,
        y: y.mean,
        x_error: error(x.standard_error),
        y_error: error(y.standard_error),
        kind: match (reference, on_front) {
            (Some(_), _) => Kind::Reference,
            (None, true) => Kind::Front,
            (None, false) => Kind::Dominated,
        },
        on_front,
        number,
        reference: reference.cloned(),
    })
}

/// A range that holds the better half of all values, and of the rest what is not so far off that they would be pressed into
/// a line. More is above.
fn history_axis(points: &[Point], objective: &Objective) -> Axis {
    /// Points farther than this many spans of the better half beyond it are shown at the edge.
    const REACH: f64 = 3.0;
    let mut values: Vec<f64> = points.iter().map(|point| objective.turned(point.y)).collect();
    values.sort_by(f64::total_cmp);
    let (lo, middle) = (values[0], values[values.len() / 2]);
    let (span, hi) = (middle - lo, values[values.len() - 1]);
    let hi = if span > 0.0 && hi > middle + REACH * span { middle + span } else { hi };
    Axis::spanning(objective.turned(lo), objective.turned(hi))
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
