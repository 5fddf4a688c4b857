//! What a campaign tells about itself while it goes on and afterwards: how well little training foretells more, how well
//! the sum of timed parts foretells a whole model, and what each evaluation has found.
//!
//! All are functions of the rows as they stand, so that reports and screens may ask at any moment.

use std::collections::BTreeSet;

use serde::Serialize;

use super::candidate::Candidate;
use super::drift::Drift;
use super::front;
use crate::objective::Objective;
use crate::pareto::Objectives;
use crate::statistics::{Correlation, kendall, spearman};

/// How far the order of candidates after few tokens agrees with their order after more.
///
/// Both trainings of a candidate are from its own seed, as the search saw them. Those trained on from a rung were the
/// best there; among them orders agree less than they would among all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// Name of the value that is ordered, e.g. `bits_per_byte`.
    pub value: String,
    /// Tokens of the shorter training.
    pub fewer: u64,
    /// Tokens of the longer one.
    pub more: u64,
    /// Candidates that have both.
    pub pairs: usize,
    /// τ_b; none where there are too few pairs.
    pub kendall: Option<Correlation>,
    /// ρ; none where there are too few pairs.
    pub spearman: Option<Correlation>,
}

/// The agreement of each two fidelities that a candidate was trained at, for each objective that trainers report.
pub fn agreements(rows: &[Candidate], objectives: &[Objective]) -> Vec<Agreement> {
    let trained = rows.iter().flat_map(|row| &row.trained);
    let fidelities: BTreeSet<u64> = trained.map(|trained| trained.tokens).collect();
    let mut found = Vec::new();
    for name in objectives.iter().map(Objective::name) {
        let at = |row: &Candidate, tokens: u64| {
            let of = row.trained.iter().find(|t| t.tokens == tokens && t.seed == row.seed)?;
            Some(of.values.get(name)?.mean)
        };
        for &fewer in &fidelities {
            for &more in fidelities.range(fewer + 1..) {
                let pairs: Vec<(f64, f64)> =
                    rows.iter().filter_map(|row| Some((at(row, fewer)?, at(row, more)?))).collect();
                if !pairs.is_empty() {
                    found.push(Agreement {
                        value: name.to_owned(),
                        fewer,
                        more,
                        pairs: pairs.len(),
                        kendall: kendall(&pairs),
                        spearman: spearman(&pairs),
                    });
                }
            }
        }
    }
    found
}

/// How far sums of timed parts are from the times of whole models, before these correct them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Composition {
    /// Name of the latency, e.g. `decode_us`.
    pub value: String,
    /// Stacks that have both.
    pub stacks: usize,
    /// Mean of composed / whole − 1.
    pub mean_error: f64,
    /// Mean of its absolute value.
    pub mean_absolute_error: f64,
    /// Largest absolute value.
    pub largest_error: f64,
    /// How far the orders agree, τ_b; none where there are too few stacks.
    pub kendall: Option<Correlation>,
}

/// The composition of each latency that was timed of whole models.
pub fn compositions(rows: &[Candidate]) -> Vec<Composition> {
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.whole.keys()).collect();
    let of = |name: &String| {
        let pairs: Vec<(f64, f64)> = rows
            .iter()
            .filter_map(|row| Some((row.sum_us(name)?, row.whole.get(name)?.median_us)))
            .filter(|(_, whole)| *whole > 0.0)
            .collect();
        let errors: Vec<f64> =
            pairs.iter().map(|(composed, whole)| composed / whole - 1.0).collect();
        let n = errors.len() as f64;
        (!errors.is_empty()).then(|| Composition {
            value: name.clone(),
            stacks: errors.len(),
            mean_error: errors.iter().sum::<f64>() / n,
            mean_absolute_error: errors.iter().map(|error| error.abs()).sum::<f64>() / n,
            largest_error: errors.iter().map(|error| error.abs()).fold(0.0, f64::max),
            kendall: kendall(&pairs),
        })
    };
    names.into_iter().filter_map(of).collect()
}

/// How far whole models that were timed twice, at the start and at the end, differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Retimed {
    /// Name of the latency, e.g. `decode_us`.
    pub value: String,
    /// Models that were timed twice.
    pub models: usize,
    /// Mean of later / earlier − 1.
    pub mean_change: f64,
    /// Mean of its absolute value.
    pub mean_absolute_change: f64,
    /// Largest absolute value.
    pub largest_change: f64,
    /// What that puts into every error of the latency beyond the spread of a timing, relative: what moves all candidates
    /// alike …
    pub common: f64,
    /// … and what moves each by itself.
    pub individual: f64,
}

/// The drift of each latency of which whole models were timed twice.
pub fn retimed<'a>(rows: &(impl Iterator<Item = &'a Candidate> + Clone)) -> Vec<Retimed> {
    let names: BTreeSet<&String> = rows.clone().flat_map(|row| row.earlier.keys()).collect();
    let of = |name: &String| {
        let pairs = rows.clone().filter_map(|row| row.timed_twice(name));
        let changes = pairs.map(|(earlier, later)| later.over(earlier) - 1.0);
        let changes: Vec<f64> = changes.filter(|change| change.is_finite()).collect();
        let n = changes.len() as f64;
        let Drift { common, individual } = Drift::of_rows(rows.clone(), name);
        (!changes.is_empty()).then(|| Retimed {
            value: name.clone(),
            models: changes.len(),
            mean_change: changes.iter().sum::<f64>() / n,
            mean_absolute_change: changes.iter().map(|change| change.abs()).sum::<f64>() / n,
            largest_change: changes.iter().map(|change| change.abs()).fold(0.0, f64::max),
            common,
            individual,
        })
    };
    names.into_iter().filter_map(of).collect()
}

/// What each evaluation that is over has found, in the order of proposal: objectives after `tokens`; none for one that
/// failed, is infeasible or was trained for less. `refusals_count` as in [`super::Settings`].
pub fn evaluations<'a>(
    rows: impl Iterator<Item = &'a Candidate>,
    objectives: &[Objective],
    tokens: u64,
    refusals_count: bool,
) -> Vec<Option<Objectives>> {
    rows.filter(|row| row.state.is_final() && row.is_evaluation(refusals_count))
        .map(|row| front::point(row, objectives, tokens))
        .collect()
}
