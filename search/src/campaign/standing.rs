//! How a campaign stands: its rows, what is timed, what is on its way; and what an answer of a worker changes in that.

use std::collections::BTreeMap;

use super::calibration::Calibrations;
use super::candidate::{Candidate, CandidateState, Progress};
use super::events::{Command, Finish, History};
use super::front::Contenders;
use super::results;
use super::rungs::Ladder;
use super::settings::Settings;
use super::table::LatencyTable;
use super::tasks::{Task, Tasks, Training};
use crate::failure::FailureKind;
use crate::latency::LatencyEntry;
use crate::wire::{self, Evaluation, Measured, Refusal};

/// Workers that may be lost at one task before it counts as a failed try.
const LOSSES: u32 = 8;

/// A campaign but for who proposes and who works.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) settings: Settings,
    pub(super) rows: BTreeMap<u32, Candidate>,
    pub(super) table: LatencyTable,
    pub(super) tasks: Tasks,
    /// What the first whole models tell of the sums of timed parts.
    pub(super) calibrations: Calibrations,
    /// Tokens of each rung, ascending, the full training last.
    pub(super) rungs: Vec<u64>,
    /// Set when nothing new shall begin; what runs is waited for.
    pub(super) ending: Option<Finish>,
    /// Candidates that failed since one last succeeded.
    failed_in_a_row: Vec<u32>,
    /// Candidates that are tried again because the run before gave up, or whose latency is another, while that is not saved.
    reopened: Vec<u32>,
}

impl Standing {
    pub(super) fn new(settings: Settings, history: History) -> Self {
        let mut table = LatencyTable::default();
        for entry in history.latencies {
            table.insert(entry);
        }
        let mut rows: BTreeMap<u32, Candidate> =
            history.candidates.into_iter().map(|c| (c.number, c)).collect();
        let mut reopened = Vec::new();
        for row in rows.values_mut() {
            if row.state == CandidateState::Training {
                results::back_to_rung(row);
            }
            if row.given_up {
                row.given_up = false;
                row.state = CandidateState::Proposed;
                row.failed_attempts = 0;
                results::back_to_rung(row);
                reopened.push(row.number);
            }
        }
        let rungs = settings.rungs.iter().copied().filter(|&tokens| tokens < settings.tokens);
        let rungs = rungs.chain([settings.tokens]).collect();
        let mut standing = Self {
            tasks: Tasks::new(settings.attempts),
            settings,
            rows,
            table,
            calibrations: Calibrations::new(),
            rungs,
            ending: None,
            failed_in_a_row: Vec::new(),
            reopened,
        };
        let adopted = standing.adopt_wholes();
        standing.reopened.extend(adopted);
        standing
    }

    /// Writes down what is news since the run before.
    pub(super) fn save_reopened(&mut self, commands: &mut Vec<Command>) {
        for number in std::mem::take(&mut self.reopened) {
            commands.push(Command::Save(self.rows[&number].clone()));
        }
    }

    /// The numbers of the front.
    pub(super) fn front(&self) -> Vec<u32> {
        let Settings { objectives, target_tokens, .. } = &self.settings;
        Contenders::of(self.rows.values(), objectives, *target_tokens).front()
    }

    /// Candidates in a state.
    pub(super) fn count(&self, state: &CandidateState) -> usize {
        self.rows.values().filter(|row| row.state == *state).count()
    }

    /// Candidates whose training counts or will count as an evaluation.
    pub(super) fn spent(&self) -> usize {
        self.rows.values().filter(|row| row.is_evaluation(self.settings.refusals_count)).count()
    }

    /// Whether proposals are over: all evaluations are spent, or there is nothing left to propose.
    pub(super) fn is_proposed_out(&self) -> bool {
        self.spent() >= self.settings.evaluations as usize || self.ending.is_some()
    }

    /// Whether every candidate is where it stays, and none will follow.
    pub(super) fn is_judged(&self) -> bool {
        self.rows.values().all(|row| row.state.is_final()) && self.is_proposed_out()
    }

    pub(super) fn ladder(&self) -> Ladder<'_> {
        Ladder {
            rungs: &self.rungs,
            promote: self.settings.promote,
            objectives: &self.settings.objectives,
            limits: &self.settings.limits,
            target: self.settings.target_tokens,
        }
    }

    pub(super) fn row(&mut self, number: u32) -> &mut Candidate {
        self.rows.get_mut(&number).expect("a task is of a row")
    }

    // Answers.

    pub(super) fn progress(&mut self, progress: &wire::Progress, commands: &mut Vec<Command>) {
        let Some(&Task::Train(Training { number, .. })) = self.tasks.of(progress.id) else {
            return;
        };
        // An extra training has no curve in the row.
        if self.rows[&number].state != CandidateState::Training {
            return;
        }
        if !progress.loss.is_finite() || !progress.tokens_per_second.is_finite() {
            return;
        }
        let row = self.row(number);
        row.tokens = progress.tokens;
        row.curve.push((progress.tokens, progress.loss));
        commands.push(Command::SaveProgress(Progress {
            number,
            step: progress.step,
            tokens: progress.tokens,
            tokens_total: progress.tokens_total,
            loss: progress.loss,
            tokens_per_second: progress.tokens_per_second,
        }));
    }

    pub(super) fn result(&mut self, evaluation: Evaluation, commands: &mut Vec<Command>) {
        let id = evaluation.id;
        let Some(&Task::Train(training)) = self.tasks.of(id) else {
            return self.mistaken(id, "the values of a training", commands);
        };
        let number = training.number;
        let row = &self.rows[&number];
        let lacking = results::lacking(&evaluation, row, &self.settings);
        let unusable = results::check(&evaluation).err();
        if let Some(reason) = unusable.or(lacking.as_ref().map(|lacking| lacking.reason.clone())) {
            let kept = &row.checkpoint;
            let useless = evaluation.checkpoint.filter(|path| kept.as_ref() != Some(path));
            // A name that no result ever had is no fault of this one.
            let is_unheard_of =
                lacking.is_some_and(|lacking| !self.has_been_reported(lacking.name));
            if is_unheard_of && !self.is_extra(training) {
                self.halt(id, reason, commands);
            } else {
                let refusal = Refusal::of(FailureKind::Invalid, id, reason);
                self.failed(refusal, String::new(), commands);
            }
            commands.extend(useless.map(Command::RemoveCheckpoint));
            return;
        }
        self.tasks.answer(id);
        if let Some(why) = &evaluation.unsaved
            && self.ending.is_none()
        {
            let reason = format!("a checkpoint could not be kept: {why}");
            self.ending = Some(Finish::Halted { reason });
        }
        let row = self.rows.get_mut(&number).expect("a task is of a row");
        self.failed_in_a_row.clear();
        let superseded = results::take(row, training, evaluation, &self.settings);
        let has_ended = row.state == CandidateState::Done && row.fidelity >= self.settings.tokens;
        let mut let_go = Vec::new();
        if has_ended {
            self.let_go(Some(number), &mut let_go);
        }
        commands.push(Command::Save(self.rows[&number].clone()));
        commands.extend(superseded.map(Command::RemoveCheckpoint));
        commands.extend(let_go);
    }

    /// Whether a finished training had a value of this name.
    fn has_been_reported(&self, name: &str) -> bool {
        let trained = self.rows.values().flat_map(|row| &row.trained);
        trained.into_iter().any(|trained| trained.values.contains_key(name))
    }

    /// Ends the campaign for what its settings ask and no worker gives; the candidate is tried again when that is mended.
    fn halt(&mut self, id: u64, reason: String, commands: &mut Vec<Command>) {
        let Some(Task::Train(training)) = self.tasks.answer(id) else { return };
        let number = training.number;
        self.row(number).given_up = true;
        self.save(
            number,
            CandidateState::Failed {
                kind: FailureKind::Invalid,
                reason: reason.clone(),
                log: String::new(),
            },
            commands,
        );
        if self.ending.is_none() {
            self.ending = Some(Finish::Halted { reason });
        }
    }

    pub(super) fn timing(&mut self, measured: Measured, commands: &mut Vec<Command>) {
        let timing = measured.timing;
        if matches!(self.tasks.of(measured.id), None | Some(Task::Train(_))) {
            return self.mistaken(measured.id, "a time", commands);
        }
        if let Err(reason) = results::check_timing(&timing) {
            let refusal = Refusal::of(FailureKind::Invalid, measured.id, reason);
            self.failed(refusal, String::new(), commands);
            return;
        }
        match self.tasks.finish(measured.id) {
            Some(Task::Part(key)) => {
                let entry = LatencyEntry { key, timing };
                self.table.insert(entry.clone());
                commands.push(Command::SaveLatency(entry));
            }
            Some(Task::Whole { number, name }) => self.whole(number, &name, timing, commands),
            Some(Task::Train(_)) | None => {}
        }
    }

    /// An answer to another question than was asked. Who gives it is at nothing any more, so that nobody else would answer.
    fn mistaken(&mut self, id: u64, got: &str, commands: &mut Vec<Command>) {
        if self.tasks.of(id).is_some() {
            let reason = format!("its worker answered with {got}, which it was not asked for");
            let refusal = Refusal::of(FailureKind::Protocol, id, reason);
            self.failed(refusal, String::new(), commands);
        }
    }

    pub(super) fn infeasible(&mut self, refusal: Refusal, commands: &mut Vec<Command>) {
        match self.tasks.answer(refusal.id) {
            // A training that was told to stop goes on another day.
            Some(Task::Train(_)) if self.ending == Some(Finish::Stopped) => {}
            Some(Task::Train(training)) if !self.is_extra(training) => {
                let state = CandidateState::Infeasible { reason: refusal.reason };
                self.save(training.number, state, commands);
            }
            Some(Task::Part(key)) => {
                let reason = format!("{}: {}", key.part, refusal.reason);
                let fate = CandidateState::Infeasible { reason };
                self.tasks.give_up(Task::Part(key), Some(fate));
            }
            Some(task @ Task::Whole { .. }) => {
                let fate = CandidateState::Infeasible { reason: refusal.reason };
                self.tasks.give_up(task, Some(fate));
            }
            Some(task) => self.tasks.give_up(task, None),
            None => {}
        }
    }

    pub(super) fn failed(&mut self, refusal: Refusal, log: String, commands: &mut Vec<Command>) {
        let Refusal { id, reason, kind } = refusal;
        let kind = kind.unwrap_or_else(|| FailureKind::guessed(&reason, &log));
        let attempts = self.settings.attempts;
        match self.tasks.answer(id) {
            // The same signal that stops the campaign may end its workers.
            Some(_) if self.ending == Some(Finish::Stopped) => {}
            // Its tries are counted in the row, which outlives this run.
            Some(Task::Train(training)) if !self.is_extra(training) => {
                let number = training.number;
                let row = self.row(number);
                row.failed_attempts += 1;
                results::back_to_rung(row);
                if row.failed_attempts < attempts {
                    commands.push(Command::Save(row.clone()));
                } else {
                    self.fail(number, (kind, reason, log), commands);
                }
            }
            Some(task) => {
                let is_last = self.tasks.fail(task.clone());
                let what = match &task {
                    Task::Part(key) => key.part.to_string(),
                    Task::Whole { .. } => "the whole model".to_owned(),
                    Task::Train(_) => return,
                };
                if is_last {
                    let reason = format!("timing of {what} failed: {reason}");
                    self.tasks.give_up(task, Some(CandidateState::Failed { kind, reason, log }));
                }
            }
            None => {}
        }
    }

    /// A worker is lost. Who was at the same task when many were is not taken for innocent.
    pub(super) fn lost(&mut self, id: u64, commands: &mut Vec<Command>) {
        let Some((task, times)) = self.tasks.lose(id) else { return };
        if times >= LOSSES {
            self.tasks.adopt(task, id);
            let reason = format!("its worker was lost {times} times");
            let refusal = Refusal::of(FailureKind::Crashed, id, reason);
            return self.failed(refusal, String::new(), commands);
        }
        self.reopen(&task, commands);
    }

    /// A worker leaves in order: that is not counted.
    pub(super) fn handed_back(&mut self, id: u64, commands: &mut Vec<Command>) {
        if let Some(task) = self.tasks.hand_back(id) {
            self.reopen(&task, commands);
        }
    }

    /// Writes down that nobody is at a training that was begun.
    fn reopen(&mut self, task: &Task, commands: &mut Vec<Command>) {
        if let Task::Train(training) = *task
            && !self.is_extra(training)
        {
            let row = self.row(training.number);
            results::back_to_rung(row);
            commands.push(Command::Save(row.clone()));
        }
    }

    /// A candidate fails for good. Too many in a row, and the fault is not theirs: the next run tries them again.
    fn fail(
        &mut self,
        number: u32,
        (kind, reason, log): (FailureKind, String, String),
        commands: &mut Vec<Command>,
    ) {
        self.failed_in_a_row.push(number);
        let failed = self.failed_in_a_row.len();
        if failed >= self.settings.give_up_after as usize && self.ending.is_none() {
            let before = &self.failed_in_a_row[..failed - 1];
            let is_one_kind = before.iter().all(|number| match &self.rows[number].state {
                CandidateState::Failed { kind: other, .. } => *other == kind,
                _ => false,
            });
            let kind = is_one_kind.then_some(kind);
            self.ending = Some(Finish::GaveUp { kind, reason: reason.clone() });
            for number in self.failed_in_a_row.clone() {
                let row = self.row(number);
                row.given_up = true;
                if matches!(row.state, CandidateState::Failed { .. }) {
                    commands.push(Command::Save(row.clone()));
                }
            }
        }
        self.row(number).given_up = matches!(self.ending, Some(Finish::GaveUp { .. }));
        self.save(number, CandidateState::Failed { kind, reason, log }, commands);
    }

    pub(super) fn save(&mut self, number: u32, state: CandidateState, commands: &mut Vec<Command>) {
        let row = self.row(number);
        row.state = state;
        let is_lost =
            matches!(row.state, CandidateState::Failed { .. } | CandidateState::Infeasible { .. });
        let checkpoint = if is_lost { row.checkpoint.take() } else { None };
        commands.push(Command::Save(row.clone()));
        commands.extend(checkpoint.map(Command::RemoveCheckpoint));
    }

    /// Has a candidate trained on from the rung that it is done at.
    pub(super) fn promote(&mut self, number: u32, commands: &mut Vec<Command>) {
        self.row(number).failed_attempts = 0;
        self.save(number, CandidateState::Training, commands);
    }

    /// Whether a training is beside those that its candidate is judged by.
    pub(super) fn is_extra(&self, training: Training) -> bool {
        self.rows[&training.number].state != CandidateState::Training
    }

    // What follows from the rows alone.

    /// Moves on each proposed candidate whose latency is known, or known to be unknowable.
    pub(super) fn settle(&mut self, commands: &mut Vec<Command>) {
        self.calibrate(commands);
        let waits = self.waits();
        let waiting: Vec<u32> = self
            .rows
            .values()
            .filter(|row| row.state == CandidateState::Proposed)
            .map(|row| row.number)
            .collect();
        for number in waiting {
            let mut row = self.rows[&number].clone();
            let verdict = self.verdict(&mut row, &waits);
            self.rows.insert(number, row);
            match verdict {
                Some(CandidateState::Failed { kind, reason, log }) => {
                    self.fail(number, (kind, reason, log), commands);
                }
                Some(state) => self.save(number, state, commands),
                None => {}
            }
        }
    }

    /// Lets go of what those left at a rung would have gone on from: they would begin anew if there were more evaluations one
    /// day.
    pub(super) fn leave_rungs(&mut self, commands: &mut Vec<Command>) {
        let full = self.settings.tokens;
        let left = |row: &&mut Candidate| {
            row.state == CandidateState::Done && row.fidelity > 0 && row.fidelity < full
        };
        for row in self.rows.values_mut().filter(left) {
            if let Some(checkpoint) = row.checkpoint.take() {
                commands.push(Command::Save(row.clone()));
                commands.push(Command::RemoveCheckpoint(checkpoint));
            }
        }
    }
}
