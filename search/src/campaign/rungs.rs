//! Rungs of fidelity: a candidate is trained for few tokens first, and only the best of a rung are trained on, from its
//! checkpoint (MO-ASHA, Schmucker et al. 2021, arXiv 2106.12639). A free trainer promotes before it begins a new candidate,
//! from the highest rung down; nothing waits for a rung to fill.
//!
//! Every rung ends in a decay of the learning rate, so that its values are those of a finished training; a promoted one
//! goes on from before the decay, as the uninterrupted one.

use super::candidate::{Candidate, CandidateState};
use super::front::{objectives_at, top};
use crate::limits::Limits;
use crate::objective::Objective;
use crate::pareto::{Objectives, crowding_distances, ranks};
use crate::statistics::Line;

/// Rungs, and which of a rung's candidates go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ladder<'a> {
    /// Tokens of each rung, ascending, the full training last.
    pub(super) rungs: &'a [u64],
    /// One in so many goes on.
    pub(super) promote: u32,
    pub(super) objectives: &'a [Objective],
    pub(super) limits: &'a Limits,
}

impl Ladder<'_> {
    /// The next rung of a candidate; none when it stands on the last.
    pub(super) fn next(&self, row: &Candidate) -> Option<u64> {
        self.rungs.iter().copied().find(|&tokens| tokens > row.fidelity)
    }

    /// The candidate to train on next: a reference stack, or from the highest rung that has one to promote. `is_last`: no further candidate will come, so
    /// that a part of a share is rounded up.
    pub(super) fn promotion<'a>(
        &self,
        rows: &(impl Iterator<Item = &'a Candidate> + Clone),
        is_last: bool,
    ) -> Option<u32> {
        let (&last, below) = self.rungs.split_last()?;
        // What people designed is compared with the front whatever its place at a rung.
        let is_left = |row: &&Candidate| {
            row.reference.is_some() && row.state == CandidateState::Done && row.fidelity < last
        };
        if let Some(row) = rows.clone().find(is_left) {
            return Some(row.number);
        }
        below.iter().rev().find_map(|&rung| {
            // Those that went on count: their values at this rung are known.
            let reached: Vec<(&Candidate, Objectives)> = rows
                .clone()
                .filter(|row| matches!(row.state, CandidateState::Done | CandidateState::Training))
                .filter(|row| row.fidelity >= rung)
                .filter_map(|row| Some((row, objectives_at(row, self.objectives, rung)?)))
                .collect();
            let (n, share) = (reached.len(), self.promote.max(1) as usize);
            let places = if is_last { n.div_ceil(share) } else { n / share };
            let order = self.best_first(&reached, rung);
            order.into_iter().take(places).map(|index| reached[index].0).find_map(|row| {
                let waits = row.fidelity == rung && row.state == CandidateState::Done;
                waits.then_some(row.number)
            })
        })
    }

    /// Within the limits first, then by rank of non-domination, the less crowded first.
    fn best_first(&self, reached: &[(&Candidate, Objectives)], rung: u64) -> Vec<usize> {
        let points: Vec<Objectives> = reached.iter().map(|(_, point)| point.clone()).collect();
        let (ranks, crowding) = (ranks(&points), crowding_in_ranks(&points));
        let over: Vec<bool> = reached
            .iter()
            .map(|(row, _)| {
                let values = row.values_at(rung).unwrap_or_default();
                self.limits.broken(&values).is_some()
            })
            .collect();
        let mut order: Vec<usize> = (0..reached.len()).collect();
        order.sort_by(|&a, &b| {
            (over[a], ranks[a])
                .cmp(&(over[b], ranks[b]))
                .then(crowding[b].total_cmp(&crowding[a]))
                .then(reached[a].0.number.cmp(&reached[b].0.number))
        });
        order
    }
}

/// The crowding distance of each point among those of its own rank.
fn crowding_in_ranks(points: &[Objectives]) -> Vec<f64> {
    let ranks = ranks(points);
    let mut distances = vec![0.0; points.len()];
    for rank in 0..=ranks.iter().copied().max().unwrap_or(0) {
        let members: Vec<usize> = (0..points.len()).filter(|&i| ranks[i] == rank).collect();
        let of_rank: Vec<Objectives> = members.iter().map(|&i| points[i].clone()).collect();
        for (member, distance) in members.into_iter().zip(crowding_distances(&of_rank)) {
            distances[member] = distance;
        }
    }
    distances
}

/// What values at one rung say about those at the next: a line for each objective, fitted to the candidates that
/// have both.
#[derive(Debug, Clone)]
pub(super) struct Extrapolation {
    /// Of each step from a rung to the next, a line for each objective; none while nothing is known.
    steps: Vec<(u64, u64, Vec<Option<Line>>)>,
    top: u64,
}

impl Extrapolation {
    /// Up to the highest rung that a candidate is done at.
    pub(super) fn new<'a>(
        ladder: &Ladder<'_>,
        rows: &(impl Iterator<Item = &'a Candidate> + Clone),
    ) -> Self {
        let top = top(rows.clone());
        let steps = ladder
            .rungs
            .windows(2)
            .filter(|step| step[1] <= top)
            .map(|step| {
                let pairs: Vec<(Objectives, Objectives)> = rows
                    .clone()
                    .filter(|row| row.fidelity >= step[1])
                    .filter_map(|row| {
                        let at = |tokens| objectives_at(row, ladder.objectives, tokens);
                        Some((at(step[0])?, at(step[1])?))
                    })
                    .collect();
                let lines = (0..ladder.objectives.len())
                    .map(|j| {
                        let of = |point: &Objectives| point.values()[j];
                        let pairs: Vec<(f64, f64)> =
                            pairs.iter().map(|(low, high)| (of(low), of(high))).collect();
                        Line::through(&pairs)
                    })
                    .collect();
                (step[0], step[1], lines)
            })
            .collect();
        Self { steps, top }
    }

    /// The highest rung that a candidate is done at.
    pub(super) fn top(&self) -> u64 {
        self.top
    }

    /// What objectives known at a lower rung are expected to be at the highest, with the standard deviation of each.
    pub(super) fn of(&self, objectives: &Objectives, tokens: u64) -> (Objectives, Vec<f64>) {
        let mut values = objectives.values().to_vec();
        let mut variances = vec![0.0; values.len()];
        for (_, _, lines) in self.steps.iter().filter(|(low, _, _)| *low >= tokens) {
            for ((value, variance), line) in values.iter_mut().zip(&mut variances).zip(lines) {
                let Some(line) = line else { continue };
                *value = line.at(*value);
                *variance = *variance * line.slope.powi(2) + line.deviation.powi(2);
            }
        }
        let deviations = variances.into_iter().map(f64::sqrt).collect();
        (Objectives::new(values).unwrap_or_else(|_| objectives.clone()), deviations)
    }
}
