//! What is said of candidates while a campaign is at work: how each ended, and how far all are.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use search::campaign::trust::Extra;
use search::campaign::{Campaign, Candidate, CandidateState, Settings};
use search::objective::Objective;
use search::subject::Subjects;
use tui::left::{Effort, Pace};

use super::display::Display;
use super::metrics::Far;
use crate::words;

/// What was said, and what it takes to say more.
pub(super) struct Telling {
    objectives: Vec<Objective>,
    evaluations: u64,
    /// Tokens of a full evaluation.
    tokens: u64,
    counts_refusals: bool,
    effort: Effort,
    /// Candidates whose end was told, with the number of trainings that they had then and the word of their state.
    told: HashSet<(u32, usize, &'static str)>,
    /// When the first training of this run was over, how many evaluations were then, and how many extra trainings.
    first: Option<(Instant, u64, f64)>,
    /// When nothing more is to be proposed.
    deadline: Option<Instant>,
    front: Option<Front>,
}

/// The front when it was last asked for.
struct Front {
    members: usize,
    /// The best value of the first objective, in words.
    best: Option<String>,
    took: Duration,
    at: Instant,
}

impl Front {
    /// Among 100,000 candidates it takes a part of a second: it is asked for as often as takes a twentieth of the time.
    fn is_stale(&self) -> bool {
        self.at.elapsed() > 20 * self.took
    }
}

impl Telling {
    /// Nothing is told of what had ended before.
    pub(super) fn new<D: Subjects>(
        settings: &Settings,
        machine: &Campaign<D>,
        deadline: Option<Instant>,
    ) -> Self {
        let ended = machine.candidates().filter(|row| row.state.is_final());
        Self {
            objectives: settings.objectives.clone(),
            evaluations: settings.evaluations.into(),
            tokens: settings.tokens,
            counts_refusals: settings.refusals_count,
            effort: Effort {
                trust: settings.trust,
                tokens: settings.tokens,
                rungs: settings.rungs.clone(),
                promote: settings.promote,
            },
            told: ended.map(end_of).collect(),
            first: None,
            deadline,
            front: None,
        }
    }

    /// Candidates whose evaluation is over.
    pub(super) fn over<D: Subjects>(&self, machine: &Campaign<D>) -> u64 {
        let is_over = |row: &&Candidate| match row.state {
            CandidateState::Done | CandidateState::Failed { .. } => true,
            CandidateState::Infeasible { .. } => self.counts_refusals,
            CandidateState::Proposed | CandidateState::Training => false,
        };
        machine.candidates().filter(is_over).count() as u64
    }

    /// Says how a candidate ended, once.
    pub(super) fn end<D: Subjects>(
        &mut self,
        row: &Candidate,
        machine: &Campaign<D>,
        display: &mut Display,
    ) {
        // That its latency is said anew is no other end.
        if !row.state.is_final() || !self.told.insert(end_of(row)) {
            return;
        }
        journal(row);
        if self.first.is_none() && !matches!(row.state, CandidateState::Infeasible { .. }) {
            let extra = self.extra(machine);
            self.first = Some((Instant::now(), self.over(machine), extra.done));
        }
        let text = match &row.state {
            CandidateState::Done if row.fidelity < self.tokens => {
                let tokens = tui::quantity::scaled(row.fidelity as f64);
                format!("{} at {tokens} tokens", self.values(row))
            }
            CandidateState::Done if machine.front().contains(&row.number) => {
                format!("{}, on the front", self.values(row))
            }
            CandidateState::Done => self.values(row),
            CandidateState::Infeasible { reason } => format!("dropped: {reason}"),
            CandidateState::Failed { reason, .. } => format!("failed: {reason}"),
            CandidateState::Proposed | CandidateState::Training => return,
        };
        display.place_is(self.over(machine), self.evaluations);
        let place = display.place();
        display.line(&format!("{place} {}: {text}", label(row)));
    }

    /// Says how far all are, and what is best on the front.
    pub(super) fn overall<D: Subjects>(
        &mut self,
        machine: &Campaign<D>,
        display: &mut Display,
    ) -> Far {
        if self.front.as_ref().is_none_or(Front::is_stale) {
            self.front = Some(self.front_of(machine));
        }
        let (members, best) = match &self.front {
            Some(Front { members, best: Some(best), .. }) => (*members, best.as_str()),
            _ => (0, ""),
        };
        let message =
            if members == 0 { String::new() } else { format!("front: {members}, best {best}") };
        let over = self.over(machine);
        let seconds_left = self.seconds_left(over, self.extra(machine));
        display.place_is(over, self.evaluations);
        display.overall(seconds_left.map(tui::left::words).as_deref(), &message);
        Far { over, front: members, seconds_left }
    }

    fn front_of<D: Subjects>(&self, machine: &Campaign<D>) -> Front {
        let begin = Instant::now();
        let front = machine.front();
        let best = self.objectives.first().and_then(|objective| {
            let members = machine.candidates().filter(|row| front.contains(&row.number));
            let best = members
                .filter_map(|row| Some((objective.minimised(&row.values)?, row)))
                .min_by(|a, b| a.0.total_cmp(&b.0));
            let value = best.and_then(|(_, row)| objective.value(&row.values));
            Some(words::value(objective.name(), value?))
        });
        let end = Instant::now();
        Front { members: front.len(), best, took: end - begin, at: end }
    }

    /// Extra trainings that are over and to come, as evaluations.
    fn extra<D: Subjects>(&self, machine: &Campaign<D>) -> Extra {
        self.effort.extra(self.evaluations as u32, machine.candidates())
    }

    /// About how long it goes on, once so many evaluations are over. What was taken before the first of this run is not
    /// counted: the parts of all stacks are timed then.
    fn seconds_left(&self, over: u64, extra: Extra) -> Option<f64> {
        let (began, before, extra_before) = self.first?;
        let now = Instant::now();
        let limit_seconds = self.deadline.map(|at| at.saturating_duration_since(now).as_secs_f64());
        Pace {
            seconds: (now - began).as_secs_f64(),
            ended: over.saturating_sub(before) as u32,
            left: self.evaluations.saturating_sub(over) as u32,
            extra: Extra { done: extra.done - extra_before, ..extra },
            limit_seconds,
        }
        .seconds_left()
    }

    /// The objectives of a candidate as far as they are known.
    fn values(&self, row: &Candidate) -> String {
        let value = |of: &Objective| Some(words::value(of.name(), of.value(&row.values)?));
        self.objectives.iter().filter_map(value).collect::<Vec<_>>().join(", ")
    }
}

/// What tells one end of a candidate from another.
fn end_of(row: &Candidate) -> (u32, usize, &'static str) {
    (row.number, row.trained.len(), row.state.word())
}

/// Writes into the log how a candidate ended.
fn journal(row: &Candidate) {
    let (state, reason) = match &row.state {
        CandidateState::Infeasible { reason } => ("infeasible", reason.as_str()),
        CandidateState::Failed { reason, .. } => ("failed", reason.as_str()),
        _ => ("done", ""),
    };
    let values: serde_json::Map<String, serde_json::Value> =
        row.values.iter().map(|(name, value)| (name.to_string(), value.mean.into())).collect();
    let values = serde_json::Value::from(values).to_string();
    let (candidate, tokens, seconds) = (row.number, row.fidelity, row.train_seconds);
    tracing::info!(candidate, state, reason, tokens, seconds, values, "candidate ended");
}

/// A candidate in a few words.
pub(super) fn label(row: &Candidate) -> String {
    match &row.reference {
        Some(name) => format!("candidate {} (reference {name})", row.number),
        None => format!("candidate {} ({})", row.number, tui::quantity::shortened(&row.origin, 28)),
    }
}
