//! Who is on a front. Said here once: the campaign, the store's viewers, reports and the extra trainings all ask it.
//!
//! Values after few and after many tokens have no place in one front, so a front has a fidelity: candidates that are done
//! at it and have every objective contend, and the places are those of non-domination among them.

use super::candidate::{Candidate, CandidateState};
use crate::objective::{Objective, minimised};
use crate::pareto::{self, Objectives};

/// The objectives of a candidate after so many tokens, as they are minimised, if it has all of them there.
pub fn objectives_at(row: &Candidate, objectives: &[Objective], tokens: u64) -> Option<Objectives> {
    if tokens == row.fidelity {
        return minimised(objectives, &row.values);
    }
    minimised(objectives, &row.values_at(tokens)?)
}

/// Its place among the contenders for a front of this fidelity; none when it is not among them.
pub fn point(row: &Candidate, objectives: &[Objective], tokens: u64) -> Option<Objectives> {
    let is_there = row.state == CandidateState::Done && row.fidelity == tokens;
    if is_there { objectives_at(row, objectives, tokens) } else { None }
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
    /// Their objectives, as they are minimised.
    pub points: Vec<Objectives>,
}

impl<'a> Contenders<'a> {
    /// Those of a fidelity.
    pub fn at(
        rows: impl Iterator<Item = &'a Candidate>,
        objectives: &[Objective],
        tokens: u64,
    ) -> Self {
        let (rows, points) =
            rows.filter_map(|row| Some((row, point(row, objectives, tokens)?))).unzip();
        Self { tokens, rows, points }
    }

    /// Those of the highest fidelity that a candidate is done at.
    pub fn of(rows: impl Iterator<Item = &'a Candidate> + Clone, objectives: &[Objective]) -> Self {
        let tokens = top(rows.clone());
        Self::at(rows, objectives, tokens)
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
