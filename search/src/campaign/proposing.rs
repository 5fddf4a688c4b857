//! The proposals of a campaign: what the proposer is told of the rows, and the row that a proposal becomes.

use std::collections::{BTreeMap, BTreeSet};

use super::candidate::{Candidate, CandidateState};
use super::prediction::{Expected, Predictor};
use super::settings::Settings;
use super::standing::Standing;
use super::table::LatencyTable;
use crate::latency::{LatencyEntry, keys};
use crate::metric::Metric;
use crate::objective::Objective;
use crate::proposals::{Origin, Outcome, Proposer, Trial};
use crate::subject::{Subject, Subjects};
use crate::value::{Value, Values};

/// Proposals in a row that are over a limit before the campaign says that there is nothing within it.
const INFEASIBLE_IN_A_ROW: usize = 500;

/// Who proposes, and where.
#[derive(Debug, Clone)]
pub(super) struct Proposals<D: Subjects> {
    domain: D,
    proposer: Proposer<D::Point>,
    /// The rows' subjects as points of the domain.
    points: BTreeMap<u32, D::Point>,
    /// The parts of this campaign's rows: what other campaigns left in the table changes no proposal.
    parts: LatencyTable,
    /// The rows whose parts these are.
    timed: BTreeSet<u32>,
}

impl<D: Subjects> Proposals<D> {
    pub(super) fn new(
        domain: D,
        proposer: Proposer<D::Point>,
        rows: &BTreeMap<u32, Candidate>,
    ) -> Self {
        let point = |row: &Candidate| Some((row.number, domain.point(&row.subject)?));
        let points = rows.values().filter_map(point).collect();
        Self { domain, proposer, points, parts: LatencyTable::default(), timed: BTreeSet::new() }
    }

    /// Candidates that are drawn before the algorithm begins.
    pub(super) fn start_size(&self) -> usize {
        (self.proposer.start as usize).max(self.proposer.references.len())
    }

    /// Takes up the parts of rows whose latencies are known by now.
    fn take_up(&mut self, standing: &Standing) {
        let Standing { rows, settings, table, .. } = standing;
        for (number, row) in rows {
            let is_timed =
                settings.latencies.iter().all(|(name, _)| row.values.contains_key(name.as_str()));
            let Some(stack) = row.subject.stack().filter(|_| is_timed) else { continue };
            if !self.timed.insert(*number) {
                continue;
            }
            for key in settings.latencies.iter().flat_map(|(_, of)| keys(stack, of)) {
                if let Some(timing) = table.get(&key) {
                    self.parts.insert(LatencyEntry { timing: timing.clone(), key });
                }
            }
        }
    }

    /// The next candidates, as many as there is room for; and if the space holds no more of them, the sentence that says so.
    pub(super) fn next(
        &mut self,
        room: usize,
        standing: &Standing,
    ) -> (Vec<Candidate>, Option<String>) {
        let Standing { rows, settings, .. } = standing;
        let in_a_row = infeasible_in_a_row(rows);
        if in_a_row >= INFEASIBLE_IN_A_ROW {
            let reason = format!(
                "the last {in_a_row} proposals were outside the limits: widen these, or the space"
            );
            return (Vec::new(), Some(reason));
        }
        self.take_up(standing);
        let predictor =
            Predictor::new(&settings.objectives, settings.target_tokens, &rows.values());
        let trial = |row: &Candidate, point: &D::Point| Trial {
            number: row.number,
            point: point.clone(),
            outcome: outcome(row, &predictor),
        };
        let mut trials: Vec<Trial<D::Point>> = rows
            .values()
            .filter_map(|row| Some(trial(row, self.points.get(&row.number)?)))
            .collect();
        let first = rows.last_key_value().map_or(1, |(number, _)| number + 1);
        let Self { domain, proposer, parts, .. } = self;
        let computed = |point: &D::Point| computed(&domain.subject(point), standing, parts);
        let (proposals, end) = proposer.propose_many(domain, first, room, &mut trials, &computed);
        let mut new = Vec::new();
        for (number, proposal) in (first..).zip(proposals) {
            new.push(row(number, self.domain.subject(&proposal.point), &proposal.origin, settings));
            self.points.insert(number, proposal.point);
        }
        (new, end.map(|exhausted| exhausted.to_string()))
    }
}

/// A new row.
fn row(number: u32, subject: Subject, origin: &Origin, settings: &Settings) -> Candidate {
    let reference = match origin {
        Origin::Reference(name) => Some(name.clone()),
        _ => None,
    };
    Candidate {
        number,
        values: costs(&subject, settings),
        subject,
        reference,
        origin: origin.to_string(),
        state: CandidateState::Proposed,
        failed_attempts: 0,
        given_up: false,
        fidelity: 0,
        trained: Vec::new(),
        whole: BTreeMap::new(),
        earlier: BTreeMap::new(),
        sums: BTreeMap::new(),
        curve: Vec::new(),
        retrieval: Vec::new(),
        seed: settings.seed,
        tokens: 0,
        train_seconds: 0.0,
        checkpoint: None,
    }
}

/// The objectives of a subject that need no evaluation, as they are minimised: costs, and latencies of which every part was
/// timed for this campaign.
fn computed(subject: &Subject, standing: &Standing, parts: &LatencyTable) -> Vec<Option<f64>> {
    let Some(architecture) = subject.stack() else { return Vec::new() };
    let settings = &standing.settings;
    let costs = costs(subject, settings);
    let latency = |name: &str| {
        let (_, conditions) = settings.latencies.iter().find(|(own, _)| own == name)?;
        Some(standing.expected(name, parts.compose(architecture, conditions)?))
    };
    let value = |objective: &Objective| {
        let name = objective.name();
        let value = costs.get(name).copied().or_else(|| latency(name))?;
        Some(objective.turned(value.mean))
    };
    settings.objectives.iter().map(value).collect()
}

/// What is known of a subject before anything is measured.
fn costs(subject: &Subject, settings: &Settings) -> Values {
    let Some(architecture) = subject.stack() else { return Values::new() };
    // Bytes and operations are those under the conditions of `[latency]` itself.
    let is_main = |name: &str| Metric::named(name).is_some();
    let latencies = settings.latencies.iter().filter(|(name, _)| is_main(name));
    let conditions = latencies.map(|(_, conditions)| conditions);
    crate::cost::values(architecture, conditions)
        .into_iter()
        .map(|(name, mean)| (name.into(), Value { mean, standard_error: None }))
        .collect()
}

/// What a candidate teaches. One that has climbed less than others is known as far as its rung tells.
fn outcome(row: &Candidate, predictor: &Predictor<'_>) -> Outcome {
    match row.state {
        CandidateState::Infeasible { .. } => Outcome::Infeasible,
        CandidateState::Failed { .. } => Outcome::Failed,
        CandidateState::Proposed | CandidateState::Training if row.fidelity == 0 => {
            Outcome::Pending
        }
        CandidateState::Proposed | CandidateState::Training | CandidateState::Done => {
            match predictor.of(row) {
                None => Outcome::Failed,
                Some(Expected { objectives, is_foretold: false, .. }) => Outcome::Known(objectives),
                Some(Expected { objectives, noises, .. }) => {
                    // What moves all alike teaches nothing of their order.
                    let common = predictor.common(row.fidelity);
                    let beside = noises.iter().zip(&common).map(|(own, all)| own.beside(all));
                    Outcome::Estimated { objectives, deviations: beside.collect() }
                }
            }
        }
    }
}

/// How many of the latest proposals were dropped, with none between them that was not.
fn infeasible_in_a_row(rows: &BTreeMap<u32, Candidate>) -> usize {
    rows.values()
        .rev()
        .filter(|row| row.state.is_final()) // with several trainers something is always pending
        .take_while(|row| matches!(row.state, CandidateState::Infeasible { .. }))
        .count()
}
