//! Campaigns in a simulated world: workers answer late, in any order, twice, wrongly or not at all, and the driver is
//! killed between any two commands and goes on from the store. What must hold in every world is asserted on the way
//! and at the end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use rand::{RngExt, SeedableRng};
use search::campaign::front::Contenders;
use search::campaign::trust::{Doubt, Plan, doubts};
use search::campaign::{
    Campaign, Candidate, CandidateState, Command, Event, Finish, History, Settings,
};
use search::latency::{LatencyEntry, Part, Timing, WholeModels};
use search::proposals::{Algorithm, Proposer, SearchRng};
use search::wire::{Evaluate, Evaluation, Measured, Refusal, Request, Value};

use crate::stacks::{self, Stacks, at_most, chance, uniform};

/// What a world does to its campaign.
#[derive(Debug, Clone, Copy)]
struct World {
    /// Of delays, repeats and kills.
    scheduler_seed: u64,
    trainers: u32,
    /// Chance of a kill after each executed command.
    kills: f64,
    /// Chance that an answer comes a second time.
    repeats: f64,
    /// Share of trainings and parts that fail, in one way or another.
    trouble: f64,
    quiet_timing: bool,
    /// Chance at each step that a worker's lease runs out, whose answer comes all the same; workers come again. When the
    /// driver is killed they stay at what they are at.
    losses: f64,
    /// Whether candidates are trained in rungs, and some of them again afterwards.
    rungs: bool,
}

const CALM: World = World {
    scheduler_seed: 0,
    trainers: 1,
    kills: 0.0,
    repeats: 0.0,
    trouble: 0.0,
    quiet_timing: true,
    losses: 0.0,
    rungs: false,
};

const FULL: u64 = 1000;
const RUNGS: [u64; 2] = [100, 300];
const LONGER: u64 = 4000;
const REPEATS: usize = 5;

fn settings(world: &World) -> Settings {
    Settings {
        seed: 5,
        evaluations: 30,
        tokens: FULL,
        target_tokens: FULL,
        rungs: if world.rungs { RUNGS.to_vec() } else { Vec::new() },
        trust: if world.rungs {
            Plan { repeats: REPEATS as u32, longer: 4, longer_tokens: LONGER, seeds: 1 }
        } else {
            Plan::default()
        },
        limits: at_most(&LIMITS),
        give_up_after: 1000,
        quiet_timing: world.quiet_timing,
        time_whole_models: WholeModels::Front,
        ..stacks::settings()
    }
}

const BUDGET_US: f64 = 300.0;
const LIMITS: [(&str, f64); 2] = [("decode_us", BUDGET_US), ("parameters", 100_000.0)];

fn proposer() -> Proposer<search::Architecture> {
    let reference = |name: &str, index| (name.to_owned(), uniform(index, 2));
    let references = vec![reference("delta", 0), reference("attention", 3)];
    Proposer::new(Algorithm::Evolution, 5, 8, references)
}

/// What survives a kill.
#[derive(Debug, Clone, Default, PartialEq)]
struct Store {
    rows: BTreeMap<u32, Candidate>,
    latencies: Vec<LatencyEntry>,
}

impl Store {
    fn history(&self) -> History {
        History {
            candidates: self.rows.values().cloned().collect(),
            latencies: self.latencies.clone(),
        }
    }

    fn campaign(&self, world: &World) -> Campaign<Stacks> {
        Campaign::new(settings(world), Stacks { depth: 4 }, proposer(), self.history())
    }

    /// Writes a row, which must not undo what was final.
    fn save(&mut self, row: Candidate) {
        if let Some(old) = self.rows.get(&row.number) {
            assert_eq!(old.subject, row.subject, "a number keeps its subject");
            assert!(old.fidelity <= row.fidelity, "nobody falls from a rung");
            for trained in &old.trained {
                assert!(row.trained.contains(trained), "what was trained stays");
            }
            let is_promoted = old.state == CandidateState::Done
                && row.state == CandidateState::Training
                && old.fidelity < FULL;
            // A row that a campaign was halted or given up over is tried again.
            let is_reopened = old.given_up && !row.given_up;
            // What its whole model took may be over a limit that the sum of its parts was within.
            let is_timed = old.whole.len() < row.whole.len();
            if old.state.is_final() && !is_promoted && !is_reopened {
                if !is_timed {
                    assert_eq!(old.state, row.state, "what is final stays");
                }
                if old.trained == row.trained {
                    let trained = |row: &Candidate| {
                        let mut values = row.values.clone();
                        values.retain(|name, _| {
                            !["decode_us", "prefill_us"].contains(&name.as_str())
                        });
                        values
                    };
                    assert_eq!(trained(old), trained(&row), "what is final stays");
                }
            }
            for (name, timing) in &row.whole {
                let is_out = matches!(row.state, CandidateState::Infeasible { .. });
                let is_open = row.state == CandidateState::Proposed;
                assert!(
                    is_out || is_open || row.values.get(name.as_str()) == Some(&timing.value())
                );
            }
        } else {
            let id = row.subject.id();
            assert!(
                self.rows.values().all(|r| r.subject.id() != id),
                "{} was proposed twice",
                row.subject
            );
        }
        self.rows.insert(row.number, row);
    }
}

/// What is on its way between the driver and its workers.
struct Driver<'a> {
    world: &'a World,
    rng: SearchRng,
    store: Store,
    campaign: Campaign<Stacks>,
    /// Answers on their way, each after a number of further steps.
    answers: Vec<(u32, Event)>,
    training: HashSet<u64>,
    timing: HashSet<u64>,
    /// Trainings that workers are at, whoever asked them.
    at_work: HashMap<u64, Evaluate>,
    /// Trainers that are there.
    workers: u32,
    losses: u32,
    adopted: u32,
    late: u32,
    /// Those that a trainer has written.
    checkpoints: HashSet<PathBuf>,
    /// Tokens of all trainings that were begun.
    tokens_begun: u64,
    finish: Option<Finish>,
    kills: u32,
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

    /// Executes commands between which no kill falls.
    fn execute_all(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Save(row) => self.store.save(row),
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
            let (trainers, profilers) = (self.workers, 1);
            let commands = self.campaign.handle(Event::Workers { trainers, profilers });
            self.execute(commands);
            if self.kills != kills {
                // Nobody remembers that it was lost.
                return;
            }
            let commands = self.campaign.handle(Event::Lost { id });
            assert!(!self.campaign.waits_for(id), "it is waited for though it is lost");
            self.execute(commands);
        } else if self.workers < self.world.trainers
            && (self.answers.is_empty() || self.rng.random_bool(0.3))
        {
            self.workers += 1;
            let (trainers, profilers) = (self.workers, 1);
            let commands = self.campaign.handle(Event::Workers { trainers, profilers });
            self.execute(commands);
        }
    }

    fn restart(&mut self) {
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
        let commands =
            self.campaign.handle(Event::Workers { trainers: self.workers, profilers: 1 });
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
                assert!(self.timing.insert(measure.id) && self.timing.len() == 1);
                assert!(self.store.latencies.iter().all(|e| e.key != measure.clone().key()));
                let name = format!("{} {}", measure.part, measure.conditions);
                // Every stack has the head: a campaign without it has nothing.
                let is_head = matches!(measure.part, Part::Head { .. });
                let trouble = if is_head { 0.0 } else { self.world.trouble };
                let answer = timed(measure.id, &name, 100.0, trouble);
                self.answer(answer);
            }
            Request::MeasureWhole(whole) => {
                assert!(self.timing.insert(whole.id) && self.timing.len() == 1);
                let name = format!("{} {}", whole.architecture, whole.conditions);
                let answer = timed(whole.id, &name, 330.0, 0.0);
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
            assert!(self.training.is_empty() || self.timing.is_empty(), "timed while training");
        }
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
            assert!(row.values[&name.into()].mean <= limit, "trained over {name}");
        }
    }

    fn answer(&mut self, event: Event) {
        let delay = self.rng.random_range(0..6);
        if self.rng.random_bool(self.world.repeats) {
            self.answers.push((delay + self.rng.random_range(0..6), event.clone()));
        }
        self.answers.push((delay, event));
    }

    /// Delivers one of the answers that are due.
    fn step(&mut self) {
        if self.world.losses > 0.0 {
            self.lose_or_join();
            if self.finish.is_some() || self.answers.is_empty() {
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

fn id_of(event: &Event) -> Option<u64> {
    match event {
        Event::Result(evaluation) => Some(evaluation.id),
        Event::Timing(measured) => Some(measured.id),
        Event::Infeasible(refusal) | Event::Failed { refusal, .. } => Some(refusal.id),
        Event::Lost { id } => Some(*id),
        Event::Values { values, .. } => Some(values.id),
        Event::Workers { .. }
        | Event::Progress(_)
        | Event::Adopted(_)
        | Event::QuietTiming { .. }
        | Event::Obstacle { .. }
        | Event::TimeOver { .. }
        | Event::StopRequested => None,
    }
}

/// The answer to a training: a function of the architecture and the attempt.
fn trained(evaluate: &Evaluate, trouble: f64) -> Event {
    let id = evaluate.id;
    let name = evaluate.architecture.to_string();
    // Seeds are noise, and little training is worse and says less.
    let noise = |what: u64| chance(&format!("{name} {what}")) - 0.5;
    let short = FULL as f64 / evaluate.tokens as f64 - 1.0;
    let mut loss = 1.0 + chance(&name) + 0.1 * short + 0.02 * short * noise(evaluate.tokens);
    if evaluate.seed != 5 {
        loss += 0.05 * noise(evaluate.seed);
    }
    let exact = |mean| Value { mean, standard_error: None };
    let refusal = |reason: &str| Refusal::new(id, reason);
    let result = |values: &[(&str, f64)]| {
        Event::Result(Evaluation {
            id,
            values: values.iter().map(|(name, v)| ((*name).to_owned(), exact(*v))).collect(),
            parameters: 1,
            tokens: evaluate.tokens,
            seconds: 1.0,
            checkpoint: Some(
                format!("/{}-{}-{}", evaluate.architecture.id(), evaluate.seed, evaluate.tokens)
                    .into(),
            ),
            unsaved: None,
            parts: BTreeMap::new(),
            curve: vec![(evaluate.tokens, loss)],
            retrieval: Vec::new(),
        })
    };
    let luck =
        chance(&format!("{name} {} {} {}", evaluate.tokens, evaluate.seed, evaluate.attempt));
    if luck >= trouble {
        return result(&[("bits_per_byte", loss)]);
    }
    match (luck / trouble * 5.0) as u32 {
        0 => result(&[("bits_per_byte", f64::NAN)]),
        1 => result(&[("another_value", loss)]),
        2 => Event::Infeasible(refusal("out of memory")),
        _ => Event::Failed { refusal: refusal("exit status 1"), log: "last words".to_owned() },
    }
}

fn timed(id: u64, name: &str, scale_us: f64, trouble: f64) -> Event {
    let luck = chance(&format!("{name} luck"));
    if luck < trouble * 0.1 {
        let refusal = Refusal::new(id, "exit status 1");
        return Event::Failed { refusal, log: "last words".to_owned() };
    }
    let timing = Timing {
        median_us: scale_us * chance(name),
        spread_us: 1.0,
        samples: 9,
        other_load: 0.0,
        kernels: "simulated".to_owned(),
        millijoules: None,
    };
    Event::Timing(Measured { id, timing })
}

/// Runs a campaign in a world to its end; its store and the number of kills.
fn run(world: &World) -> (Store, u32) {
    let (store, counts) = run_counting(world);
    (store, counts.kills)
}

/// What happened in a world.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    kills: u32,
    losses: u32,
    adopted: u32,
    late: u32,
    /// Tokens of all trainings that were begun.
    tokens_begun: u64,
}

fn run_counting(world: &World) -> (Store, Counts) {
    let store = Store::default();
    let mut driver = Driver {
        world,
        rng: SearchRng::seed_from_u64(world.scheduler_seed),
        campaign: store.campaign(world),
        store,
        answers: Vec::new(),
        training: HashSet::new(),
        timing: HashSet::new(),
        checkpoints: HashSet::new(),
        tokens_begun: 0,
        at_work: HashMap::new(),
        workers: 0,
        losses: 0,
        adopted: 0,
        late: 0,
        finish: None,
        kills: 0,
    };
    driver.restart();
    for _ in 0..100_000 {
        if let Some(Finish::Halted { .. }) = driver.finish {
            // The user mends it and goes on.
            driver.finish = None;
            driver.kills += 1;
            driver.restart();
        }
        if driver.finish.is_some() {
            break;
        }
        driver.step();
    }
    assert_eq!(driver.finish, Some(Finish::Complete), "{world:?}");
    check_end(&driver, world);
    let Driver { kills, losses, adopted, late, tokens_begun, .. } = driver;
    (driver.store, Counts { kills, losses, adopted, late, tokens_begun })
}

fn check_end(driver: &Driver<'_>, world: &World) {
    let rows = &driver.store.rows;
    let settings = settings(world);
    let numbers: Vec<u32> = rows.keys().copied().collect();
    assert_eq!(numbers, (1..=rows.len() as u32).collect::<Vec<_>>(), "numbers without gaps");
    assert!(rows.values().all(|row| row.state.is_final()));
    // Who was trained at a rung and refused at the next has cost something too.
    let is_evaluated = |row: &&Candidate| {
        row.fidelity > 0 || !matches!(row.state, CandidateState::Infeasible { .. })
    };
    let evaluated = rows.values().filter(is_evaluated).count();
    assert_eq!(evaluated, settings.evaluations as usize);
    assert!(rows.values().all(|row| row.values.values().all(|v| v.mean.is_finite())));
    let front = driver.campaign.front();
    assert!(!front.is_empty());
    for number in &front {
        assert_eq!(rows[number].state, CandidateState::Done);
        assert_eq!(rows[number].whole.len(), settings.latencies.len(), "timed as a whole");
    }
    check_rungs(driver, &settings);
    let stored: HashMap<u32, Candidate> = rows.clone().into_iter().collect();
    let in_memory: HashMap<u32, Candidate> =
        driver.campaign.candidates().map(|row| (row.number, row.clone())).collect();
    assert_eq!(stored, in_memory, "what is in memory is what was saved");
    // The first few whose parts were timed tell what sums are worth.
    assert!(rows.values().filter(|row| !row.whole.is_empty()).count() >= 6);
}

fn check_rungs(driver: &Driver<'_>, settings: &Settings) {
    let done = || driver.store.rows.values().filter(|row| row.state == CandidateState::Done);
    let front = driver.campaign.front();
    for row in done() {
        assert!(settings.rungs.contains(&row.fidelity) || row.fidelity == FULL);
        assert!(
            row.checkpoint.is_none() || row.fidelity == FULL,
            "who was left at a rung keeps none"
        );
        let at_end = row.trained_values(row.fidelity)[&"bits_per_byte".into()];
        assert_eq!(
            row.values[&"bits_per_byte".into()],
            at_end,
            "the values are of the highest rung"
        );
    }
    for number in front {
        let is_sure = settings.trust.repeats == 0;
        assert_eq!(driver.store.rows[&number].fidelity, FULL, "one fidelity in a front");
        assert!(
            !is_sure || driver.store.rows[&number].checkpoint.is_some(),
            "its weights are kept"
        );
    }
    let all: Vec<Candidate> = driver.store.rows.values().cloned().collect();
    let contenders = Contenders::of(all.iter(), &settings.objectives, settings.target_tokens);
    let off =
        doubts(&contenders, settings.seed).into_iter().filter(|doubt| doubt.membership == 0.0);
    for Doubt { number, .. } in off {
        assert!(driver.store.rows[&number].checkpoint.is_none(), "and of nobody far off it");
    }
    let kept = done().filter_map(|row| row.checkpoint.clone()).collect::<HashSet<_>>();
    assert!(kept.is_subset(&driver.checkpoints), "a checkpoint that a row names is gone");
    if driver.kills == 0 && driver.world.repeats == 0.0 && driver.losses == 0 {
        assert_eq!(kept, driver.checkpoints, "nothing is left over");
    }
    if settings.rungs.is_empty() {
        return;
    }
    for (rung, next) in [(RUNGS[0], RUNGS[1]), (RUNGS[1], FULL)] {
        // Who went on and was over a limit as a whole model keeps its place.
        let is_judged = |row: &&Candidate| {
            matches!(row.state, CandidateState::Done | CandidateState::Infeasible { .. })
        };
        let at =
            |tokens: u64| all.iter().filter(is_judged).filter(|row| row.fidelity >= tokens).count();
        // A third goes on; the references always do, and those that later ones pushed out of the third have gone on too.
        assert!(at(next) >= at(rung).div_ceil(4), "{} of {} went on", at(next), at(rung));
        assert!(at(next) < at(rung), "{} of {} went on", at(next), at(rung));
    }
    let repeats: usize = done().map(|row| row.seeds(FULL).saturating_sub(1)).sum();
    assert!(repeats <= REPEATS);
    let longer = done().filter(|row| row.seeds(LONGER) > 0).count();
    assert!(
        longer <= 4 && (longer > 0 || driver.world.trouble > 0.0),
        "{longer} were trained for longer"
    );
}

#[test]
fn rungs_cost_less_than_full_trainings() {
    let (_, Counts { tokens_begun: full, .. }) = run_counting(&CALM);
    let (store, Counts { tokens_begun: rungs, .. }) = run_counting(&World { rungs: true, ..CALM });
    let extra: u64 = store
        .rows
        .values()
        .flat_map(|row| row.trained.iter().filter(|t| t.seed != row.seed || t.tokens > FULL))
        .map(|t| t.tokens)
        .sum();
    assert!(extra > 0);
    assert!(2 * (rungs - extra) < full, "{rungs} tokens, {extra} of them extra, and {full}");
}

#[test]
fn campaigns_reach_their_end_in_every_world() {
    let mut kills = 0;
    for seed in 0..20 {
        for (quiet_timing, rungs) in [(true, false), (false, false), (true, true), (false, true)] {
            let world = World {
                scheduler_seed: seed,
                trainers: 1 + seed as u32 % 4,
                kills: [0.0, 0.02, 0.1][seed as usize % 3],
                repeats: 0.2,
                trouble: 0.3,
                quiet_timing,
                losses: 0.0,
                rungs,
            };
            let (store, killed) = run(&world);
            kills += killed;
            assert_eq!(store, run(&world).0, "the same world gives the same campaign");
        }
    }
    assert!(kills > 100, "only {kills} kills tried anything");
}

#[test]
fn many_workers_that_come_and_go_lose_nothing() {
    let mut all = Counts::default();
    for seed in 0..24 {
        let world = World {
            scheduler_seed: seed,
            trainers: [2, 8, 64][seed as usize % 3],
            kills: [0.0, 0.03][seed as usize / 3 % 2],
            repeats: 0.2,
            trouble: 0.3,
            quiet_timing: false,
            losses: 0.1,
            rungs: seed % 4 < 2,
        };
        let (store, counts) = run_counting(&world);
        assert_eq!(store, run(&world).0, "the same world gives the same campaign");
        all.losses += counts.losses;
        all.adopted += counts.adopted;
        all.late += counts.late;
        all.kills += counts.kills;
    }
    assert!(all.losses > 200 && all.late > 200, "{all:?}");
    assert!(all.kills > 30 && all.adopted > 30, "{all:?}");
}

#[test]
fn kills_and_delays_change_nothing_with_one_trainer() {
    for (trouble, rungs) in [(0.0, false), (0.3, false), (0.0, true), (0.3, true)] {
        let calm = World { trouble, rungs, ..CALM };
        let (expected, _) = run(&calm);
        for seed in 0..12 {
            for quiet_timing in [true, false] {
                let world = World {
                    scheduler_seed: seed,
                    kills: 0.05,
                    repeats: 0.2,
                    losses: [0.0, 0.1][seed as usize % 2],
                    quiet_timing,
                    ..calm
                };
                let (store, kills) = run(&world);
                assert!(kills > 0, "seed {seed} kills nothing");
                for (number, row) in &expected.rows {
                    assert_eq!(store.rows.get(number), Some(row), "seed {seed}");
                }
                assert_eq!(store.rows.len(), expected.rows.len(), "seed {seed}");
            }
        }
    }
}
