//! A campaign at work: news of the workers become events, commands become writes and requests.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use db::{Change, Run, Store};
use search::campaign::{Campaign, Candidate, CandidateState, Command, Event, Finish, Progress};
use search::objective::{read, value_name};
use search::subject::Subjects;
use search::wire::{Hello, Reply, Request};
use tokio::sync::mpsc;

use super::display::Display;
use super::gpus::{self, is_shared};
use super::resume::{GAVE_UP, retry, same_device};
use super::slot::{News, Slot};
use super::spec::Role;
use super::stop::StopSignals;
use super::{Introduction, Job, broken};

/// How often progress is written, and the driver's own sign of life.
const TICK: Duration = Duration::from_secs(1);
const TICKS_PER_HEARTBEAT: u32 = 5;

/// A campaign at work.
pub(super) struct Desk<'a, D: Subjects> {
    store: &'a Store,
    run: &'a Run,
    machine: Campaign<D>,
    pub(super) slots: Vec<Slot>,
    pub(super) display: Display,
    evaluations: u64,
    /// Tokens of a full evaluation.
    tokens: u64,
    /// The folder of the campaign's checkpoints.
    checkpoints: Option<PathBuf>,
    objectives: Vec<String>,
    counts_refusals: bool,
    profilers: u32,
    /// Candidate and begin of each training under way, by request.
    trainings: HashMap<u64, (u32, Instant)>,
    /// Progress that is not written yet.
    unwritten: Vec<(Progress, f64)>,
    /// Candidates whose end was shown, with the number of trainings that they had then.
    shown: HashSet<(u32, usize)>,
    /// Candidates that failed since one last succeeded.
    failed_in_a_row: Vec<u32>,
    /// Failures of attempts, to be remembered with the next write.
    events: Vec<Change>,
    stopping: bool,
}

impl<'a, D: Subjects + Clone> Desk<'a, D> {
    /// Checks that the device is the campaign's, and rebuilds the campaign from the store.
    pub(super) async fn open(
        store: &'a Store,
        run: &'a Run,
        job: &mut Job<D>,
        trainers: &[Hello],
        profiler: Option<&Hello>,
        slots: Vec<Slot>,
    ) -> Result<Self, (anyhow::Error, Vec<Slot>)> {
        let prepared = async {
            if let Some(profiler) = profiler {
                same_device(store, &job.name, profiler).await?;
            }
            let mut history = store.history(&job.name).await?;
            if let Some(kernels) = profiler.and_then(|profiler| profiler.kernels.as_ref()) {
                history.latencies.retain(|entry| entry.timing.kernels == *kernels);
            }
            // A new campaign times anew what other processes disturbed; one that goes on keeps to its table, so that
            // all its latencies come from one.
            if history.candidates.is_empty() {
                history.latencies.retain(|entry| !entry.timing.is_disturbed());
            }
            let mut changes: Vec<Change> = trainers
                .iter()
                .map(|hello| (job.trainer.role, hello))
                .chain(profiler.map(|profiler| (Role::Profiler, profiler)))
                .map(|(role, hello)| Change::Worker {
                    role: role.word().to_owned(),
                    worker: match &hello.kernels {
                        Some(kernels) => format!("{} ({kernels})", hello.worker),
                        None => hello.worker.clone(),
                    },
                    device: hello.device.clone(),
                })
                .collect();
            let again = retry(store, &job.name, &mut history).await?;
            changes.extend(again.into_iter().map(Change::Candidate));
            let kind = if run.took_over { "takeover" } else { "start" };
            let body = if run.took_over {
                "the run before this one ended without a word; its running work is repeated"
            } else {
                "a run begins"
            };
            changes.push(Change::Event { kind: kind.to_owned(), body: body.to_owned() });
            store.apply(run, &changes).await?;
            anyhow::Ok(history)
        };
        let history = match prepared.await {
            Ok(history) => history,
            Err(error) => return Err((error, slots)),
        };
        if let Some(profiler) = profiler {
            job.settings.latencies = job.latency.latencies(&profiler.device);
            job.settings.throughput = job.latency.throughput(&profiler.device);
            let gpus = gpus::count();
            job.settings.quiet_timing = trainers.iter().any(|trainer| {
                is_shared(&job.trainer.introduction.trains_on(trainer), &profiler.device, gpus)
            });
        }
        let shown = history
            .candidates
            .iter()
            .filter(|row| row.state.is_final())
            .map(|row| (row.number, row.trained.len()))
            .collect();
        let evaluations = u64::from(job.settings.evaluations);
        let objectives = job.settings.objectives.clone();
        let machine =
            Campaign::new(job.settings.clone(), job.space.clone(), job.proposer.clone(), history);
        let counts_refusals = job.settings.refusals_count;
        let done = over(&machine, counts_refusals);
        let display = Display::new(job.show, job.trainer.role, trainers.len(), done, evaluations);
        if let Some(trainer) = trainers.first() {
            let many = if trainers.len() > 1 {
                format!(", {} at once", trainers.len())
            } else {
                String::new()
            };
            let device = job.trainer.introduction.trains_on(trainer);
            display.line(&match profiler {
                Some(profiler) => format!(
                    "training by {} on {}{many}; timing by {} on {}",
                    trainer.worker, device, profiler.worker, profiler.device
                ),
                None => format!("evaluations by {}{many}", trainer.worker),
            });
        }
        Ok(Self {
            store,
            run,
            machine,
            slots,
            display,
            evaluations,
            tokens: job.settings.tokens,
            checkpoints: match &job.trainer.introduction {
                Introduction::Configure(configure) => configure.checkpoints.clone(),
                Introduction::Space(_) => None,
            },
            objectives,
            counts_refusals,
            profilers: u32::from(profiler.is_some()),
            trainings: HashMap::new(),
            unwritten: Vec::new(),
            shown,
            failed_in_a_row: Vec::new(),
            events: Vec::new(),
            stopping: false,
        })
    }

    /// Works until the machine says that it is finished; and whether it was told not to wait.
    pub(super) async fn work(
        &mut self,
        trainers: u32,
        news: &mut mpsc::UnboundedReceiver<(usize, News)>,
        signals: &mut StopSignals,
    ) -> anyhow::Result<(Finish, bool)> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks: u32 = 0;
        self.show_overall();
        let mut finish = self.tell(Event::Workers { trainers, profilers: self.profilers }).await?;
        loop {
            if let Some(finish) = finish {
                return Ok((finish, false));
            }
            finish = tokio::select! {
                some = news.recv() => match some {
                    Some((index, news)) => self.hear(index, news).await?,
                    None => bail!("the workers are gone"),
                },
                () = signals.next() => {
                    let again = self.stopping;
                    self.stopping = true;
                    if !again {
                        self.display.line("stopping: what is done is kept; Ctrl-C again leaves at once");
                    }
                    let finish = self.tell(Event::StopRequested).await?;
                    match finish {
                        Some(finish) if again => return Ok((finish, true)),
                        finish => finish,
                    }
                }
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    if !self.unwritten.is_empty() {
                        self.write(Vec::new()).await?;
                    } else if ticks.is_multiple_of(TICKS_PER_HEARTBEAT) {
                        self.store.heartbeat(self.run).await?;
                    }
                    None
                }
            };
        }
    }

    /// News of a slot.
    async fn hear(&mut self, index: usize, news: News) -> anyhow::Result<Option<Finish>> {
        let event = match news {
            News::Ready(_) | News::Reply(Reply::Hello(_) | Reply::Space(_)) => return Ok(None),
            News::Broken { reason, log } => return Err(broken(&reason, &log)),
            News::Reply(Reply::Progress(progress)) => {
                self.display.progress(index, &progress);
                return self.tell(Event::Progress(progress)).await;
            }
            News::Reply(Reply::Result(evaluation)) => Event::Result(evaluation),
            News::Reply(Reply::Timing(measured)) => Event::Timing(measured),
            News::Reply(Reply::Values(values)) => {
                let begin = self.trainings.get(&values.id).map(|(_, begin)| begin);
                let seconds = begin.map_or(0.0, |begin| begin.elapsed().as_secs_f64());
                Event::Values { values, seconds }
            }
            News::Reply(Reply::Infeasible(refusal)) => Event::Infeasible(refusal),
            News::Reply(Reply::Failed(refusal)) => Event::Failed { refusal, log: String::new() },
            News::Failed { refusal, log } => Event::Failed { refusal, log },
        };
        if let Some(slot) = self.slots.get_mut(index) {
            if let (Event::Failed { refusal, log }, false) = (&event, self.stopping) {
                let what = match self.trainings.get(&refusal.id) {
                    Some((number, _)) => format!("candidate {number}: attempt failed"),
                    None => "a timing failed".to_owned(),
                };
                let place = self.display.place();
                self.display.line(&format!("{place} {what}: {}", refusal.reason));
                let body = format!("{what}: {}\n{log}", refusal.reason).trim_end().to_owned();
                self.events.push(Change::Event { kind: "failed attempt".to_owned(), body });
            }
            if let Some(id) = slot.request.take() {
                self.trainings.remove(&id);
            }
            self.display.end(index);
        }
        self.tell(event).await
    }

    /// Hands an event to the machine and does what it says.
    async fn tell(&mut self, event: Event) -> anyhow::Result<Option<Finish>> {
        let commands = self.machine.handle(event);
        let mut changes = Vec::new();
        let mut requests = Vec::new();
        let mut superseded = Vec::new();
        let mut finish = None;
        for command in commands {
            match command {
                Command::Save(candidate) => {
                    self.unwritten.retain(|(progress, _)| progress.number != candidate.number);
                    changes.push(Change::Candidate(candidate));
                }
                Command::SaveProgress(progress) => {
                    let now = self
                        .trainings
                        .values()
                        .find(|(number, _)| *number == progress.number)
                        .map_or(0.0, |(_, begin)| begin.elapsed().as_secs_f64());
                    let row = self.machine.candidates().find(|row| row.number == progress.number);
                    let before = row.map_or(0.0, |row| row.train_seconds);
                    self.unwritten.push((progress, before + now));
                }
                Command::SaveLatency(entry) => changes.push(Change::Latency(entry)),
                Command::RemoveCheckpoint(path) => superseded.push(path),
                Command::Send(request) => requests.push(request),
                Command::Finish(end) => finish = Some(end),
            }
        }
        // All rows before all requests: a request without its row would be lost by a kill.
        if !changes.is_empty() || finish.is_some() {
            let ended: Vec<Candidate> = changes
                .iter()
                .filter_map(|change| match change {
                    Change::Candidate(row) if row.state.is_final() => Some(row.clone()),
                    _ => None,
                })
                .collect();
            for row in &ended {
                match row.state {
                    CandidateState::Failed { .. } => self.failed_in_a_row.push(row.number),
                    CandidateState::Done => self.failed_in_a_row.clear(),
                    _ => {}
                }
            }
            if let Some(Finish::GaveUp { .. }) = finish {
                let numbers: Vec<String> =
                    self.failed_in_a_row.iter().map(u32::to_string).collect();
                let body = numbers.join(", ");
                self.events.push(Change::Event { kind: GAVE_UP.to_owned(), body });
            }
            self.write(changes).await?;
            // Shown is what is kept.
            for row in &ended {
                self.show(row);
            }
            self.show_overall();
        }
        for path in superseded {
            remove_checkpoint(&path, self.checkpoints.as_deref());
        }
        for request in requests {
            self.send(request)?;
        }
        Ok(finish)
    }

    /// Writes changes, and with them what waited for a write.
    async fn write(&mut self, mut changes: Vec<Change>) -> anyhow::Result<()> {
        let unwritten = self.unwritten.drain(..);
        changes.extend(unwritten.map(|(progress, seconds)| Change::Progress { progress, seconds }));
        changes.append(&mut self.events);
        self.store.apply(self.run, &changes).await?;
        Ok(())
    }

    /// Gives a request to an idle worker of its kind, or a stop to the worker that is at it.
    fn send(&mut self, request: Request) -> anyhow::Result<()> {
        let (role, id) = match &request {
            Request::Stop { id } => {
                if let Some(slot) = self.slots.iter().find(|slot| slot.request == Some(*id)) {
                    slot.send(request);
                }
                return Ok(());
            }
            Request::Evaluate(evaluate) => (Role::Trainer, evaluate.id),
            Request::Measure(measure) => (Role::Profiler, measure.id),
            Request::MeasureWhole(measure) => (Role::Profiler, measure.id),
            Request::Eval(eval) => (Role::BlackBox, eval.id),
            Request::MeasureLimit(measure) => (Role::Profiler, measure.id),
            Request::Configure(_) | Request::Space { .. } => {
                bail!("a campaign introduces itself to no workers")
            }
        };
        let idle = |slot: &&mut Slot| slot.role == role && slot.request.is_none();
        let index = self.slots.iter().position(|slot| slot.role == role && slot.request.is_none());
        let Some(slot) = self.slots.iter_mut().find(idle) else {
            bail!("the campaign asked for a {} when none was idle", role.word());
        };
        slot.request = Some(id);
        match &request {
            Request::Evaluate(_) | Request::Eval(_) => {
                let row = self.machine.candidate_of(id);
                let (number, mut label) =
                    row.map_or((0, String::new()), |row| (row.number, label(row)));
                if let Request::Evaluate(evaluate) = &request {
                    if row.is_some_and(|row| row.seed != evaluate.seed) {
                        label = format!("{label}, seed {}", evaluate.seed);
                    }
                    if evaluate.tokens != self.tokens {
                        let tokens = tui::quantity::scaled(evaluate.tokens as f64);
                        label = format!("{label}, {tokens} tokens");
                    }
                }
                self.trainings.insert(id, (number, Instant::now()));
                self.display.begin(index.unwrap_or(0), label);
            }
            Request::Measure(measure) => {
                self.display.doing(&format!("timing {}", measure.part));
            }
            Request::MeasureWhole(measure) => {
                self.display.doing(&format!("timing a whole model, {}", measure.conditions));
            }
            Request::MeasureLimit(measure) => {
                self.display.doing(&format!("timing {}", measure.limit));
            }
            Request::Configure(_) | Request::Space { .. } | Request::Stop { .. } => {}
        }
        slot.send(request);
        Ok(())
    }

    /// Says how a candidate ended, once.
    fn show(&mut self, row: &Candidate) {
        if !row.state.is_final() || !self.shown.insert((row.number, row.trained.len())) {
            return;
        }
        let text = match &row.state {
            CandidateState::Done if row.fidelity < self.tokens => {
                let values = self
                    .objectives
                    .iter()
                    .filter_map(|name| Some(crate::words::value(name, *row.values.get(name)?)));
                let tokens = tui::quantity::scaled(row.fidelity as f64);
                format!("{} at {tokens} tokens", values.collect::<Vec<_>>().join(", "))
            }
            CandidateState::Done => {
                let values: Vec<String> = self
                    .objectives
                    .iter()
                    .map(|name| value_name(name))
                    .filter_map(|name| Some(crate::words::value(name, *row.values.get(name)?)))
                    .collect();
                let on_front =
                    if self.machine.front().contains(&row.number) { ", on the front" } else { "" };
                format!("{}{on_front}", values.join(", "))
            }
            CandidateState::Infeasible { reason } => format!("dropped: {reason}"),
            CandidateState::Failed { reason, .. } => format!("failed: {reason}"),
            CandidateState::Proposed | CandidateState::Training => return,
        };
        let done = over(&self.machine, self.counts_refusals);
        self.display.overall(done, self.evaluations, "");
        let place = self.display.place();
        self.display.line(&format!("{place} {}: {text}", label(row)));
    }

    fn show_overall(&mut self) {
        let front = self.machine.front();
        let best = self.objectives.first().and_then(|name| {
            let members = self.machine.candidates().filter(|row| front.contains(&row.number));
            let best = members
                .filter_map(|row| Some((read(&row.values, name)?.mean, row)))
                .min_by(|a, b| a.0.total_cmp(&b.0));
            let name = value_name(name);
            best.and_then(|(_, row)| Some(crate::words::value(name, *row.values.get(name)?)))
        });
        let message = match (front.len(), best) {
            (0, _) | (_, None) => String::new(),
            (members, Some(best)) => format!(" front: {members}, best {best}"),
        };
        let done = over(&self.machine, self.counts_refusals);
        self.display.overall(done, self.evaluations, &message);
    }
}

/// Removes a checkpoint with what lies beside it under the same name, an optimiser's state say. Files outside the campaign's
/// folder belong to the user's own trainer, and stay.
fn remove_checkpoint(path: &Path, folder: Option<&Path>) {
    let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return };
    if folder.is_none() || path.parent() != folder {
        return;
    }
    let Some(Ok(files)) = path.parent().map(std::fs::read_dir) else { return };
    for file in files.flatten() {
        let name = file.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(stem));
        if rest.is_some_and(|rest| rest.starts_with('.')) {
            // What cannot be removed costs room, nothing else.
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// Candidates whose evaluation is over.
fn over<D: Subjects>(machine: &Campaign<D>, counts_refusals: bool) -> u64 {
    let is_over = |row: &&Candidate| match row.state {
        CandidateState::Done | CandidateState::Failed { .. } => true,
        CandidateState::Infeasible { .. } => counts_refusals,
        CandidateState::Proposed | CandidateState::Training => false,
    };
    machine.candidates().filter(is_over).count() as u64
}

/// A candidate in a few words.
fn label(row: &Candidate) -> String {
    match &row.reference {
        Some(name) => format!("candidate {} (reference {name})", row.number),
        None => format!("candidate {} ({})", row.number, tui::quantity::shortened(&row.origin, 28)),
    }
}
