//! The driver of a simulated campaign: what is on its way between it and its workers.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use rand::RngExt;
use search::campaign::{Campaign, CandidateState, Command, Event, Finish};
use search::latency::Part;
use search::proposals::SearchRng;
use search::wire::{Evaluate, Evaluation, MeasureWhole, Refusal, Request};

use super::store::Store;
use super::workers::{corrupted, id_of, timed, trained};
use super::world::{FULL, LIMITS, LONGER, World, settings};
use crate::stacks::{self, Stacks, chance};

/// What is on its way between the driver and its workers.
pub(super) struct Driver<'a> {
    pub(super) world: &'a World,
    pub(super) rng: SearchRng,
    pub(super) store: Store,
    pub(super) campaign: Campaign<Stacks>,
    /// Answers on their way, each after a number of further steps.
    pub(super) answers: Vec<(u32, Event)>,
    pub(super) training: HashSet<u64>,
    /// Timings with their devices.
    pub(super) timing: HashMap<u64, String>,
    /// Trainings that workers are at, whoever asked them.
    pub(super) at_work: HashMap<u64, Evaluate>,
    /// Trainers that are there.
    pub(super) workers: u32,
    pub(super) losses: u32,
    pub(super) handed_back: u32,
    pub(super) adopted: u32,
    pub(super) late: u32,
    /// Those that a trainer has written.
    pub(super) checkpoints: HashSet<PathBuf>,
    /// Tokens of all trainings that were begun.
    pub(super) tokens_begun: u64,
    pub(super) finish: Option<Finish>,
    pub(super) kills: u32,
    pub(super) stops: u32,
    /// Requests that were sent while something trained and something was timed where that may be.
    pub(super) beside: u32,
}

impl Driver<'_> {
    /// Executes commands: what is to be kept is written as a whole, a kill may fall before it, and behind each of the others.
    fn execute(&mut self, commands: Vec<Command>) {
        let is_row = |command: &Command| {
            matches!(command, Command::Save(_) | Command::SaveProgress(_) | Command::SaveLatency(_))
        };
        let (rows, rest): (Vec<Command>, Vec<Command>) = commands.into_iter().partition(is_row);
        if !rows.is_empty() && self.is_killed() {
            return;
        }
        for command in rows {
            match command {
                Command::Save(row) => self.store.save(row),
                Command::SaveLatency(entry) => {
                    assert!(
                        self.store.latencies.iter().all(|e| e.key != entry.key),
                        "{} was timed twice",
                        entry.key
                    );
                    self.store.latencies.push(entry);
                }
                _ => {}
            }
        }
        for command in rest {
            if self.is_killed() {
                return;
            }
            match command {
                Command::Save(_) | Command::SaveProgress(_) | Command::SaveLatency(_) => {}
                Command::RemoveCheckpoint(path) => {
                    assert!(
                        self.store.rows.values().all(|row| row.checkpoint.as_ref() != Some(&path)),
                        "a row still goes on from {}",
                        path.display()
                    );
                    assert!(self.checkpoints.remove(&path), "{} was not there", path.display());
                }
                Command::RemoveTrunk(path) => {
                    assert!(self.checkpoints.contains(&path), "{} is not there", path.display());
                    let mut rows = self.store.rows.values();
                    let row = rows.find(|row| row.checkpoint.as_ref() == Some(&path));
                    assert_eq!(row.map(|row| row.fidelity), Some(FULL), "one may go on from it");
                }
                Command::Send(request) => self.send(request),
                Command::Finish(finish) => self.finish = Some(finish),
            }
        }
    }

    /// Whether the driver is killed in this moment; another has taken its place then.
    fn is_killed(&mut self) -> bool {
        let is_killed = self.finish.is_none() && self.rng.random_bool(self.world.kills);
        if is_killed {
            self.kills += 1;
            self.restart();
        }
        is_killed
    }

    /// Executes what is said before there are workers; no kill falls between.
    fn execute_all(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Save(row) => self.store.save(row),
                Command::RemoveTrunk(_) => {}
                Command::RemoveCheckpoint(path) => assert!(self.checkpoints.remove(&path)),
                // Nothing was left to do when the one before was killed.
                Command::Finish(finish) => self.finish = Some(finish),
                other => panic!("before there are workers it says {other:?}"),
            }
        }
    }

    /// A worker's lease runs out; or one comes again.
    fn lose_or_join(&mut self) {
        let mut training: Vec<u64> = self.training.iter().copied().collect();
        training.sort_unstable();
        if !training.is_empty() && self.rng.random_bool(self.world.losses) {
            let id = training[self.rng.random_range(0..training.len())];
            self.training.remove(&id);
            self.losses += 1;
            self.workers -= 1;
            let kills = self.kills;
            let commands = self.campaign.handle(self.world.workers(self.workers));
            self.execute(commands);
            if self.kills != kills {
                // Nobody remembers that it was lost.
                return;
            }
            // Who is told in time gives back what it is at, and answers no more.
            let leaves = self.rng.random_bool(0.3);
            if leaves {
                self.handed_back += 1;
                self.at_work.remove(&id);
                self.answers.retain(|(_, event)| id_of(event) != Some(id));
            }
            let event = if leaves { Event::HandedBack { id } } else { Event::Lost { id } };
            let commands = self.campaign.handle(event);
            assert!(!self.campaign.waits_for(id), "it is waited for though it is lost");
            self.execute(commands);
        } else if self.workers < self.world.trainers
            && (self.answers.is_empty() || self.rng.random_bool(0.3))
        {
            self.workers += 1;
            let commands = self.campaign.handle(self.world.workers(self.workers));
            self.execute(commands);
        }
    }

    pub(super) fn restart(&mut self) {
        // Its own children end with a driver; pull workers stay at what they are at.
        let is_of_children = |event: &Event, at_work: &HashMap<u64, Evaluate>| {
            id_of(event).is_none_or(|id| !at_work.contains_key(&id))
        };
        if self.world.losses == 0.0 {
            self.at_work.clear();
        }
        let at_work = &self.at_work;
        self.answers.retain(|(_, event)| !is_of_children(event, at_work));
        self.training.clear();
        self.timing.clear();
        self.campaign =
            self.store.campaign(self.world).numbering_from((u64::from(self.kills) + 1) << 32);
        self.workers = self.world.trainers;
        // Some come back before anything is given out, the others too late.
        let mut held: Vec<Evaluate> = self.at_work.values().cloned().collect();
        held.sort_unstable_by_key(|evaluate| evaluate.id);
        for evaluate in held {
            let has_room = self.training.len() < self.workers as usize;
            if !has_room || self.rng.random_bool(0.5) {
                continue;
            }
            let id = evaluate.id;
            let commands = self.campaign.handle(Event::Adopted(evaluate));
            if self.campaign.waits_for(id) {
                assert!(self.training.insert(id));
                self.adopted += 1;
            }
            self.execute_all(commands);
        }
        let commands = self.campaign.handle(self.world.workers(self.workers));
        self.execute(commands);
    }

    fn send(&mut self, request: Request) {
        match request {
            Request::Evaluate(evaluate) => {
                assert!(self.training.insert(evaluate.id));
                assert!(self.training.len() <= self.workers as usize);
                self.at_work.insert(evaluate.id, evaluate.clone());
                self.check_may_train(&evaluate);
                let from = evaluate.resume_from.as_ref().map_or(0, |path| {
                    assert!(self.checkpoints.contains(path), "{} is gone", path.display());
                    self.store
                        .rows
                        .values()
                        .find(|r| r.checkpoint.as_ref() == Some(path))
                        .map_or(0, |r| r.fidelity)
                });
                self.tokens_begun += evaluate.tokens - from;
                let answer = trained(&evaluate, self.world.trouble);
                self.answer(answer);
            }
            Request::Measure(measure) => {
                self.begin_timing(measure.id, &measure.conditions.device);
                assert!(self.store.latencies.iter().all(|e| e.key != measure.clone().key()));
                let name = format!("{} {}", measure.part, measure.conditions);
                // Every stack has the head: a campaign without it has nothing.
                let is_head = matches!(measure.part, Part::Head { .. });
                let trouble = if is_head { 0.0 } else { self.world.trouble };
                let answer = timed(measure.id, &name, 100.0, trouble);
                self.answer(answer);
            }
            Request::MeasureWhole(whole) => {
                self.begin_timing(whole.id, &whole.conditions.device);
                let name = format!("{} {}", whole.architecture, whole.conditions);
                let mut answer = timed(whole.id, &name, 330.0, 0.0);
                if let Event::Timing(of) = &mut answer
                    && self.is_timed_whole(&whole)
                {
                    // The machine is another minutes later.
                    let drift = chance(&format!("{name} once more")) - 0.5;
                    of.timing.median_us *= 1.0 + self.world.drift * drift;
                }
                self.answer(answer);
            }
            Request::Stop { id } => {
                for (_, event) in &mut self.answers {
                    if id_of(event) == Some(id) {
                        *event = Event::Infeasible(Refusal::new(id, "stopped"));
                    }
                }
            }
            Request::Configure(_) | Request::Check(_) => {
                panic!("the driver configures and asks workers, not the campaign")
            }
            Request::MeasureLimit(_) => {
                panic!("`deltafront profile` asks for limits, not a campaign")
            }
            Request::Space { .. } | Request::Eval(_) => panic!("a campaign of stacks"),
        }
        if self.world.quiet_timing {
            let is_timed = self.timing.values().any(|device| device == stacks::DEVICE);
            assert!(self.training.is_empty() || !is_timed, "timed while training");
            self.beside += u32::from(!self.training.is_empty() && !self.timing.is_empty());
        }
    }

    fn begin_timing(&mut self, id: u64, device: &str) {
        assert!(self.timing.insert(id, device.to_owned()).is_none());
        let at_once = self.timing.values().filter(|of| *of == device).count();
        assert!(at_once <= self.world.profilers as usize);
        let is_alone = self.timing.len() == at_once;
        assert!(is_alone || !self.world.takes_turns(), "one device of a machine at a time");
    }

    /// Whether this model has been timed before, as stored.
    fn is_timed_whole(&self, asked: &MeasureWhole) -> bool {
        let latencies = settings(self.world).latencies;
        let (name, _) =
            latencies.iter().find(|(_, of)| *of == asked.conditions).expect("it is a latency");
        let mut rows = self.store.rows.values();
        let row = rows.find(|row| row.subject.stack() == Some(&asked.architecture));
        let row = row.expect("saved before it was sent");
        assert!(!row.earlier.contains_key(name), "{} is timed a third time", row.subject);
        row.whole.contains_key(name)
    }

    /// The row as stored says that this may be trained.
    fn check_may_train(&self, evaluate: &Evaluate) {
        let row = self
            .store
            .rows
            .values()
            .find(|row| row.subject.stack() == Some(&evaluate.architecture))
            .expect("saved before it was sent");
        let settings = settings(self.world);
        if row.state == CandidateState::Training {
            let ladder = settings.rungs.iter().copied().chain([FULL]);
            assert_eq!(Some(evaluate.tokens), ladder.into_iter().find(|t| *t > row.fidelity));
            assert_eq!(evaluate.attempt, row.failed_attempts + 1);
            assert_eq!(evaluate.seed, row.seed);
            let goes_on = evaluate.attempt == 1 && row.fidelity > 0;
            assert_eq!(evaluate.resume_from.is_some(), goes_on, "a promoted training goes on");
        } else {
            // An extra one: another seed, or for longer.
            assert_eq!((&row.state, row.fidelity), (&CandidateState::Done, FULL));
            assert!((evaluate.tokens == FULL) == (evaluate.seed != row.seed));
            assert!(evaluate.tokens == FULL || evaluate.tokens == LONGER);
            assert_eq!(evaluate.resume_from, None);
            let others = self.store.rows.values();
            let mut climbing = others.filter(|r| r.state == CandidateState::Training);
            assert_eq!(climbing.next(), None, "extra trainings come last");
        }
        for (name, limit) in LIMITS {
            // What is known of sums may change while it trains: far, where times are corrupted.
            let is_within = row.values[&name.into()].mean <= limit;
            assert!(is_within || self.world.corrupt > 0.0, "trained over {name}");
        }
    }

    fn answer(&mut self, event: Event) {
        let delay = self.rng.random_range(0..self.world.delay);
        if self.world.corrupt > 0.0 && self.rng.random_bool(self.world.corrupt) {
            let come = corrupted(event, &mut self.rng);
            return self.answers.extend(come.into_iter().map(|event| (delay, event)));
        }
        if self.rng.random_bool(self.world.repeats) {
            let later = delay + self.rng.random_range(0..self.world.delay);
            self.answers.push((later, event.clone()));
        }
        self.answers.push((delay, event));
    }

    /// Delivers one of the answers that are due.
    pub(super) fn step(&mut self) {
        if self.world.losses > 0.0 {
            self.lose_or_join();
            if self.finish.is_some() || self.answers.is_empty() {
                return;
            }
        }
        if self.world.stops > 0.0 && self.rng.random_bool(self.world.stops) {
            self.stops += 1;
            let event = if self.rng.random_bool(0.7) {
                Event::StopRequested
            } else {
                Event::Obstacle { reason: "no room".to_owned() }
            };
            let commands = self.campaign.handle(event);
            self.execute(commands);
            if self.finish.is_some() {
                return;
            }
        }
        for (delay, _) in &mut self.answers {
            *delay = delay.saturating_sub(1);
        }
        let due: Vec<usize> = (0..self.answers.len()).filter(|&i| self.answers[i].0 == 0).collect();
        if due.is_empty() {
            assert!(!self.answers.is_empty(), "the campaign waits for nothing");
            return;
        }
        let (_, event) = self.answers.swap_remove(due[self.rng.random_range(0..due.len())]);
        if let Some(id) = id_of(&event) {
            let is_late = self.at_work.remove(&id).is_some() && !self.campaign.waits_for(id);
            self.late += u32::from(is_late);
            self.training.remove(&id);
            self.timing.remove(&id);
        }
        if let Event::Result(Evaluation { checkpoint: Some(path), .. }) = &event {
            // A worker writes it before it answers; a late answer to a dead driver leaves one that nobody knows.
            self.checkpoints.insert(path.clone());
        }
        let commands = self.campaign.handle(event);
        self.execute(commands);
    }
}
