//! The campaign itself: what it waits for, and what it does about an event.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::rungs::{Extrapolation, Ladder, objectives_at, top};
use super::trust::{self, Training};
use super::{
    Candidate, CandidateState, Command, Event, Finish, History, LatencyTable, Progress, Settings,
    Trained,
};
use crate::latency::{Conditions, LatencyEntry, LatencyKey, Throughput, Timing};
use crate::objective;
use crate::pareto::{Objectives, front};
use crate::proposals::{Outcome, Proposer, Trial};
use crate::subject::{Subject, Subjects};
use crate::wire::{self, Request, Value};

/// Proposals in a row that are over a limit before the campaign says that there is nothing within it.
const INFEASIBLE_IN_A_ROW: usize = 500;

/// A request on its way.
#[derive(Debug, Clone, PartialEq)]
enum Task {
    Part(LatencyKey),
    Whole { number: u32, name: String },
    Train(Training),
}

/// A campaign between two events.
#[derive(Debug, Clone)]
pub struct Campaign<D: Subjects> {
    settings: Settings,
    domain: D,
    proposer: Proposer<D::Point>,
    rows: BTreeMap<u32, Candidate>,
    /// The rows' subjects as points of the domain.
    points: BTreeMap<u32, D::Point>,
    table: LatencyTable,
    trainers: u32,
    profilers: u32,
    /// What was sent and is not answered, by request id.
    tasks: BTreeMap<u64, Task>,
    next_request: u64,
    /// Failed tries of a timing in this run, with the last reason.
    failed_parts: HashMap<LatencyKey, u32>,
    failed_wholes: HashMap<(u32, String), u32>,
    /// The same of trainings beside those that the candidates are judged by.
    failed_extras: HashMap<Training, u32>,
    /// Parts that cannot be timed: tried often enough (a failure), or the profiler says so (infeasible).
    hopeless: HashMap<LatencyKey, CandidateState>,
    failures_in_a_row: u32,
    /// Tokens of each rung, ascending, the full training last.
    rungs: Vec<u64>,
    /// Set when nothing new shall begin; what runs is waited for.
    ending: Option<Finish>,
    finished: bool,
}

impl<D: Subjects> Campaign<D> {
    /// A campaign that stands where `history` ends. Trainings that history shows as running begin again, with their
    /// number and seed.
    pub fn new(
        settings: Settings,
        domain: D,
        proposer: Proposer<D::Point>,
        history: History,
    ) -> Self {
        let mut table = LatencyTable::default();
        for entry in history.latencies {
            table.insert(entry);
        }
        let mut rows: BTreeMap<u32, Candidate> =
            history.candidates.into_iter().map(|c| (c.number, c)).collect();
        for row in rows.values_mut() {
            if row.state == CandidateState::Training {
                back_to_rung(row);
            }
        }
        let points = rows
            .values()
            .filter_map(|row| Some((row.number, domain.point(&row.subject)?)))
            .collect();
        let rungs = settings.rungs.iter().copied().filter(|&tokens| tokens < settings.tokens);
        let rungs = rungs.chain([settings.tokens]).collect();
        Self {
            settings,
            domain,
            proposer,
            rows,
            points,
            table,
            trainers: 0,
            profilers: 0,
            tasks: BTreeMap::new(),
            next_request: 1,
            failed_parts: HashMap::new(),
            failed_wholes: HashMap::new(),
            failed_extras: HashMap::new(),
            hopeless: HashMap::new(),
            failures_in_a_row: 0,
            rungs,
            ending: None,
            finished: false,
        }
    }

    /// What to do about an event.
    pub fn handle(&mut self, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.finished {
            return commands;
        }
        match event {
            Event::Workers { trainers, profilers } => {
                self.trainers = trainers;
                self.profilers = profilers;
            }
            Event::Progress(progress) => self.progress(&progress, &mut commands),
            Event::Result(evaluation) => self.result(evaluation, &mut commands),
            Event::Values { values: wire::Values { id, values }, seconds } => {
                let (parameters, tokens) = (0, 0);
                let (checkpoint, curve, retrieval) = (None, Vec::new(), Vec::new());
                let evaluation = wire::Evaluation {
                    id,
                    values,
                    parameters,
                    tokens,
                    seconds,
                    checkpoint,
                    unsaved: None,
                    curve,
                    retrieval,
                };
                self.result(evaluation, &mut commands);
            }
            Event::Timing(measured) => self.timing(measured, &mut commands),
            Event::Infeasible(refusal) => self.infeasible(refusal, &mut commands),
            Event::Failed { refusal, log } => {
                self.failed(refusal.id, refusal.reason, log, &mut commands);
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
        self.rows.values()
    }

    /// The candidate that a request is about.
    pub fn candidate_of(&self, request: u64) -> Option<&Candidate> {
        match self.tasks.get(&request)? {
            Task::Part(_) => None,
            Task::Whole { number, .. } | Task::Train(Training { number, .. }) => {
                self.rows.get(number)
            }
        }
    }

    /// The numbers of the candidates that no other dominates, ascending, among those at the highest rung that one has
    /// reached.
    pub fn front(&self) -> Vec<u32> {
        let (numbers, points): (Vec<u32>, Vec<Objectives>) =
            self.contenders().filter_map(|row| Some((row.number, self.objectives(row)?))).unzip();
        front(&points).into_iter().map(|index| numbers[index]).collect()
    }

    /// The latency table as far as it is known.
    pub fn latencies(&self) -> &LatencyTable {
        &self.table
    }

    /// Candidates whose training counts or will count as an evaluation: all but those that were infeasible before it.
    pub fn spent(&self) -> usize {
        self.rows.values().filter(|row| row.is_evaluation(self.settings.refusals_count)).count()
    }

    /// Those done at the highest rung that one has reached.
    fn contenders(&self) -> impl Iterator<Item = &Candidate> + Clone {
        let top = top(self.rows.values());
        let is_there =
            move |row: &&Candidate| row.state == CandidateState::Done && row.fidelity == top;
        self.rows.values().filter(is_there)
    }

    fn objectives(&self, row: &Candidate) -> Option<Objectives> {
        objectives_at(row, &self.settings.objectives, row.fidelity)
    }

    fn ladder(&self) -> Ladder<'_> {
        Ladder {
            rungs: &self.rungs,
            promote: self.settings.promote,
            objectives: &self.settings.objectives,
            limits: &self.settings.limits,
        }
    }

    // Events.

    fn progress(&mut self, progress: &wire::Progress, commands: &mut Vec<Command>) {
        let Some(Task::Train(training)) = self.tasks.get(&progress.id) else { return };
        let number = &training.number;
        // An extra training has no curve in the row.
        if self.rows[number].state != CandidateState::Training {
            return;
        }
        if !progress.loss.is_finite() || !progress.tokens_per_second.is_finite() {
            return;
        }
        let row = self.rows.get_mut(number).expect("a task is of a row");
        row.tokens = progress.tokens;
        row.curve.push((progress.tokens, progress.loss));
        commands.push(Command::SaveProgress(Progress {
            number: *number,
            step: progress.step,
            tokens: progress.tokens,
            tokens_total: progress.tokens_total,
            loss: progress.loss,
            tokens_per_second: progress.tokens_per_second,
        }));
    }

    fn result(&mut self, evaluation: wire::Evaluation, commands: &mut Vec<Command>) {
        let id = evaluation.id;
        let Some(&Task::Train(training)) = self.tasks.get(&id) else { return };
        let number = training.number;
        if let Err(reason) = self.check(&evaluation, number) {
            let kept = &self.rows[&number].checkpoint;
            let useless = evaluation.checkpoint.filter(|path| kept.as_ref() != Some(path));
            self.failed(id, reason, String::new(), commands);
            commands.extend(useless.map(Command::RemoveCheckpoint));
            return;
        }
        self.tasks.remove(&id);
        self.failures_in_a_row = 0;
        let row = self.rows.get_mut(&number).expect("a task is of a row");
        // What was measured or computed here outweighs what a trainer says.
        let is_of_trainer = |name: &String| {
            !row.values.contains_key(name)
                || row.trained.iter().any(|t| t.values.contains_key(name))
        };
        let values =
            evaluation.values.into_iter().filter(|(name, _)| is_of_trainer(name)).collect();
        let Training { tokens, seed, .. } = training;
        row.train_seconds += evaluation.seconds;
        let superseded = if row.state == CandidateState::Training {
            row.fidelity = tokens;
            row.tokens = evaluation.tokens;
            if !evaluation.curve.is_empty() {
                row.curve = evaluation.curve;
            }
            row.retrieval = evaluation.retrieval;
            row.add(Trained { tokens, seed, values, seconds: evaluation.seconds });
            // At a lower rung a limit on what the trainer reports may yet be kept.
            row.state = match over_limit(&self.settings.limits, &row.values) {
                Some(reason) if tokens >= self.settings.tokens => {
                    CandidateState::Infeasible { reason }
                }
                _ => CandidateState::Done,
            };
            std::mem::replace(&mut row.checkpoint, evaluation.checkpoint)
        } else {
            row.add(Trained { tokens, seed, values, seconds: evaluation.seconds });
            evaluation.checkpoint
        };
        let superseded = superseded.filter(|path| row.checkpoint.as_ref() != Some(path));
        commands.push(Command::Save(row.clone()));
        commands.extend(superseded.map(Command::RemoveCheckpoint));
    }

    /// Whether a result has everything that a front needs.
    fn check(&self, evaluation: &wire::Evaluation, number: u32) -> Result<(), String> {
        for (name, value) in &evaluation.values {
            if !value.mean.is_finite() || value.standard_error.is_some_and(|e| !e.is_finite()) {
                return Err(format!("the result's `{name}` must be finite, got {}", value.mean));
            }
        }
        if !evaluation.seconds.is_finite()
            || evaluation.curve.iter().any(|(_, loss)| !loss.is_finite())
        {
            return Err("the result's seconds and curve must be finite".to_owned());
        }
        if evaluation.retrieval.iter().flat_map(|layer| &layer.snr).any(|(_, snr)| !snr.is_finite())
        {
            return Err("the result's retrieval SNR must be finite".to_owned());
        }
        // What an earlier rung reported is no value of this one.
        let row = &self.rows[&number];
        let is_known = |name: &str| {
            row.values.contains_key(name)
                && !row.trained.iter().any(|t| t.values.contains_key(name))
        };
        match self
            .settings
            .objectives
            .iter()
            .map(|objective| objective::value_name(objective))
            .find(|&name| !is_known(name) && !evaluation.values.contains_key(name))
        {
            Some(name) => Err(format!("the result lacks the objective `{name}`")),
            None => Ok(()),
        }
    }

    fn timing(&mut self, measured: wire::Measured, commands: &mut Vec<Command>) {
        let timing = measured.timing;
        if matches!(self.tasks.get(&measured.id), None | Some(Task::Train(_))) {
            return;
        }
        if let Err(reason) = check_timing(&timing) {
            self.failed(measured.id, reason, String::new(), commands);
            return;
        }
        match self.tasks.remove(&measured.id) {
            Some(Task::Part(key)) => {
                let entry = LatencyEntry { key, timing };
                self.table.insert(entry.clone());
                commands.push(Command::SaveLatency(entry));
            }
            Some(Task::Whole { number, name }) => {
                let row = self.rows.get_mut(&number).expect("a task is of a row");
                row.whole.insert(name, timing);
                commands.push(Command::Save(row.clone()));
            }
            Some(Task::Train(_)) | None => {}
        }
    }

    fn infeasible(&mut self, refusal: wire::Refusal, commands: &mut Vec<Command>) {
        match self.tasks.remove(&refusal.id) {
            // A training that was told to stop goes on another day.
            Some(Task::Train(_)) if self.ending == Some(Finish::Stopped) => {}
            Some(Task::Train(extra)) if self.is_extra(extra) => {
                self.failed_extras.insert(extra, self.settings.attempts);
            }
            Some(Task::Train(Training { number, .. })) => {
                let state = CandidateState::Infeasible { reason: refusal.reason };
                self.save(number, state, commands);
            }
            Some(Task::Part(key)) => {
                let reason = format!("{}: {}", key.part, refusal.reason);
                self.hopeless.insert(key, CandidateState::Infeasible { reason });
            }
            Some(Task::Whole { number, name }) => {
                self.failed_wholes.insert((number, name), self.settings.attempts);
            }
            None => {}
        }
    }

    fn failed(&mut self, id: u64, reason: String, log: String, commands: &mut Vec<Command>) {
        let attempts = self.settings.attempts;
        match self.tasks.remove(&id) {
            // The same signal that stops the campaign may end its workers.
            Some(_) if self.ending == Some(Finish::Stopped) => {}
            Some(Task::Train(extra)) if self.is_extra(extra) => {
                *self.failed_extras.entry(extra).or_default() += 1;
            }
            Some(Task::Train(Training { number, .. })) => {
                let row = self.rows.get_mut(&number).expect("a task is of a row");
                row.failed_attempts += 1;
                back_to_rung(row);
                if row.failed_attempts < attempts {
                    commands.push(Command::Save(row.clone()));
                } else {
                    self.fail(number, reason, log, commands);
                }
            }
            Some(Task::Part(key)) => {
                let tries = self.failed_parts.entry(key.clone()).or_default();
                *tries += 1;
                if *tries >= attempts {
                    let reason = format!("timing of {} failed: {reason}", key.part);
                    self.hopeless.insert(key, CandidateState::Failed { reason, log });
                }
            }
            Some(Task::Whole { number, name }) => {
                *self.failed_wholes.entry((number, name)).or_default() += 1;
            }
            None => {}
        }
    }

    fn stop(&mut self, commands: &mut Vec<Command>) {
        if self.ending == Some(Finish::Stopped) {
            self.finish(Finish::Stopped, commands);
            return;
        }
        self.ending = Some(Finish::Stopped);
        for (&id, task) in &self.tasks {
            if matches!(task, Task::Train(_)) {
                commands.push(Command::Send(Request::Stop { id }));
            }
        }
    }

    fn fail(&mut self, number: u32, reason: String, log: String, commands: &mut Vec<Command>) {
        self.failures_in_a_row += 1;
        if self.failures_in_a_row >= self.settings.give_up_after && self.ending.is_none() {
            self.ending = Some(Finish::GaveUp { reason: reason.clone() });
        }
        self.save(number, CandidateState::Failed { reason, log }, commands);
    }

    fn save(&mut self, number: u32, state: CandidateState, commands: &mut Vec<Command>) {
        let row = self.rows.get_mut(&number).expect("only rows change their state");
        row.state = state;
        let is_lost =
            matches!(row.state, CandidateState::Failed { .. } | CandidateState::Infeasible { .. });
        let checkpoint = if is_lost { row.checkpoint.take() } else { None };
        commands.push(Command::Save(row.clone()));
        commands.extend(checkpoint.map(Command::RemoveCheckpoint));
    }

    /// Whether a training is beside those that its candidate is judged by.
    fn is_extra(&self, training: Training) -> bool {
        self.rows[&training.number].state != CandidateState::Training
    }

    // What follows from the state alone.

    fn advance(&mut self, commands: &mut Vec<Command>) {
        // An exhausted space ends the proposals only; what was proposed still runs.
        if matches!(self.ending, None | Some(Finish::Exhausted { .. })) {
            self.settle(commands);
            while self.ending.is_none() && (self.promote(commands) || self.propose(commands)) {
                self.settle(commands);
            }
            // No further candidate comes; what was proposed climbs on.
            while self.ending.is_some() && self.promote(commands) {}
        }
        if matches!(self.ending, None | Some(Finish::Exhausted { .. })) {
            self.send(commands);
        }
        if !self.tasks.is_empty() {
            return;
        }
        match self.ending.clone() {
            Some(Finish::Exhausted { .. }) if self.is_at_work() => {}
            Some(finish) => self.finish(finish, commands),
            None if self.spent() >= self.settings.evaluations as usize && !self.is_at_work() => {
                self.finish(Finish::Complete, commands);
            }
            None => {}
        }
    }

    /// Whether a candidate waits for something, or a whole model for its timing.
    fn is_at_work(&self) -> bool {
        self.rows.values().any(|row| !row.state.is_final())
            || self.wanted_extra().is_some()
            || !self.wanted_wholes().is_empty()
    }

    fn finish(&mut self, finish: Finish, commands: &mut Vec<Command>) {
        self.finished = true;
        self.tasks.clear();
        if matches!(finish, Finish::Complete | Finish::Exhausted { .. }) {
            // Who was left at a rung when all was over would begin anew if there were more evaluations one day.
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
        commands.push(Command::Finish(finish));
    }

    /// Moves on each proposed candidate whose latency is known, or known to be unknowable.
    fn settle(&mut self, commands: &mut Vec<Command>) {
        let waiting: Vec<u32> = self
            .rows
            .values()
            .filter(|row| row.state == CandidateState::Proposed)
            .map(|row| row.number)
            .collect();
        for number in waiting {
            match self.verdict(number) {
                Some(CandidateState::Failed { reason, log }) => {
                    self.fail(number, reason, log, commands);
                }
                Some(state) => self.save(number, state, commands),
                None => {}
            }
        }
    }

    /// What is known of a subject before anything is measured.
    fn costs(&self, subject: &Subject) -> BTreeMap<String, Value> {
        let Some(architecture) = subject.stack() else { return BTreeMap::new() };
        let conditions = self.settings.latencies.iter().map(|(_, conditions)| conditions);
        crate::cost::values(architecture, conditions)
            .into_iter()
            .map(|(name, mean)| (name, Value { mean, standard_error: None }))
            .collect()
    }

    /// The state after `Proposed`, none while timings are missing. Adds the latencies to the candidate's values.
    fn verdict(&mut self, number: u32) -> Option<CandidateState> {
        let row = self.rows.get_mut(&number).expect("the number of a row");
        // Costs that need no timing come first: they may spare it.
        if let Some(reason) = over_limit(&self.settings.limits, &row.values) {
            return Some(CandidateState::Infeasible { reason });
        }
        let Some(architecture) = row.subject.stack() else { return Some(CandidateState::Training) };
        let many =
            self.settings.throughput.as_ref().map(|throughput| throughput.under(architecture));
        let many = match many.transpose() {
            Ok(conditions) => conditions,
            Err(reason) => return Some(CandidateState::Infeasible { reason }),
        };
        // In their order: what is over a limit in the first is not timed for the second, and what a row says does not
        // depend on which timing came in first.
        let latencies = self.settings.latencies.iter().map(|(name, of)| (Some(name), of));
        for (name, conditions) in latencies.chain(many.iter().map(|of| (None, of))) {
            let missing = self.table.missing(architecture, conditions);
            if let Some(state) = missing.iter().find_map(|key| self.hopeless.get(key)) {
                return Some(state.clone());
            }
            let value = self.table.compose(architecture, conditions)?;
            match name {
                Some(name) => row.values.extend([(name.clone(), value)]),
                None => row.values.extend(Throughput::values(conditions.batch, value)),
            }
            if let Some(reason) = over_limit(&self.settings.limits, &row.values) {
                return Some(CandidateState::Infeasible { reason });
            }
        }
        Some(CandidateState::Training)
    }

    /// Whether proposals are over: all evaluations are spent, or there is nothing left to propose.
    fn is_proposed_out(&self) -> bool {
        self.spent() >= self.settings.evaluations as usize || self.ending.is_some()
    }

    /// Candidates that are drawn before the algorithm begins.
    fn start_size(&self) -> usize {
        (self.proposer.start as usize).max(self.proposer.references.len())
    }

    /// Trains the best of a rung on, if there is room for one; false when there was none. A start is evaluated as a whole
    /// first.
    fn promote(&mut self, commands: &mut Vec<Command>) -> bool {
        let states = || self.rows.values().map(|row| &row.state);
        let is_last = self.is_proposed_out();
        if self.rungs.len() < 2
            || states().any(|state| *state == CandidateState::Proposed)
            || !is_last && self.spent() < self.start_size()
        {
            return false;
        }
        let training = states().filter(|state| **state == CandidateState::Training).count();
        if training >= self.trainers as usize {
            return false;
        }
        // Shares are rounded up when all are there to be shared: no candidate is on its way to its first rung.
        let climbs = |row: &Candidate| row.state == CandidateState::Training && row.fidelity == 0;
        let is_last = is_last && !self.rows.values().any(climbs);
        let Some(number) = self.ladder().promotion(&self.rows.values(), is_last) else {
            return false;
        };
        let row = self.rows.get_mut(&number).expect("the number of a row");
        row.failed_attempts = 0;
        self.save(number, CandidateState::Training, commands);
        true
    }

    /// Proposes as many candidates as there is room for; false when there was none.
    ///
    /// The start does not depend on outcomes, so it is proposed as a whole and its parts are timed before anything
    /// trains. A later batch waits until the one before is within its limits: what is proposed is then the same
    /// however fast timings come in.
    fn propose(&mut self, commands: &mut Vec<Command>) -> bool {
        if self.trainers == 0 || self.rows.values().any(|row| row.state == CandidateState::Proposed)
        {
            return false;
        }
        let spent = self.spent();
        let start = self.start_size();
        let training =
            self.rows.values().filter(|row| row.state == CandidateState::Training).count();
        let room = if spent < start {
            start - spent
        } else {
            (self.trainers as usize).saturating_sub(training)
        };
        let room = room.min((self.settings.evaluations as usize).saturating_sub(spent));
        if room == 0 {
            return false;
        }
        let in_a_row = self
            .rows
            .values()
            .rev()
            .filter(|row| row.state.is_final()) // with several trainers something is always pending
            .take_while(|row| matches!(row.state, CandidateState::Infeasible { .. }))
            .count();
        if in_a_row >= INFEASIBLE_IN_A_ROW {
            self.ending = Some(Finish::Exhausted {
                reason: format!(
                    "the last {in_a_row} proposals were outside the limits: widen these, or the space"
                ),
            });
            return false;
        }
        let extrapolation = Extrapolation::new(&self.ladder(), &self.rows.values());
        let mut trials: Vec<Trial<D::Point>> =
            self.rows.values().filter_map(|row| self.trial(row, &extrapolation)).collect();
        for _ in 0..room {
            let number = self.rows.last_key_value().map_or(1, |(number, _)| number + 1);
            let proposal = match self.proposer.propose(&self.domain, number, &trials) {
                Ok(proposal) => proposal,
                Err(exhausted) => {
                    self.ending = Some(Finish::Exhausted { reason: exhausted.to_string() });
                    break;
                }
            };
            let reference = match &proposal.origin {
                crate::proposals::Origin::Reference(name) => Some(name.clone()),
                _ => None,
            };
            let subject = self.domain.subject(&proposal.point);
            let row = Candidate {
                number,
                values: self.costs(&subject),
                subject,
                reference,
                origin: proposal.origin.to_string(),
                state: CandidateState::Proposed,
                failed_attempts: 0,
                fidelity: 0,
                trained: Vec::new(),
                whole: BTreeMap::new(),
                curve: Vec::new(),
                retrieval: Vec::new(),
                seed: self.settings.seed,
                tokens: 0,
                train_seconds: 0.0,
                checkpoint: None,
            };
            self.points.insert(number, proposal.point);
            trials.extend(self.trial(&row, &extrapolation));
            commands.push(Command::Save(row.clone()));
            self.rows.insert(number, row);
        }
        true
    }

    /// What a candidate teaches. One that has climbed less than others is known as far as its rung tells.
    fn trial(&self, row: &Candidate, extrapolation: &Extrapolation) -> Option<Trial<D::Point>> {
        let outcome = match row.state {
            CandidateState::Infeasible { .. } => Outcome::Infeasible,
            CandidateState::Failed { .. } => Outcome::Failed,
            CandidateState::Proposed | CandidateState::Training if row.fidelity == 0 => {
                Outcome::Pending
            }
            CandidateState::Proposed | CandidateState::Training | CandidateState::Done => {
                match self.objectives(row) {
                    None => Outcome::Failed,
                    Some(objectives) if row.fidelity >= extrapolation.top() => {
                        Outcome::Known(objectives)
                    }
                    Some(objectives) => {
                        let (objectives, deviations) = extrapolation.of(&objectives, row.fidelity);
                        Outcome::Estimated { objectives, deviations }
                    }
                }
            }
        };
        let point = self.points.get(&row.number)?.clone();
        Some(Trial { number: row.number, point, outcome })
    }

    /// Gives idle workers what is wanted: timings of parts first, then trainings, whole models when all else is done.
    fn send(&mut self, commands: &mut Vec<Command>) {
        let parts = self.wanted_parts();
        let is_training = self.tasks.values().any(|task| matches!(task, Task::Train(_)));
        let may_time = !(self.settings.quiet_timing && is_training);
        if may_time {
            for key in &parts {
                if self.idle_profilers() == 0 {
                    break;
                }
                let id = self.begin(Task::Part(key.clone()));
                let request = wire::Measure::of(id, key.clone());
                commands.push(Command::Send(Request::Measure(request)));
            }
        }
        let is_timing = self.tasks.values().any(|task| !matches!(task, Task::Train(_)));
        if !(self.settings.quiet_timing && (is_timing || !parts.is_empty())) {
            self.send_trainings(commands);
            self.send_extras(commands);
        }
        let is_training = self.tasks.values().any(|task| matches!(task, Task::Train(_)));
        if self.is_judged() && !is_training && self.wanted_extra().is_none() {
            for (number, name, conditions) in self.wanted_wholes() {
                if self.idle_profilers() == 0 {
                    break;
                }
                let Some(architecture) = self.rows[&number].subject.stack().cloned() else {
                    continue;
                };
                let id = self.begin(Task::Whole { number, name });
                let request = wire::MeasureWhole { id, architecture, conditions };
                commands.push(Command::Send(Request::MeasureWhole(request)));
            }
        }
    }

    /// Whether every candidate is where it stays, and none will follow.
    fn is_judged(&self) -> bool {
        self.rows.values().all(|row| row.state.is_final()) && self.is_proposed_out()
    }

    fn trainings(&self) -> impl Iterator<Item = Training> {
        self.tasks.values().filter_map(|task| {
            if let Task::Train(training) = task { Some(*training) } else { None }
        })
    }

    fn send_trainings(&mut self, commands: &mut Vec<Command>) {
        let running: HashSet<u32> = self.trainings().map(|training| training.number).collect();
        let idle = (self.trainers as usize).saturating_sub(self.trainings().count());
        let ladder = self.ladder();
        let next: Vec<Training> = self
            .rows
            .values()
            .filter(|row| row.state == CandidateState::Training && !running.contains(&row.number))
            .filter_map(|row| {
                let tokens = ladder.next(row)?;
                Some(Training { number: row.number, tokens, seed: row.seed })
            })
            .take(idle)
            .collect();
        for training in next {
            self.train(training, commands);
        }
    }

    /// Trainings that measure how far the results are to be trusted, when all candidates are judged.
    fn send_extras(&mut self, commands: &mut Vec<Command>) {
        while self.is_judged() && self.trainings().count() < self.trainers as usize {
            let Some(training) = self.wanted_extra() else { return };
            self.train(training, commands);
        }
    }

    fn train(&mut self, training: Training, commands: &mut Vec<Command>) {
        let id = self.begin(Task::Train(training));
        let row = &self.rows[&training.number];
        let extra = self.is_extra(training);
        let failed = match self.failed_extras.get(&training) {
            Some(&failed) if extra => failed,
            _ if extra => 0,
            _ => row.failed_attempts,
        };
        // A checkpoint may be what a training failed at: the next attempt begins from nothing.
        let resume_from = if extra || failed > 0 { None } else { row.checkpoint.clone() };
        let attempt = failed + 1;
        commands.push(Command::Send(match &row.subject {
            Subject::Stack(architecture) => Request::Evaluate(wire::Evaluate {
                id,
                attempt,
                architecture: architecture.clone(),
                tokens: training.tokens,
                seed: training.seed,
                resume_from,
            }),
            Subject::Point(parameters) => Request::Eval(wire::Eval {
                id,
                attempt,
                parameters: parameters.clone(),
                seed: training.seed,
            }),
        }));
    }

    /// The next training beside those that candidates are judged by; none when there is none, or when what is wanted
    /// depends on those under way.
    fn wanted_extra(&self) -> Option<Training> {
        let running: Vec<Training> = self.trainings().collect();
        let is_given_up = |training: &Training| {
            self.failed_extras.get(training).is_some_and(|&tries| tries >= self.settings.attempts)
        };
        trust::next(&self.settings, &self.rows, &running, is_given_up)
    }

    fn begin(&mut self, task: Task) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        self.tasks.insert(id, task);
        id
    }

    fn idle_profilers(&self) -> usize {
        let busy = self.tasks.values().filter(|task| !matches!(task, Task::Train(_))).count();
        (self.profilers as usize).saturating_sub(busy)
    }

    /// Parts that proposed candidates wait for and that are not on their way, in the order of the candidates.
    fn wanted_parts(&self) -> Vec<LatencyKey> {
        let under_way: HashSet<&LatencyKey> = self
            .tasks
            .values()
            .filter_map(|task| if let Task::Part(key) = task { Some(key) } else { None })
            .collect();
        let mut listed: HashSet<LatencyKey> = HashSet::new();
        let mut wanted = Vec::new();
        for row in self.rows.values().filter(|row| row.state == CandidateState::Proposed) {
            let Some(architecture) = row.subject.stack() else { continue };
            let throughput =
                self.settings.throughput.as_ref().and_then(|of| of.under(architecture).ok());
            let conditions = self.settings.latencies.iter().map(|(_, conditions)| conditions);
            let first = conditions
                .chain(&throughput)
                .map(|conditions| self.table.missing(architecture, conditions))
                .find(|keys| !keys.is_empty());
            for key in first.unwrap_or_default() {
                if !under_way.contains(&key) && listed.insert(key.clone()) {
                    wanted.push(key);
                }
            }
        }
        wanted
    }

    /// Whole models to time that are not on their way: of the front and of the references.
    fn wanted_wholes(&self) -> Vec<(u32, String, Conditions)> {
        if !self.settings.time_whole_models {
            return Vec::new();
        }
        let front = self.front();
        let mut wanted = Vec::new();
        for row in self.rows.values().filter(|row| row.state == CandidateState::Done) {
            let is_wanted = front.contains(&row.number) || row.reference.is_some();
            if !is_wanted || row.subject.stack().is_none() {
                continue;
            }
            for (name, conditions) in &self.settings.latencies {
                let tries =
                    self.failed_wholes.get(&(row.number, name.clone())).copied().unwrap_or(0);
                let task = Task::Whole { number: row.number, name: name.clone() };
                if !row.whole.contains_key(name)
                    && tries < self.settings.attempts
                    && !self.tasks.values().any(|t| *t == task)
                {
                    wanted.push((row.number, name.clone(), conditions.clone()));
                }
            }
        }
        wanted
    }
}

/// A training that did not come to its end leaves what the rung before it left.
fn back_to_rung(row: &mut Candidate) {
    let fidelity = row.fidelity;
    row.tokens = fidelity;
    row.curve.retain(|(tokens, _)| *tokens <= fidelity);
}

/// The sentence about the first value that is over its limit.
fn over_limit(limits: &BTreeMap<String, f64>, values: &BTreeMap<String, Value>) -> Option<String> {
    limits.iter().find_map(|(name, &limit)| {
        let value = objective::read(values, name)?.mean;
        (value > limit).then(|| match name.strip_prefix('-') {
            None => format!("{name} {} is over the limit of {}", short(value), short(limit)),
            Some(name) => {
                format!("{name} {} is under the limit of {}", short(-value), short(-limit))
            }
        })
    })
}

/// A number for people: no decimals where they say nothing.
fn short(value: f64) -> String {
    if value.abs() >= 1000.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

fn check_timing(timing: &Timing) -> Result<(), String> {
    let Timing { median_us, spread_us, other_load, millijoules, .. } = timing;
    let all = [*median_us, *spread_us, *other_load, millijoules.unwrap_or(0.0)];
    if all.into_iter().all(f64::is_finite) && *median_us >= 0.0 {
        Ok(())
    } else {
        Err(format!(
            "a timing must be finite and not negative, got median_us {median_us}, spread_us {spread_us}"
        ))
    }
}
