//! Rungs of fidelity: a candidate is trained for few tokens first, and only the best of a rung are trained on, from its
//! checkpoint (MO-ASHA, Schmucker et al. 2021, arXiv 2106.12639). The best are those with the best chance to be on the front
//! after the tokens that count. A free trainer promotes before it begins a new candidate, from the highest rung down; nothing waits
//! for a rung to fill.
//!
//! Every rung ends in a decay of the learning rate, so that its values are those of a finished training; a promoted one
//! goes on from before the decay, as the uninterrupted one.

use super::candidate::{Candidate, CandidateState};
use super::drawn::memberships;
use super::noise::Noise;
use super::prediction::{Expected, Predictor};
use crate::limits::Limits;
use crate::objective::Objective;
use crate::pareto::{Objectives, crowding_distances, ranks};

/// Rungs, and which of a rung's candidates go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ladder<'a> {
    /// Tokens of each rung, ascending, the full training last.
    pub(super) rungs: &'a [u64],
    /// One in so many goes on.
    pub(super) promote: u32,
    pub(super) objectives: &'a [Objective],
    pub(super) limits: &'a Limits,
    /// The tokens that count.
    pub(super) target: u64,
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
        let predictor = Predictor::new(self.objectives, self.target, rows);
        below.iter().rev().find_map(|&rung| {
            // Those that went on count: their values at this rung are known.
            let reached: Vec<&Candidate> = rows
                .clone()
                .filter(|row| matches!(row.state, CandidateState::Done | CandidateState::Training))
                .filter(|row| row.fidelity >= rung)
                .filter(|row| row.objectives_at(self.objectives, rung).is_some())
                .collect();
            let (n, share) = (reached.len(), self.promote.max(1) as usize);
            let places = if is_last { n.div_ceil(share) } else { n / share };
            let waits =
                |row: &&Candidate| row.fidelity == rung && row.state == CandidateState::Done;
            // who turned out worse than expected keeps its place, or the share would grow
            let left = places.saturating_sub(reached.iter().filter(|row| !waits(row)).count());
            if left == 0 || !reached.iter().any(waits) {
                return None;
            }
            let order = self.best_first(&reached, rung, &predictor);
            let best = order.into_iter().map(|index| reached[index]).take(places);
            best.filter(waits).map(|row| row.number).next()
        })
    }

    /// Within the limits first, then by the chance to be on the front after the tokens that count, then by rank of
    /// non-domination there, the less crowded first.
    fn best_first(
        &self,
        reached: &[&Candidate],
        rung: u64,
        predictor: &Predictor<'_>,
    ) -> Vec<usize> {
        let expected: Vec<Expected> = reached.iter().filter_map(|row| predictor.of(row)).collect();
        let (points, noises): (Vec<_>, Vec<_>) = if expected.len() == reached.len() {
            expected.into_iter().map(|expected| (expected.objectives, expected.noises)).unzip()
        } else {
            // one that is being trained on may lack a value by now
            let at = |row: &&Candidate| row.objectives_at(self.objectives, rung);
            let points: Vec<Objectives> = reached.iter().filter_map(at).collect();
            let none = |point: &Objectives| vec![Noise::default(); point.values().len()];
            let noises = points.iter().map(none).collect();
            (points, noises)
        };
        let (ranks, crowding) = (ranks(&points), crowding_in_ranks(&points));
        let chances = memberships(&points, &noises, 0);
        let over: Vec<bool> = reached
            .iter()
            .map(|row| {
                let values = row.values_at(rung).unwrap_or_default();
                self.limits.broken(&values).is_some()
            })
            .collect();
        let mut order: Vec<usize> = (0..reached.len()).collect();
        order.sort_by(|&a, &b| {
            over[a]
                .cmp(&over[b])
                .then(chances[b].total_cmp(&chances[a]))
                .then(ranks[a].cmp(&ranks[b]))
                .then(crowding[b].total_cmp(&crowding[a]))
                .then(reached[a].number.cmp(&reached[b].number))
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
