//! Hypervolume on a scale that campaigns can share: the share of a reference front's hypervolume that a set of points
//! dominates, HV/HV*.

use super::{Frontier, Objectives, front, hypervolume};

/// Objectives scaled by the ranges of a reference front: its best value of each becomes 0, its worst 1.
///
/// The reference point lies a tenth of the range beyond the worst, at 1.1 in every objective, so that the ends of the
/// front count too. An objective that is positive and spans more than a decade on the front counts by its logarithm, as
/// it is drawn. One that has a single value there is scaled by that value.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    axes: Vec<ScaledAxis>,
    /// Hypervolume of the reference front.
    whole: f64,
}

/// How one objective is scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaledAxis {
    /// The best value on the reference front.
    pub best: f64,
    /// The worst value on it.
    pub worst: f64,
    /// Whether logarithms are scaled.
    pub is_log: bool,
}

impl ScaledAxis {
    fn of(best: f64, worst: f64) -> Self {
        Self { best, worst, is_log: best > 0.0 && worst > 10.0 * best }
    }

    fn place(&self, value: f64) -> f64 {
        let Self { best, worst, is_log } = *self;
        if is_log {
            return (value / best).ln() / (worst / best).ln();
        }
        let range = if worst > best {
            worst - best
        } else if best == 0.0 {
            1.0
        } else {
            best.abs()
        };
        (value - best) / range
    }
}

impl Scale {
    /// The reference point in every scaled objective.
    pub const REFERENCE: f64 = 1.1;

    /// The scale of the front of `points`; none without points.
    pub fn of(points: &[Objectives]) -> Option<Self> {
        let members: Vec<&Objectives> = front(points).into_iter().map(|i| &points[i]).collect();
        let objectives = members.first()?.values().len();
        let axes = (0..objectives)
            .map(|j| {
                let values = members.iter().map(|member| member.values()[j]);
                let best = values.clone().fold(f64::INFINITY, f64::min);
                ScaledAxis::of(best, values.fold(f64::NEG_INFINITY, f64::max))
            })
            .collect();
        let mut scale = Self { axes, whole: 1.0 };
        let members: Vec<Objectives> = members.into_iter().cloned().collect();
        scale.whole = scale.share(&members);
        Some(scale)
    }

    /// How each objective is scaled.
    pub fn axes(&self) -> &[ScaledAxis] {
        &self.axes
    }

    /// The hypervolume of `points` over that of the reference front.
    pub fn share(&self, points: &[Objectives]) -> f64 {
        let scaled: Vec<Objectives> = points.iter().filter_map(|point| self.place(point)).collect();
        hypervolume(&scaled, &vec![Self::REFERENCE; self.axes.len()]) / self.whole
    }

    /// The share after each of a row of evaluations, of which some found nothing.
    pub fn trace(&self, evaluations: &[Option<Objectives>]) -> Vec<f64> {
        let mut frontier = Frontier::default();
        let mut share = 0.0;
        evaluations
            .iter()
            .map(|found| {
                if let Some(point) = found
                    && frontier.insert(point)
                {
                    share = match self.axes.as_slice() {
                        [x, y] => stairs(frontier.members(), (x, y)) / self.whole,
                        _ => self.share(frontier.members()),
                    };
                }
                share
            })
            .collect()
    }

    /// None when a value is too far off to have a place; such a point dominates nothing of the front's volume.
    fn place(&self, point: &Objectives) -> Option<Objectives> {
        let places = point.values().iter().zip(&self.axes).map(|(value, axis)| axis.place(*value));
        Objectives::new(places).ok()
    }
}

/// The area that a front of two objectives dominates, its members by rising values of the first: [`hypervolume`] of them, to
/// the bit, without sorting a front of thousands again for each point that comes to it.
fn stairs(members: &[Objectives], (x, y): (&ScaledAxis, &ScaledAxis)) -> f64 {
    let mut places = members
        .iter()
        .filter_map(|member| {
            let values = member.values();
            Objectives::new([x.place(values[0]), y.place(values[1])]).ok()
        })
        .map(|place| (place.values()[0], place.values()[1]))
        .filter(|&(x, y)| x < Scale::REFERENCE && y < Scale::REFERENCE)
        .peekable();
    let mut ceiling = Scale::REFERENCE;
    let mut area = 0.0;
    while let Some((x, y)) = places.next() {
        // Scaled, two members may share a first value: the lower one is what counts.
        let is_covered = places.peek().is_some_and(|next| next.0.total_cmp(&x).is_eq());
        if y < ceiling && !is_covered {
            area += (Scale::REFERENCE - x) * (ceiling - y);
            ceiling = y;
        }
    }
    area
}
