//! Rungs of fidelity: a candidate is trained for few tokens first, and only the best of a rung are trained on, from its
//! checkpoint (MO-ASHA, Schmucker et al. 2021, arXiv 2106.12639). The best is who is expected to add most to the volume that
//! those who went on dominate after the tokens that count (docs/studies/prediction.md: by the chance to be on the front,
//! tiny stacks, which nothing as fast dominates, take the places). A free trainer promotes before it begins a new candidate,
//! from the highest rung down; nothing waits for a rung to fill.
//!
//! Every rung ends in a decay of the learning rate, so that its values are those of a finished training; a promoted one
//! goes on from before the decay, as the uninterrupted one.

use std::cell::OnceCell;

use super::candidate::{Candidate, CandidateState};
use super::drawn::drawn;
use super::noise::Noise;
use super::prediction::{Expected, Predictor};
use crate::limits::Limits;
use crate::objective::Objective;
use crate::pareto::{Frontier, Objectives, Scale, ranks};

/// Draws of what candidates may be after the tokens that count.
const DRAWS: u32 = 200;

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
        let predictor = OnceCell::new();
        below.iter().rev().find_map(|&rung| {
            // Those that went on count: their values at this rung are known.
            let reached: Vec<&Candidate> = rows
                .clone()
                .filter(|row| matches!(row.state, CandidateState::Done | CandidateState::Training))
                .filter(|row| row.fidelity >= rung)
                .filter(|row| row.objectives_at(self.objectives, rung).is_some())
                .collect();
            let waits =
                |row: &&Candidate| row.fidelity == rung && row.state == CandidateState::Done;
            // Who turned out worse than expected keeps its place, or the share would grow; so does who is over a limit as a
            // whole model, which is known late.
            let over: Vec<&Candidate> = rows
                .clone()
                .filter(|row| matches!(row.state, CandidateState::Infeasible { .. }))
                .filter(|row| row.fidelity >= rung)
                .collect();
            let (n, share) = (reached.len() + over.len(), self.promote.max(1) as usize);
            let places = if is_last { n.div_ceil(share) } else { n / share };
            let gone = reached.iter().filter(|row| !waits(row)).count()
                + over.iter().filter(|row| row.fidelity > rung).count();
            if places <= gone || !reached.iter().any(waits) {
                return None;
            }
            let fit = || Predictor::new(self.objectives, self.target, rows);
            self.adds_most(&reached, waits, rung, predictor.get_or_init(fit))
        })
    }

    /// Of those of `reached` that wait, the one that is expected to add most to what the others', who went on, dominate after
    /// the tokens that count; one within the limits before any that is not.
    fn adds_most(
        &self,
        reached: &[&Candidate],
        waits: impl Fn(&&Candidate) -> bool,
        rung: u64,
        predictor: &Predictor<'_>,
    ) -> Option<u32> {
        let (points, noises) = self.expected(reached, rung, predictor);
        let scale = Scale::of(&points)?;
        let (waiting, gone): (Vec<usize>, Vec<usize>) =
            (0..reached.len()).partition(|&index| waits(&reached[index]));
        let mut gains = vec![0.0; reached.len()];
        // Who one of those that went on dominates adds nothing, and need not be drawn.
        drawn(&points, &noises, &gone, (0, DRAWS), |drawn| {
            let (gone, waiting): (Vec<_>, Vec<_>) =
                drawn.iter().partition(|(index, _)| !waits(&reached[*index]));
            let mut front = Frontier::default();
            for (_, point) in gone {
                front.insert(point);
            }
            let mut with = front.members().to_vec();
            let before = scale.share(&with);
            for (index, point) in waiting.into_iter().filter(|(_, point)| !front.dominates(point)) {
                with.push(point.clone());
                gains[*index] += scale.share(&with) - before;
                with.pop();
            }
        });
        let worth = |&index: &usize| {
            let values = reached[index].values_at(rung).unwrap_or_default();
            (self.limits.broken(&values).is_none(), gains[index])
        };
        let order = |a: &(bool, f64), b: &(bool, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
        let most = waiting.iter().map(worth).max_by(order)?;
        let mut best: Vec<usize> =
            waiting.into_iter().filter(|index| order(&worth(index), &most).is_eq()).collect();
        if best.len() > 1 {
            // where nothing is in doubt, many add nothing
            let ranks = ranks(&points);
            best.sort_by_key(|&index| (ranks[index], reached[index].number));
        }
        best.first().map(|&index| reached[index].number)
    }

    /// What candidates of a rung are expected to be after the tokens that count, with their errors; where one lacks a value,
    /// what they are at the rung.
    fn expected(
        &self,
        reached: &[&Candidate],
        rung: u64,
        predictor: &Predictor<'_>,
    ) -> (Vec<Objectives>, Vec<Vec<Noise>>) {
        let expected: Vec<Expected> = reached.iter().filter_map(|row| predictor.of(row)).collect();
        if expected.len() == reached.len() {
            return expected.into_iter().map(|of| (of.objectives, of.noises)).unzip();
        }
        // one that is being trained on may lack a value by now
        let at = |row: &&Candidate| row.objectives_at(self.objectives, rung);
        let points: Vec<Objectives> = reached.iter().filter_map(at).collect();
        let none = |point: &Objectives| vec![Noise::default(); point.values().len()];
        let noises = points.iter().map(none).collect();
        (points, noises)
    }
}
