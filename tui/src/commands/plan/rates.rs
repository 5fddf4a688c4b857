//! How long this machine takes for what a campaign asks of it: some of its parts are timed, and some of its stacks are trained
//! for a few steps by as many trainers at once as the campaign will have.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use search::Architecture;
use search::config::{CampaignFile, TaskConfig};
use search::cost;
use search::latency::{Conditions, Phase};
use search::space::Space;
use search::tensors::parameters;
use search::wire::{Evaluate, Evaluation, Measure, MeasureWhole, Reply, Request};

use crate::driver::{Asked as Worker, Introduction, Job, WorkerSpec, targets};

/// Parts that are timed of each phase.
const PARTS: usize = 10;
/// Stacks that are trained: a small one, one in the middle, a large one.
const STACKS: [f64; 3] = [0.1, 0.5, 0.9];
/// The one that is trained by one trainer alone, too.
const CROWDED: f64 = STACKS[1];
/// Steps of the shorter of two trainings.
const STEPS: u64 = 3;
/// Seconds that the longer one takes beyond it, about: enough beside what validations differ by.
const SECONDS: f64 = 3.0;
/// Steps that it has beyond it at first.
const FEW_MORE: u64 = 8;
/// Steps that it has beyond it at most.
const MOST_MORE: u64 = 128;
/// Seconds that two trainings must differ by for their difference to mean something.
const MEASURABLE: f64 = 0.2;

/// What a campaign asks of its workers.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) measures: Vec<Measure>,
    pub(super) measures_whole: Vec<MeasureWhole>,
    /// Stacks in the order of their trainings.
    pub(super) trained: Vec<Architecture>,
}

/// Seconds that things take here.
#[derive(Debug, Clone)]
pub(super) struct Rates {
    /// Of what is timed, by device and whether it is a decode step.
    timings: BTreeMap<(String, bool), Timings>,
    /// Of the text, or of the tasks where there is none.
    text: Trainings,
    /// Of the tasks beside a text, each candidate's once; with their tokens.
    tasks: Option<(Trainings, u64)>,
    trainers: u32,
    /// Until the workers stand ready.
    pub(super) start_seconds: f64,
    /// Of a checkpoint, for each parameter of the stack.
    pub(super) checkpoint_bytes: f64,
    parts_timed: usize,
    trainings: usize,
}

/// Before anything is measured all takes the same.
impl Default for Rates {
    fn default() -> Self {
        Self {
            timings: BTreeMap::new(),
            text: Trainings::default(),
            tasks: None,
            trainers: 1,
            start_seconds: 0.0,
            checkpoint_bytes: 4.0,
            parts_timed: 0,
            trainings: 0,
        }
    }
}

/// Seconds of the timing of a part and of a whole model.
#[derive(Debug, Clone, Copy)]
struct Timings {
    part: f64,
    whole: f64,
}

impl Default for Timings {
    fn default() -> Self {
        Self { part: 1.0, whole: 1.0 }
    }
}

/// Timings that take about as long as each other.
fn kind(conditions: &Conditions) -> (String, bool) {
    (conditions.device.clone(), matches!(conditions.phase, Phase::Decode { .. }))
}

/// Seconds of trainings by as many trainers at once as there are.
#[derive(Debug, Clone, Copy)]
struct Trainings {
    /// Of a token, against its operations.
    token: Line,
    /// Of what comes with a training at a rung, against the operations of a token.
    rung: Line,
    /// The same of a full training, which is tested, too.
    full: Line,
    /// How much longer all take at once than one alone.
    crowding: f64,
    sequence_length: u32,
}

impl Default for Trainings {
    fn default() -> Self {
        let one = Line { constant: 1.0, slope: 0.0 };
        let token = Line { constant: 1e-4, slope: 0.0 };
        Self { token, rung: one, full: one, crowding: 1.0, sequence_length: 1 }
    }
}

impl Trainings {
    /// `others`: the part of the other trainers that train, too.
    fn seconds(&self, architecture: &Architecture, tokens: u64, is_full: bool, others: f64) -> f64 {
        let flops = self.flops_per_token(architecture);
        let end = if is_full { self.full } else { self.rung };
        let alone = (self.token.at(flops) * tokens as f64 + end.at(flops)) / self.crowding;
        alone * (1.0 + (self.crowding - 1.0) * others)
    }

    /// Operations on one token of the forward pass.
    fn flops_per_token(&self, architecture: &Architecture) -> f64 {
        cost::flops_per_token(architecture, Phase::Prefill { tokens: self.sequence_length.max(1) })
    }
}

/// A training that is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) architecture: &'a Architecture,
    /// Of the text, those of the rung before not counted.
    pub(super) tokens: u64,
    /// To its end, where it is tested.
    pub(super) is_full: bool,
    /// Goes on from nothing.
    pub(super) is_first: bool,
    /// Trainings under way, this one counted.
    pub(super) at_once: u32,
}

/// constant + slope · x
#[derive(Debug, Clone, Copy)]
struct Line {
    constant: f64,
    slope: f64,
}

impl Line {
    /// The least squares through the points, neither falling nor below nothing.
    fn through(points: &[(f64, f64)]) -> Self {
        let n = points.len().max(1) as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (x, y) = (mean(|p| p.0), mean(|p| p.1));
        let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
        let together: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
        let slope = if spread > 0.0 { (together / spread).max(0.0) } else { 0.0 };
        if y < slope * x && x > 0.0 {
            return Self { constant: 0.0, slope: y / x };
        }
        Self { constant: y - slope * x, slope }
    }

    fn at(self, x: f64) -> f64 {
        self.constant + self.slope * x
    }
}

impl Rates {
    pub(super) fn part(&self, conditions: &Conditions) -> f64 {
        self.timing(conditions).part
    }

    pub(super) fn whole(&self, conditions: &Conditions) -> f64 {
        self.timing(conditions).whole
    }

    fn timing(&self, conditions: &Conditions) -> Timings {
        self.timings.get(&kind(conditions)).copied().unwrap_or_default()
    }

    pub(super) fn training(&self, wanted: Wanted<'_>) -> f64 {
        let Wanted { architecture, tokens, is_full, is_first, at_once } = wanted;
        let others = f64::from(at_once.saturating_sub(1)) / f64::from(self.trainers.max(2) - 1);
        let others = others.min(1.0);
        let of_tasks = match self.tasks.filter(|_| is_first) {
            Some((tasks, tokens)) => tasks.seconds(architecture, tokens, true, others),
            None => 0.0,
        };
        self.text.seconds(architecture, tokens, is_full, others) + of_tasks
    }

    /// Times what `asked` would ask for, some of it.
    pub(super) async fn measure(
        file: &CampaignFile,
        job: &Job<Space>,
        scratch: &Path,
        asked: &Asked,
    ) -> anyhow::Result<Self> {
        let mut rates = Self { trainers: job.trainers, ..Self::default() };
        let begin = Instant::now();
        for target in targets::here(&job.targets) {
            rates.time_parts(&target.profiler, asked).await?;
        }
        let trial = Trial::of_text(file, &job.trainer);
        let before = Instant::now();
        let mut trainers = start(&trial, job.trainers).await?;
        rates.start_seconds = before.elapsed().as_secs_f64() / f64::from(job.trainers.max(1));
        rates.text = rates.train(&trial, &mut trainers, asked, scratch).await?;
        dismiss(trainers).await;
        if let Some(trial) = Trial::of_tasks_beside(file, &job.trainer) {
            let mut trainers = start(&trial, job.trainers).await?;
            let tasks = rates.train(&trial, &mut trainers, asked, scratch).await?;
            rates.tasks = Some((tasks, tokens_of_tasks(file)));
            dismiss(trainers).await;
        }
        super::say(&format!("measured for {:.0} s", begin.elapsed().as_secs_f64()));
        Ok(rates)
    }

    async fn time_parts(&mut self, spec: &WorkerSpec, asked: &Asked) -> anyhow::Result<()> {
        let mut profiler = Worker::start(spec).await?;
        let device = profiler.hello.device.clone();
        for is_decode in [true, false] {
            let of_kind = (device.clone(), is_decode);
            // Another profiler of the same hardware has done it.
            if self.timings.contains_key(&of_kind) {
                continue;
            }
            let is_it = |conditions: &Conditions| kind(conditions) == of_kind;
            let measures: Vec<&Measure> =
                asked.measures.iter().filter(|m| is_it(&m.conditions)).collect();
            let mut seconds = Vec::new();
            for place in spread(measures.len(), PARTS) {
                let request = Request::Measure(measures[place].clone());
                let begin = Instant::now();
                profiler.answer(measures[place].id, &request).await?;
                seconds.push(begin.elapsed().as_secs_f64());
            }
            self.parts_timed += seconds.len();
            let part = mean(&seconds).unwrap_or(0.0);
            let whole = asked.measures_whole.iter().find(|m| is_it(&m.conditions));
            let whole = match whole {
                None => 0.0,
                Some(whole) => {
                    let begin = Instant::now();
                    profiler.answer(whole.id, &Request::MeasureWhole(whole.clone())).await?;
                    begin.elapsed().as_secs_f64()
                }
            };
            self.timings.insert(of_kind, Timings { part, whole });
        }
        profiler.dismiss().await;
        Ok(())
    }

    async fn train(
        &mut self,
        trial: &Trial,
        trainers: &mut [Worker],
        asked: &Asked,
        scratch: &Path,
    ) -> anyhow::Result<Trainings> {
        let mut stacks: Vec<&Architecture> = asked.trained.iter().collect();
        stacks.sort_by_key(|stack| parameters(stack));
        stacks.dedup();
        if stacks.is_empty() {
            bail!("nothing of this campaign would be trained");
        }
        let mut trainings =
            Trainings { sequence_length: trial.sequence_length, ..Trainings::default() };
        let step = trial.tokens_per_step;
        let (mut token, mut rung, mut full) = (Vec::new(), Vec::new(), Vec::new());
        for share in STACKS {
            let stack = stacks[((stacks.len() - 1) as f64 * share).round() as usize];
            let flops = trainings.flops_per_token(stack);
            let few = STEPS * step;
            // The first training of a process is slow for reasons of its own.
            self.all(trainers, stack, few).await?;
            let short = self.all(trainers, stack, few).await?;
            // A short training is mostly its validation, so what a step takes is seen in the difference alone.
            let mut more = FEW_MORE;
            let mut long = self.all(trainers, stack, few + more * step).await?;
            let beyond = (long.seconds - short.seconds).max(MEASURABLE);
            if beyond < SECONDS / 2.0 {
                let wanted = (more as f64 * SECONDS / beyond).ceil() as u64;
                more = wanted.clamp(2 * FEW_MORE, MOST_MORE);
                long = self.all(trainers, stack, few + more * step).await?;
            }
            let per_token = ((long.seconds - short.seconds) / (more * step) as f64).max(1e-9);
            token.push((flops, per_token));
            full.push((flops, (short.seconds - per_token * few as f64).max(0.0)));
            if trial.has_rungs {
                let low = self.all(trainers, stack, step).await?;
                rung.push((flops, (low.seconds - per_token * step as f64).max(0.0)));
            }
            if share == CROWDED && trainers.len() > 1 {
                let alone = self.all(&mut trainers[..1], stack, few + more * step).await?;
                trainings.crowding = (long.seconds / alone.seconds.max(1e-9)).max(1.0);
            }
            // Tasks alone leave none.
            if let Some(path) = &long.checkpoint {
                // Of the stack's own parameters: those of a proxy may be fewer.
                self.checkpoint_bytes =
                    bytes_beside(path, scratch) as f64 / parameters(stack).max(1) as f64;
            }
        }
        (trainings.token, trainings.full) = (Line::through(&token), Line::through(&full));
        trainings.rung = Line::through(&rung);
        Ok(trainings)
    }

    /// The same training by all at once; the mean of what it took.
    async fn all(
        &mut self,
        trainers: &mut [Worker],
        stack: &Architecture,
        tokens: u64,
    ) -> anyhow::Result<Evaluation> {
        self.trainings += 1;
        let trials = trainers.iter_mut().enumerate().map(|(place, trainer)| async move {
            let request = Request::Evaluate(Evaluate {
                id: 1,
                attempt: 1,
                architecture: stack.clone(),
                tokens,
                seed: place as u64,
                resume_from: None,
            });
            match trainer.answer(1, &request).await? {
                Reply::Result(evaluation) => Ok(evaluation),
                _ => Err(anyhow::anyhow!("the trainer answered out of turn")),
            }
        });
        let mut found = Vec::new();
        for trial in together(trials).await {
            found.push(trial.with_context(|| format!("{stack} cannot be trained"))?);
        }
        let seconds = mean(&found.iter().map(|of| of.seconds).collect::<Vec<_>>());
        let first = found.into_iter().next().context("a campaign has a trainer")?;
        Ok(Evaluation { seconds: seconds.unwrap_or(first.seconds), ..first })
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "by {} parts and {} short trainings timed just now; other load makes it longer",
            self.parts_timed, self.trainings
        )
    }
}

/// Waits for all of them at once.
async fn together<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| Some(Box::pin(future))).collect();
    let mut outputs: Vec<Option<F::Output>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, output) in pending.iter_mut().zip(&mut outputs) {
            if let Some(running) = future
                && let std::task::Poll::Ready(found) = running.as_mut().poll(context)
            {
                (*output, *future) = (Some(found), None);
            }
        }
        if pending.iter().any(Option::is_some) {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(outputs.iter_mut().filter_map(Option::take).collect())
    })
    .await
}

/// Trainings to try.
struct Trial {
    /// The trainer, with a few steps as a full training.
    spec: WorkerSpec,
    tokens_per_step: u64,
    sequence_length: u32,
    has_rungs: bool,
}

impl Trial {
    /// Of the text; where there is none, of all tasks.
    fn of_text(file: &CampaignFile, spec: &WorkerSpec) -> Self {
        if file.data.is_none() {
            return Self { has_rungs: !file.search.rungs.is_empty(), ..Self::of_tasks(file, spec) };
        }
        let training = &file.training;
        let tokens_per_step = u64::from(training.batch) * u64::from(training.sequence_length);
        let mut spec = spec.clone();
        if let Introduction::Configure(configure) = &mut spec.introduction {
            configure.tasks.clear();
            if let Some(training) = &mut configure.training {
                training.tokens = STEPS * tokens_per_step;
                training.target_tokens = None;
            }
        }
        let has_rungs = !file.search.rungs.is_empty();
        Self { spec, tokens_per_step, sequence_length: training.sequence_length, has_rungs }
    }

    /// Of the tasks beside a text; none where there are none.
    fn of_tasks_beside(file: &CampaignFile, spec: &WorkerSpec) -> Option<Self> {
        let is_beside = file.data.is_some() && !file.tasks.is_empty();
        is_beside.then(|| Self::of_tasks(file, spec))
    }

    fn of_tasks(file: &CampaignFile, spec: &WorkerSpec) -> Self {
        let of = |task: &TaskConfig| u64::from(task.batch) * u64::from(task.sequence_length);
        let tokens_per_step = file.tasks.iter().map(of).sum();
        let share = (STEPS * tokens_per_step) as f64 / tokens_of_tasks(file).max(1) as f64;
        let mut spec = spec.clone();
        if let Introduction::Configure(configure) = &mut spec.introduction {
            configure.data = None;
            for task in &mut configure.tasks {
                task.tokens = ((task.tokens as f64 * share) as u64).max(1);
            }
        }
        let longest = file.tasks.iter().map(|task| task.sequence_length).max();
        Self { spec, tokens_per_step, sequence_length: longest.unwrap_or(1), has_rungs: false }
    }
}

fn tokens_of_tasks(file: &CampaignFile) -> u64 {
    file.tasks.iter().map(|task| task.tokens).sum()
}

async fn start(trial: &Trial, trainers: u32) -> anyhow::Result<Vec<Worker>> {
    let mut started = Vec::new();
    for _ in 0..trainers {
        started.push(Worker::start(&trial.spec).await?);
    }
    Ok(started)
}

async fn dismiss(trainers: Vec<Worker>) {
    for trainer in trainers {
        trainer.dismiss().await;
    }
}

/// At most so many places, evenly spread over `count`.
fn spread(count: usize, most: usize) -> impl Iterator<Item = usize> {
    let taken = count.min(most);
    (0..taken).map(move |i| (2 * i + 1) * count / (2 * taken))
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Of a checkpoint, with what is kept beside it to go on from.
fn bytes_beside(path: &Path, folder: &Path) -> u64 {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&stem))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_neither_fall_nor_go_below_nothing() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        let line = Line::through(&[(1.0, 3.0), (2.0, 5.0), (3.0, 7.0)]);
        assert!(near(line.constant, 1.0) && near(line.slope, 2.0), "{line:?}");
        let falling = Line::through(&[(1.0, 3.0), (2.0, 1.0)]);
        assert!(near(falling.constant, 2.0) && near(falling.slope, 0.0), "{falling:?}");
        let below = Line::through(&[(1.0, 0.0), (2.0, 3.0)]);
        assert!(near(below.constant, 0.0) && near(below.at(1.5), 1.5), "{below:?}");
        assert!(near(Line::through(&[(4.0, 2.0)]).at(9.0), 2.0));
        assert!(near(Line::through(&[]).at(9.0), 0.0));
    }

    #[test]
    fn places_are_spread_evenly() {
        assert_eq!(spread(3, 10).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(100, 4).collect::<Vec<_>>(), [12, 37, 62, 87]);
        assert_eq!(spread(0, 4).count(), 0);
    }
}
