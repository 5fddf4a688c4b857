//! The campaign itself: events in, commands out. How it stands, what is on its way and what an answer changes, is in
//! `standing` and `tasks`; what a result means in `results`; what it wants of its workers in `wanted`; who is proposed in
//! `proposing`.

use std::collections::BTreeMap;

use super::candidate::{Candidate, CandidateState};
use super::events::{Command, Event, Finish, History};
use super::proposing::Proposals;
use super::settings::Settings;
use super::standing::Standing;
use super::table::LatencyTable;
use super::tasks::{Task, Training};
use super::wanted;
use crate::latency::{Conditions, LatencyKey};
use crate::proposals::Proposer;
use crate::subject::Subjects;
use crate::wire::{Evaluate, Measure, MeasureWhole, Request};

/// A campaign between two events.
#[derive(Debug, Clone)]
pub struct Campaign<D: Subjects> {
    standing: Standing,
    proposals: Proposals<D>,
    trainers: u32,
    /// By device.
    profilers: BTreeMap<String, u32>,
    finished: bool,
}

/// Candidates that are proposed in one go. To propose one takes some milliseconds, in which whoever drives the campaign hears
/// nobody.
const AT_ONCE: usize = 64;
/// Trainers up to which a candidate is proposed when one is free for it. Beyond, some are proposed ahead, one for so many
/// trainers, since several at once take little longer than one: none of them waits for a proposal.
const FEW: usize = 32;
const PER_ONE_AHEAD: usize = 8;

impl<D: Subjects> Campaign<D> {
    /// A campaign that stands where `history` ends. Trainings that history shows as running begin again, with their
    /// number and seed; candidates whose failures made the run before give up are tried again.
    pub fn new(
        settings: Settings,
        domain: D,
        proposer: Proposer<D::Point>,
        history: History,
    ) -> Self {
        let standing = Standing::new(settings, history);
        let proposals = Proposals::new(domain, proposer, &standing.rows);
        let profilers = BTreeMap::new();
        Self { standing, proposals, trainers: 0, profilers, finished: false }
    }

    /// Has requests numbered from here on, so that no answer to a request of an earlier run is taken for one to a request of
    /// this one.
    #[must_use]
    pub fn numbering_from(mut self, first: u64) -> Self {
        self.standing.tasks.number_from(first);
        self
    }

    /// Whether an answer to this request is still to come. A later one comes too late, and changes nothing.
    pub fn waits_for(&self, request: u64) -> bool {
        self.standing.tasks.of(request).is_some()
    }

    /// What to do about an event.
    pub fn handle(&mut self, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.finished {
            return commands;
        }
        self.standing.save_reopened(&mut commands);
        match event {
            Event::Workers { trainers, profilers } => {
                self.trainers = trainers;
                self.profilers = profilers;
            }
            Event::Progress(progress) => self.standing.progress(&progress, &mut commands),
            Event::Result(evaluation) => self.standing.result(evaluation, &mut commands),
            Event::Values { values, seconds } => {
                self.standing.result(values.evaluation(seconds), &mut commands);
            }
            Event::Timing(measured) => self.standing.timing(measured, &mut commands),
            Event::Infeasible(refusal) => self.standing.infeasible(refusal, &mut commands),
            Event::Failed { refusal, log } => {
                self.standing.failed(refusal, log, &mut commands);
            }
            Event::Lost { id } => self.standing.lost(id, &mut commands),
            Event::HandedBack { id } => self.standing.handed_back(id, &mut commands),
            Event::Adopted(evaluate) => self.adopt(&evaluate),
            Event::QuietTiming(quiet) => self.standing.settings.quiet = quiet,
            Event::Obstacle { reason } => {
                self.standing.ending.get_or_insert(Finish::Halted { reason });
            }
            Event::TimeOver { reason } => {
                self.standing.ending.get_or_insert(Finish::Exhausted { reason });
            }
            Event::StopRequested => self.stop(&mut commands),
        }
        if !self.finished {
            self.advance(&mut commands);
        }
        commands
    }

    /// All candidates in the order of their numbers.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.standing.rows.values()
    }

    /// The candidate that a request is about.
    pub fn candidate_of(&self, request: u64) -> Option<&Candidate> {
        self.standing.rows.get(&self.standing.tasks.of(request)?.number()?)
    }

    /// The numbers of the candidates that no other dominates, ascending, among those at the highest rung that one has
    /// reached.
    pub fn front(&self) -> Vec<u32> {
        self.standing.front()
    }

    /// Whether trainers wait for candidates that were not proposed yet: the next event brings some.
    pub fn is_behind(&self) -> bool {
        self.standing.ending.is_none() && self.room() > 0
    }

    /// The latency table as far as it is known.
    pub fn latencies(&self) -> &LatencyTable {
        &self.standing.table
    }

    /// Candidates whose training counts or will count as an evaluation: all but those that were infeasible before it.
    pub fn spent(&self) -> usize {
        self.standing.spent()
    }

    fn stop(&mut self, commands: &mut Vec<Command>) {
        if self.standing.ending == Some(Finish::Stopped) {
            self.finish(Finish::Stopped, commands);
            return;
        }
        self.standing.ending = Some(Finish::Stopped);
        for (id, task) in self.standing.tasks.under_way() {
            if matches!(task, Task::Train(_)) {
                commands.push(Command::Send(Request::Stop { id }));
            }
        }
    }

    /// Takes a training for one under way that a worker is at already, if it is wanted and nobody is at it.
    fn adopt(&mut self, evaluate: &Evaluate) {
        let standing = &self.standing;
        let extra = if standing.is_judged() { wanted::extra(standing) } else { None };
        let is_it = |training: &Training| {
            let subject = &standing.rows[&training.number].subject;
            (training.tokens, training.seed) == (evaluate.tokens, evaluate.seed)
                && subject.stack() == Some(&evaluate.architecture)
        };
        let training = wanted::trainings(standing).into_iter().chain(extra).find(is_it);
        if let Some(training) = training {
            self.standing.tasks.adopt(Task::Train(training), evaluate.id);
        }
    }

    /// What follows from how it stands.
    fn advance(&mut self, commands: &mut Vec<Command>) {
        // An exhausted space ends the proposals only; what was proposed still runs.
        if matches!(self.standing.ending, None | Some(Finish::Exhausted { .. })) {
            self.standing.settle(commands);
            let most = self.standing.count(&CandidateState::Training) + AT_ONCE;
            while self.standing.ending.is_none()
                && (self.promote(commands)
                    || self.standing.count(&CandidateState::Training) < most
                        && self.propose(commands))
            {
                self.standing.settle(commands);
            }
            // No further candidate comes; what was proposed climbs on.
            while self.standing.ending.is_some() && self.promote(commands) {}
        }
        if matches!(self.standing.ending, None | Some(Finish::Exhausted { .. })) {
            self.send(commands);
        }
        if !self.standing.tasks.under_way().is_empty() {
            return;
        }
        match self.standing.ending.clone() {
            Some(Finish::Exhausted { .. }) if self.is_at_work() => {}
            Some(finish) => self.finish(finish, commands),
            None if self.standing.spent() >= self.standing.settings.evaluations as usize
                && !self.is_at_work() =>
            {
                self.finish(Finish::Complete, commands);
            }
            None => {}
        }
    }

    /// Whether a candidate waits for something, or a whole model for its timing.
    fn is_at_work(&self) -> bool {
        self.standing.rows.values().any(|row| !row.state.is_final())
            || wanted::extra(&self.standing).is_some()
            || !wanted::wholes(&self.standing).is_empty()
    }

    fn finish(&mut self, finish: Finish, commands: &mut Vec<Command>) {
        self.finished = true;
        self.standing.tasks.clear();
        if matches!(finish, Finish::Complete | Finish::Exhausted { .. }) {
            self.standing.leave_rungs(commands);
            self.standing.let_go(None, commands);
        }
        commands.push(Command::Finish(finish));
    }

    /// Trains the best of a rung on, if there is room for one; false when there was none. A start is evaluated as a whole
    /// first.
    fn promote(&mut self, commands: &mut Vec<Command>) -> bool {
        let is_last = self.standing.is_proposed_out();
        if self.standing.rungs.len() < 2
            || self.standing.count(&CandidateState::Proposed) > 0
            || self.standing.count(&CandidateState::Training) >= self.trainers as usize
            || !is_last && self.standing.spent() < self.proposals.start_size()
        {
            return false;
        }
        // Shares are rounded up when all are there to be shared: no candidate is on its way to its first rung.
        let climbs = |row: &Candidate| row.state == CandidateState::Training && row.fidelity == 0;
        let is_last = is_last && !self.standing.rows.values().any(climbs);
        let promoted = self.standing.ladder().promotion(&self.standing.rows.values(), is_last);
        if let Some(number) = promoted {
            self.standing.promote(number, commands);
        }
        promoted.is_some()
    }

    /// How many candidates there is room for.
    ///
    /// The start does not depend on outcomes, so it is proposed as a whole and its parts are timed before anything
    /// trains. A later batch waits until the one before is within its limits: what is proposed is then the same
    /// however fast timings come in.
    fn room(&self) -> usize {
        if self.trainers == 0 || self.standing.count(&CandidateState::Proposed) > 0 {
            return 0;
        }
        let spent = self.standing.spent();
        let start = self.proposals.start_size();
        let training = self.standing.count(&CandidateState::Training);
        let trainers = self.trainers as usize;
        let ahead = if trainers > FEW { trainers / PER_ONE_AHEAD } else { 0 };
        let room = if spent < start {
            start - spent
        } else if training < trainers {
            (trainers + ahead - training).min(AT_ONCE)
        } else {
            0
        };
        room.min((self.standing.settings.evaluations as usize).saturating_sub(spent))
    }

    /// Proposes candidates, as far as there is room for some; false when there was none.
    fn propose(&mut self, commands: &mut Vec<Command>) -> bool {
        let room = self.room();
        if room == 0 {
            return false;
        }
        let (rows, end) = self.proposals.next(room, &self.standing);
        if let Some(reason) = end {
            self.standing.ending = Some(Finish::Exhausted { reason });
        }
        let is_any = !rows.is_empty();
        for row in rows {
            commands.push(Command::Save(row.clone()));
            self.standing.rows.insert(row.number, row);
        }
        is_any
    }

    /// Gives idle workers what is wanted: timings first, then trainings, the whole models of the front when all else is done.
    fn send(&mut self, commands: &mut Vec<Command>) {
        let parts = wanted::parts(&self.standing);
        let wholes = wanted::early_wholes(&self.standing);
        let mut idle = self.idle_profilers();
        for key in &parts {
            if self.take(&mut idle, &key.conditions.device) {
                let id = self.standing.tasks.begin(Task::Part(key.clone()));
                let request = Measure::of(id, key.clone());
                commands.push(Command::Send(Request::Measure(request)));
            }
        }
        self.send_wholes(&wholes, commands);
        if !self.must_be_quiet(&parts, &wholes) {
            self.send_trainings(commands);
            self.send_extras(commands);
        }
        if self.standing.is_judged()
            && self.standing.tasks.trainings().is_empty()
            && wanted::extra(&self.standing).is_none()
        {
            self.send_wholes(&wanted::wholes(&self.standing), commands);
        }
    }

    fn send_wholes(&mut self, wanted: &[(u32, String, Conditions)], commands: &mut Vec<Command>) {
        let mut idle = self.idle_profilers();
        for (number, name, conditions) in wanted {
            let Some(architecture) = self.standing.rows[number].subject.stack().cloned() else {
                continue;
            };
            if !self.take(&mut idle, &conditions.device) {
                continue;
            }
            let task = Task::Whole { number: *number, name: name.clone() };
            let id = self.standing.tasks.begin(task);
            let request = MeasureWhole { id, architecture, conditions: conditions.clone() };
            commands.push(Command::Send(Request::MeasureWhole(request)));
        }
    }

    fn send_trainings(&mut self, commands: &mut Vec<Command>) {
        let idle = (self.trainers as usize).saturating_sub(self.standing.tasks.trainings().len());
        let next = wanted::trainings(&self.standing);
        for training in next.into_iter().take(idle) {
            self.train(training, commands);
        }
    }

    /// Trainings that measure how far the results are to be trusted, when all candidates are judged.
    fn send_extras(&mut self, commands: &mut Vec<Command>) {
        while self.standing.is_judged()
            && self.standing.tasks.trainings().len() < self.trainers as usize
        {
            let Some(training) = wanted::extra(&self.standing) else { return };
            self.train(training, commands);
        }
    }

    fn train(&mut self, training: Training, commands: &mut Vec<Command>) {
        let id = self.standing.tasks.begin(Task::Train(training));
        let row = &self.standing.rows[&training.number];
        let is_extra = self.standing.is_extra(training);
        let failed = if is_extra {
            self.standing.tasks.failed(&Task::Train(training))
        } else {
            row.failed_attempts
        };
        let request = wanted::request(id, row, training, failed, is_extra);
        commands.push(Command::Send(request));
    }

    /// How many could time now on each device.
    fn idle_profilers(&self) -> BTreeMap<String, u32> {
        let Standing { settings, tasks, .. } = &self.standing;
        let mut idle = self.profilers.clone();
        let quiet = &settings.quiet.from_training;
        if !quiet.is_empty() && !tasks.trainings().is_empty() {
            idle.retain(|device, _| !quiet.contains(device));
        }
        for device in tasks.timings().filter_map(|task| self.standing.device_of(task)) {
            if !self.take(&mut idle, device) {
                // Its worker is not counted any more, and still at it.
                self.leave_the_turn_to(&mut idle, device);
            }
        }
        idle
    }

    /// Takes one of the idle ones of a device, and with it the turn of those beside it; false where none is idle.
    fn take(&self, idle: &mut BTreeMap<String, u32>, device: &str) -> bool {
        let Some(count) = idle.get_mut(device).filter(|count| **count > 0) else { return false };
        *count -= 1;
        self.leave_the_turn_to(idle, device);
        true
    }

    fn leave_the_turn_to(&self, idle: &mut BTreeMap<String, u32>, device: &str) {
        let quiet = &self.standing.settings.quiet;
        idle.retain(|other, _| !quiet.takes_turns(device, other));
    }

    /// Whether something is timed, or to be timed, where nothing may train meanwhile.
    fn must_be_quiet(&self, parts: &[LatencyKey], wholes: &[(u32, String, Conditions)]) -> bool {
        let Standing { settings, tasks, .. } = &self.standing;
        let quiet = &settings.quiet.from_training;
        !quiet.is_empty()
            && (parts.iter().any(|key| quiet.contains(&key.conditions.device))
                || wholes.iter().any(|(_, _, conditions)| quiet.contains(&conditions.device))
                || tasks
                    .timings()
                    .filter_map(|task| self.standing.device_of(task))
                    .any(|device| quiet.contains(device)))
    }
}
