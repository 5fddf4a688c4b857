//! The scale of the current front, on which objectives are modelled.

use super::super::trial::Known;
use crate::pareto::{Objectives, front};

/// The reference point on the scale of the front is at least this.
const LEAST_REFERENCE: f64 = 1.25;
/// A front of two objectives with more members is trusted to span the range of the true one, the more the longer it is.
const FEW_MEMBERS: f64 = 5.0;

/// The scale of an objective: 0 at the best of the front, 1 at its worst.
pub(super) struct Scale {
    best: f64,
    range: f64,
}

/// Above this, values of an objective are compressed: a training that diverged must not set the scale of all others.
/// Nearer ones are not: what makes a bad point half as bad is what makes a good one better.
const LINEAR: f64 = 4.0;
const BEND: f64 = 4.0;

impl Scale {
    pub(super) fn of(&self, value: f64) -> f64 {
        let z = (value - self.best) / self.range;
        if z <= LINEAR { z } else { LINEAR + BEND * (1.0 + (z - LINEAR) / BEND).ln() }
    }

    /// The derivative of [`Scale::of`].
    pub(super) fn slope(&self, value: f64) -> f64 {
        let z = (value - self.best) / self.range;
        if z <= LINEAR {
            self.range.recip()
        } else {
            (self.range * (1.0 + (z - LINEAR) / BEND)).recip()
        }
    }
}

/// The reference point on the scales. A front is often found at one end first, so that while it has few members the
/// reference lies as far out as values were seen; later it draws near, because a far one prizes the ends of the front
/// above its middle.
pub(super) fn reference<P>(known: &[Known<'_, P>], scales: &[Scale]) -> Vec<f64> {
    let points: Vec<Objectives> = known.iter().map(|k| k.objectives.clone()).collect();
    // Of points with many objectives most are members: it takes more of them.
    let few = FEW_MEMBERS.powi(scales.len() as i32 - 1);
    let share = (few / front(&points).len().max(1) as f64).min(1.0);
    let of = |(j, scale): (usize, &Scale)| {
        let seen = points.iter().map(|point| scale.of(point.values()[j]));
        let farthest = seen.fold(LEAST_REFERENCE, f64::max);
        LEAST_REFERENCE + share * (farthest - LEAST_REFERENCE)
    };
    scales.iter().enumerate().map(of).collect()
}

pub(super) fn scales<P>(known: &[Known<'_, P>]) -> Vec<Scale> {
    let points: Vec<Objectives> = known.iter().map(|k| k.objectives.clone()).collect();
    let members = front(&points);
    let objectives = points.first().map_or(0, |p| p.values().len());
    (0..objectives)
        .map(|j| {
            let of_front = members.iter().map(|&index| points[index].values()[j]);
            let best = of_front.clone().fold(f64::INFINITY, f64::min);
            let worst = of_front.fold(f64::NEG_INFINITY, f64::max);
            let mut all: Vec<f64> = points.iter().map(|p| p.values()[j]).collect();
            all.sort_by(f64::total_cmp);
            // A front of few points says little about the range that a front can have.
            let least = all[all.len() / 2] - best;
            let range = (worst - best).max(least);
            Scale { best, range: if range > 0.0 { range } else { 1.0 } }
        })
        .collect()
}
