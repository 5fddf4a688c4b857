//! A campaign at work: news of the workers become events, commands become writes and requests.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use db::{Change, Run, Store};
use search::campaign::{Campaign, Candidate, Command, Event, Finish, Progress, Quiet};
use search::failure::FailureKind;
use search::subject::Subjects;
use search::wire::{Hello, Reply, Request};

use super::checkpoints;
use super::child::broken;
use super::display::Display;
use super::hall::{self, Hall};
use super::job::Job;
use super::limits::Room;
use super::metrics::Metrics;
use super::metrics::endpoint::Serving;
use super::news::{Inbox, News};
use super::pull::ToWorker;
use super::resume::{self, GAVE_UP, full_name, same_device};
use super::seating::{quiet, seat, told};
use super::slot::Slot;
use super::spec::{Introduction, Role};
use super::stop::StopSignals;
use super::targets;
use super::telling::{Telling, label};
use super::underway::Underway;

/// How often progress is written, and the driver's own sign of life.
const TICK: Duration = Duration::from_secs(1);
const TICKS_PER_HEARTBEAT: u32 = 5;

/// A campaign at work.
pub(super) struct Desk<'a, D: Subjects> {
    store: &'a Store,
    run: &'a Run,
    pub(super) machine: Campaign<D>,
    pub(super) slots: Vec<Slot>,
    pub(super) display: Display,
    telling: Telling,
    /// Tokens of a full evaluation.
    tokens: u64,
    /// The folder of the campaign's checkpoints.
    pub(super) checkpoints: Option<PathBuf>,
    /// Trainings under way, by request.
    pub(super) trainings: HashMap<u64, Underway>,
    /// Progress that is not written yet.
    unwritten: Vec<(Progress, f64)>,
    /// Failures of attempts, to be remembered with the next write.
    pub(super) events: Vec<Change>,
    stopping: bool,
    /// Where pull workers come in.
    pub(super) hall: Option<Hall>,
    /// How a trainer is introduced to the campaign.
    pub(super) introduction: Introduction,
    /// The targets by their names, with who times each first: of whose device and kernels the latencies there are.
    pub(super) targets: Vec<(Option<String>, Hello)>,
    /// What must not disturb what is timed.
    pub(super) quiet: Quiet,
    /// What Prometheus is told, where it may ask.
    metrics: Option<(Metrics, Serving)>,
    /// The room that must be left on the disk.
    room: Option<Room>,
    /// When nothing more is to be proposed, and why then; none once that was told.
    deadline: Option<(Instant, String)>,
}

impl<'a, D: Subjects + Clone> Desk<'a, D> {
    /// Checks that the devices are the campaign's, and rebuilds the campaign from the store. `profilers`: who times each
    /// target.
    pub(super) async fn open(
        store: &'a Store,
        run: &'a Run,
        job: &mut Job<D>,
        trainers: &[Hello],
        profilers: &[Hello],
        mut slots: Vec<Slot>,
    ) -> Result<Self, (anyhow::Error, Vec<Slot>)> {
        let prepared = async {
            targets::distinct(&job.targets, profilers)?;
            for (target, profiler) in job.targets.iter().zip(profilers) {
                same_device(store, &job.name, target, profiler).await?;
            }
            let history = resume::history(store, &job.name, profilers).await?;
            let workers = trainers.iter().map(|hello| (job.trainer.role.word().to_owned(), hello));
            let timing = job.targets.iter().map(|target| db::profiler_of(target.name()));
            let workers: Vec<(String, &Hello)> = workers.chain(timing.zip(profilers)).collect();
            let changes = resume::beginning(run, &workers);
            store.apply(run, &changes).await?;
            anyhow::Ok(history)
        };
        let history = match prepared.await {
            Ok(history) => history,
            Err(error) => return Err((error, slots)),
        };
        targets::settle(&job.targets, profilers, &mut job.settings);
        if !profilers.is_empty() {
            seat(job, &mut slots, trainers, profilers);
            job.settings.quiet = quiet(&slots);
        }
        let machine =
            Campaign::new(job.settings.clone(), job.space.clone(), job.proposer.clone(), history)
                .numbering_from(run.first_request());
        let telling =
            Telling::new(&job.settings, &machine, job.deadline.as_ref().map(|(at, _)| *at));
        let display = Display::new(
            job.show,
            job.trainer.role,
            trainers.len(),
            telling.over(&machine),
            job.settings.evaluations.into(),
        );
        if let Some(line) = told(trainers, profilers, &slots) {
            display.line(&line);
        }
        let metrics = job.metrics.take().map(|endpoint| {
            display.line(&format!("metrics at http://{}/metrics", endpoint.address));
            let (metrics, served) = Metrics::new(&job.name, &job.settings);
            (metrics, endpoint.serve(served))
        });
        Ok(Self {
            store,
            run,
            machine,
            slots,
            display,
            telling,
            tokens: job.settings.tokens,
            checkpoints: match &job.trainer.introduction {
                Introduction::Configure(configure) => configure.checkpoints.clone(),
                Introduction::Space(_) => None,
            },
            trainings: HashMap::new(),
            unwritten: Vec::new(),
            events: Vec::new(),
            stopping: false,
            hall: None,
            introduction: job.trainer.introduction.clone(),
            targets: {
                let names = job.targets.iter().map(|target| target.of.name.clone());
                names.zip(profilers.iter().cloned()).collect()
            },
            quiet: job.settings.quiet.clone(),
            metrics,
            room: job.room.take(),
            deadline: job.deadline.take(),
        })
    }

    /// Works until the machine says that it is finished; and whether it was told not to wait.
    pub(super) async fn work(
        &mut self,
        inbox: &mut Inbox,
        signals: &mut StopSignals,
    ) -> anyhow::Result<(Finish, bool)> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks: u32 = 0;
        self.show();
        let mut finish = self.look_at_disk().await?;
        if finish.is_none() {
            finish = self.count().await?;
        }
        loop {
            if let Some(finish) = finish {
                return Ok((finish, false));
            }
            finish = tokio::select! {
                some = inbox.next() => match some {
                    Some((index, news)) => self.hear(index, news).await?,
                    None => bail!("the workers are gone"),
                },
                arrival = hall::next(&mut self.hall) => {
                    self.admit(arrival);
                    None
                }
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
                    if let Some((metrics, _)) = &self.metrics {
                        metrics.workers(&self.slots);
                    }
                    if !self.unwritten.is_empty() {
                        self.write(Vec::new()).await?;
                    } else if ticks.is_multiple_of(TICKS_PER_HEARTBEAT) {
                        self.store.heartbeat(self.run).await?;
                    }
                    let mut finish = self.look_at_leases().await?;
                    if finish.is_none() && self.machine.is_behind() {
                        finish = self.count().await?;
                    }
                    if finish.is_none() {
                        finish = self.look_at_clock().await?;
                    }
                    match finish {
                        None if ticks.is_multiple_of(TICKS_PER_HEARTBEAT) => self.look_at_disk().await?,
                        finish => finish,
                    }
                }
            };
        }
    }

    /// Shows how far all are.
    fn show(&mut self) {
        let far = self.telling.overall(&self.machine, &mut self.display);
        if let Some((metrics, _)) = &self.metrics {
            let rows: Vec<&Candidate> = self.machine.candidates().collect();
            metrics.candidates(&rows, far);
        }
    }

    /// Ends the proposals when their time is over.
    async fn look_at_clock(&mut self) -> anyhow::Result<Option<Finish>> {
        let is_over = |(at, _): &mut (Instant, String)| *at <= Instant::now();
        match self.deadline.take_if(is_over) {
            Some((_, reason)) => {
                self.display.line(&format!("{reason}: what was begun is brought to its end"));
                self.tell(Event::TimeOver { reason }).await
            }
            None => Ok(None),
        }
    }

    /// Begins nothing more where there is too little room left.
    async fn look_at_disk(&mut self) -> anyhow::Result<Option<Finish>> {
        let Some(reason) = self.room.as_ref().and_then(Room::lacks) else { return Ok(None) };
        self.room = None;
        self.display.line(&format!("{reason}: what was begun is brought to its end"));
        self.tell(Event::Obstacle { reason }).await
    }

    /// News of a slot.
    async fn hear(&mut self, index: usize, news: News) -> anyhow::Result<Option<Finish>> {
        if !self.renew(index) {
            return Ok(None);
        }
        let is_pulled = self.slots[index].lease.is_some();
        if is_pulled
            && let Some(id) = news.ends()
            && !self.machine.waits_for(id)
        {
            return self.late(index, &news).await;
        }
        let event = match news {
            News::Gone => return self.gone(index).await,
            News::HandedBack { id } => return self.handed_back(index, id).await,
            News::Joined(ready) => return self.joined(index, *ready).await,
            News::Broken { reason, log } if is_pulled => {
                let reason = broken(&reason, &log).to_string();
                return self.refuse(index, &reason).await;
            }
            News::Ready(hello) => {
                self.slots[index].who = Some(full_name(&hello));
                return Ok(None);
            }
            News::Alive | News::Reply(Reply::Hello(_) | Reply::Checked(_) | Reply::Space(_)) => {
                return Ok(None);
            }
            News::Broken { reason, log } => return Err(broken(&reason, &log)),
            News::Reply(Reply::Progress(progress)) => {
                self.display.progress(index, &progress);
                return self.tell(Event::Progress(progress)).await;
            }
            News::Reply(Reply::Result(evaluation)) => Event::Result(evaluation),
            News::Reply(Reply::Timing(measured)) => Event::Timing(measured),
            News::Reply(Reply::Values(values)) => {
                let begin = self.trainings.get(&values.id).map(|of| of.began);
                let seconds = begin.map_or(0.0, |begin| begin.elapsed().as_secs_f64());
                Event::Values { values, seconds }
            }
            News::Reply(Reply::Infeasible(refusal)) => Event::Infeasible(refusal),
            News::Reply(Reply::Failed(refusal)) => Event::Failed { refusal, log: String::new() },
            News::Failed { refusal, log } => Event::Failed { refusal, log },
        };
        if let Event::Result(evaluation) = &event {
            let of = self.trainings.get(&evaluation.id);
            let by = of.and_then(|of| of.by(&self.slots[index]));
            self.events.extend(by.map(Change::Trained));
        }
        let mut answered = None;
        if let Some(slot) = self.slots.get_mut(index) {
            if let (Event::Failed { refusal, log }, false) = (&event, self.stopping) {
                let what = match self.trainings.get(&refusal.id) {
                    Some(of) => format!("candidate {}: attempt failed", of.number),
                    None => "a timing failed".to_owned(),
                };
                let place = self.display.place();
                self.display.line(&format!("{place} {what}: {}", refusal.reason));
                let body = format!("{what}: {}\n{log}", refusal.reason).trim_end().to_owned();
                let number = self.trainings.get(&refusal.id).map(|of| of.number);
                let failure = FailureKind::guessed(&refusal.reason, log);
                let kind = refusal.kind.unwrap_or(failure).words();
                tracing::warn!(
                    request = refusal.id,
                    candidate = number,
                    kind,
                    reason = refusal.reason,
                    "attempt failed"
                );
                self.events.push(Change::Attempt {
                    kind: "failed attempt".to_owned(),
                    number,
                    failure: Some(refusal.kind.unwrap_or(failure)),
                    body,
                });
            }
            if let Some(id) = slot.request.take() {
                self.trainings.remove(&id);
                answered = Some(id);
            }
            self.display.end(index);
        }
        let finish = self.tell(event).await?;
        let times = |slot: &Slot| slot.role == Role::Profiler && slot.request.is_some();
        if !self.slots.iter().any(times) {
            self.display.timed();
        }
        // It is written down.
        if let (Some(slot), Some(id)) = (self.slots.get(index), answered) {
            slot.tell(ToWorker::Heard { id });
        }
        Ok(finish)
    }

    /// Hands an event to the machine and does what it says.
    pub(super) async fn tell(&mut self, event: Event) -> anyhow::Result<Option<Finish>> {
        let commands = self.machine.handle(event);
        let mut changes = Vec::new();
        let mut requests = Vec::new();
        let (mut superseded, mut trunks) = (Vec::new(), Vec::new());
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
                        .find(|of| of.number == progress.number)
                        .map_or(0.0, |of| of.began.elapsed().as_secs_f64());
                    let row = self.machine.candidates().find(|row| row.number == progress.number);
                    let before = row.map_or(0.0, |row| row.train_seconds);
                    self.unwritten.push((progress, before + now));
                }
                Command::SaveLatency(entry) => changes.push(Change::Latency(entry)),
                Command::RemoveCheckpoint(path) => superseded.push(path),
                Command::RemoveTrunk(path) => trunks.push(path),
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
            if let Some(Finish::GaveUp { .. }) = finish {
                let given_up = self.machine.candidates().filter(|row| row.given_up);
                let numbers: Vec<String> = given_up.map(|row| row.number.to_string()).collect();
                let body = numbers.join(", ");
                self.events.push(Change::Event { kind: GAVE_UP.to_owned(), body });
            }
            self.write(changes).await?;
            // Shown is what is kept.
            for row in &ended {
                checkpoints::remove_unfinished(row, self.checkpoints.as_deref());
                self.telling.end(row, &self.machine, &mut self.display);
            }
            self.show();
        }
        for path in superseded {
            checkpoints::remove(&path, self.checkpoints.as_deref());
        }
        for path in trunks {
            checkpoints::remove_beside(&path, self.checkpoints.as_deref());
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
        if let Some((metrics, _)) = &self.metrics {
            self.events.iter().for_each(|event| metrics.heard(event));
        }
        changes.append(&mut self.events);
        self.store.apply(self.run, &changes).await?;
        Ok(())
    }

    /// Gives a request to an idle worker of its kind, or a stop to the worker that is at it.
    fn send(&mut self, request: Request) -> anyhow::Result<()> {
        let (role, id, device) = match &request {
            Request::Stop { id } => {
                if let Some(slot) = self.slots.iter().find(|slot| slot.request == Some(*id)) {
                    slot.send(request);
                }
                return Ok(());
            }
            Request::Evaluate(evaluate) => (Role::Trainer, evaluate.id, None),
            Request::Measure(measure) => {
                (Role::Profiler, measure.id, Some(&measure.conditions.device))
            }
            Request::MeasureWhole(measure) => {
                (Role::Profiler, measure.id, Some(&measure.conditions.device))
            }
            Request::Eval(eval) => (Role::BlackBox, eval.id, None),
            Request::MeasureLimit(_)
            | Request::Configure(_)
            | Request::Check(_)
            | Request::Space { .. } => {
                bail!("a campaign introduces itself to no workers, and asks for no limits")
            }
        };
        let index = self.slots.iter().position(|slot| match device {
            Some(device) => slot.may_time_on(device),
            None => slot.is_idle(role),
        });
        let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) else {
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
                tracing::info!(request = id, candidate = number, what = label, "training asked");
                let (tokens, seed) = match &request {
                    Request::Evaluate(evaluate) => (evaluate.tokens, evaluate.seed),
                    _ => (0, row.map_or(0, |row| row.seed)),
                };
                let began = Instant::now();
                self.trainings.insert(id, Underway { number, tokens, seed, began });
                self.display.begin(index.unwrap_or(0), label);
            }
            Request::Measure(measure) => {
                self.display.doing(&format!("timing {}", measure.part));
            }
            Request::MeasureWhole(measure) => {
                self.display.doing(&format!("timing a whole model, {}", measure.conditions));
            }
            Request::MeasureLimit(_)
            | Request::Configure(_)
            | Request::Check(_)
            | Request::Space { .. }
            | Request::Stop { .. } => {}
        }
        slot.send(request);
        Ok(())
    }
}
