//! Who is on a front. Said here once: the campaign, the store's viewers, reports and the extra trainings all ask it.
//!
//! Values after few and after many tokens have no place in one front, so a front has a fidelity: candidates that are done
//! at it and have every objective contend, and the places are those of non-domination among what they are expected to be
//! after the tokens that count.

use super::candidate::{Candidate, CandidateState};
use super::noise::Noise;
use super::prediction::{Expected, Predictor};
use crate::objective::Objective;
use crate::pareto::{self, Objectives};

/// Its objectives as they were measured, if it is among the contenders for a front of this fidelity.
pub fn point(row: &Candidate, objectives: &[Objective], tokens: u64) -> Option<Objectives> {
    if is_there(row, tokens) { row.objectives_at(objectives, tokens) } else { None }
}

fn is_there(row: &Candidate, tokens: u64) -> bool {
    row.state == CandidateState::Done && row.fidelity == tokens
}

/// The highest fidelity that a candidate is done at; 0 while none is.
pub fn top<'a>(rows: impl Iterator<Item = &'a Candidate>) -> u64 {
    let done = rows.filter(|row| row.state == CandidateState::Done);
    done.map(|row| row.fidelity).max().unwrap_or(0)
}

/// The candidates that a front is made of.
#[derive(Debug, Clone)]
pub struct Contenders<'a> {
    /// Tokens that their values were trained for.
    pub tokens: u64,
    /// In the order in which they were given.
    pub rows: Vec<&'a Candidate>,
    /// What their objectives are expected to be, as they are minimised.
    pub points: Vec<Objectives>,
    predictor: Predictor<'a>,
}

impl<'a> Contenders<'a> {
    /// Those of a fidelity, for a front after `target` tokens.
    pub fn at(
        rows: impl Iterator<Item = &'a Candidate> + Clone,
        objectives: &'a [Objective],
        tokens: u64,
        target: u64,
    ) -> Self {
        let predictor = Predictor::new(objectives, target.max(tokens), &rows);
        let place = |row: &'a Candidate| {
            let point = if predictor.foretells(tokens) {
                predictor.of(row)?.objectives
            } else {
                row.objectives_at(objectives, tokens)?
            };
            Some((row, point))
        };
        let (rows, points) = rows.filter(|row| is_there(row, tokens)).filter_map(place).unzip();
        Self { tokens, rows, points, predictor }
    }

    /// Those of the highest fidelity that a candidate is done at.
    pub fn of(
        rows: impl Iterator<Item = &'a Candidate> + Clone,
        objectives: &'a [Objective],
        target: u64,
    ) -> Self {
        let tokens = top(rows.clone());
        Self::at(rows, objectives, tokens, target)
    }

    /// What each is expected to be, with its errors.
    pub fn expected(&self) -> impl Iterator<Item = Expected> {
        self.rows.iter().filter_map(|row| self.predictor.of(row))
    }

    /// The same of one candidate.
    pub fn expected_of(&self, row: &Candidate) -> Option<Expected> {
        self.predictor.of(row)
    }

    /// The errors of each alone.
    pub(super) fn noises(&self) -> Vec<Vec<Noise>> {
        self.rows.iter().filter_map(|row| self.predictor.noises(row, self.tokens)).collect()
    }

    /// Whether they are foretold, not measured.
    pub fn is_foretold(&self) -> bool {
        self.predictor.foretells(self.tokens)
    }

    /// The numbers of those that no other dominates, in their order.
    pub fn front(&self) -> Vec<u32> {
        pareto::front(&self.points).into_iter().map(|index| self.rows[index].number).collect()
    }

    /// The number of each with its rank of non-domination, 0 on the front.
    pub fn ranks(&self) -> Vec<(u32, u32)> {
        let numbers = self.rows.iter().map(|row| row.number);
        numbers.zip(pareto::ranks(&self.points)).collect()
    }
}
