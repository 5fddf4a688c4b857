//! A campaign gone through with workers that only take their time: the state machine is the one that drives campaigns, its
//! workers answer from [`Rates`], the clock is a number.

use std::collections::BTreeMap;
use std::time::Instant;

use search::Architecture;
use search::campaign::{Campaign, CandidateState, Command, Event, Finish, History, Quiet};
use search::cost;
use search::device::Platform;
use search::latency::{LatencyEntry, Timing};
use search::metric::{Known, Metric};
use search::objective::Objective;
use search::space::Space;
use search::wire::{Evaluate, Evaluation, Hello, Measured, Request, Value};
use serde::Serialize;

use super::rates::{Asked, Rates, Wanted};
use crate::driver::gpus::{Gpus, Seat};
use crate::driver::seating::by_turns;
use crate::driver::{Job, targets};

/// What a campaign will ask for and take.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Expected {
    /// From begin to end.
    pub(super) seconds: f64,
    /// Candidates that are evaluated.
    pub(super) evaluations: usize,
    /// Candidates that are proposed.
    pub(super) candidates: usize,
    pub(super) proposal_seconds: f64,
    pub(super) parts: usize,
    pub(super) part_seconds: f64,
    /// Rungs, repeats and longer ones each count.
    pub(super) trainings: usize,
    /// Of all of them, one after the other.
    pub(super) training_seconds: f64,
    pub(super) wholes: usize,
    pub(super) whole_seconds: f64,
    /// The shortest and the longest of the rehearsals.
    pub(super) seconds_between: [f64; 2],
    /// Checkpoints, the database and its log, at the most.
    pub(super) disk_bytes: u64,
    /// The least and the most of the rehearsals.
    pub(super) disk_bytes_between: [u64; 2],
    /// Whether the budget of hours ends it.
    pub(super) is_cut: bool,
    #[serde(skip)]
    pub(super) asked: Asked,
}

/// Bytes of a candidate's rows in the database, curve included.
const ROW_BYTES: u64 = 4096;

/// Bytes of a database without candidates, and of SQLite's log beside it: 1000 pages of 4 KiB before they go into the file.
const DATABASE_BYTES: u64 = 300_000 + 1000 * 4096;

/// Of the weights alone, for each parameter.
const WEIGHT_BYTES: f64 = 4.0;

/// What is under way, by the time of its end.
struct Ahead {
    at: f64,
    event: Event,
}

impl Expected {
    /// The mean of some, of which there is one at least.
    pub(super) fn mean(all: &[Self]) -> Self {
        let n = all.len().max(1) as f64;
        let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / n;
        let count = |of: fn(&Self) -> f64| mean(of).round() as usize;
        let between = |of: fn(&Self) -> f64| {
            let ends = |ends: [f64; 2], of: f64| [ends[0].min(of), ends[1].max(of)];
            all.iter().map(of).fold([f64::INFINITY, 0.0], ends)
        };
        Self {
            seconds: mean(|of| of.seconds),
            seconds_between: between(|of| of.seconds),
            evaluations: count(|of| of.evaluations as f64),
            candidates: count(|of| of.candidates as f64),
            proposal_seconds: mean(|of| of.proposal_seconds),
            parts: count(|of| of.parts as f64),
            part_seconds: mean(|of| of.part_seconds),
            trainings: count(|of| of.trainings as f64),
            training_seconds: mean(|of| of.training_seconds),
            wholes: count(|of| of.wholes as f64),
            whole_seconds: mean(|of| of.whole_seconds),
            disk_bytes: mean(|of| of.disk_bytes as f64) as u64,
            disk_bytes_between: between(|of| of.disk_bytes as f64).map(|bytes| bytes as u64),
            is_cut: mean(|of| f64::from(u8::from(of.is_cut))) >= 0.5,
            asked: Asked::default(),
        }
    }
}

/// Goes through the campaign of `job` from its beginning. `guess`: of which mixers are good.
pub(super) fn rehearse(
    job: &Job<Space>,
    profilers: &[Hello],
    latencies: Vec<LatencyEntry>,
    rates: &Rates,
    guess: u32,
) -> Expected {
    let mut settings = job.settings.clone();
    targets::settle(&job.targets, profilers, &mut settings);
    let gpus = Gpus::here();
    let on_cpu = |hello: &Hello| Hello { device: Platform::Cpu.hardware("here"), ..hello.clone() };
    let trainer = profilers.iter().take(1).map(on_cpu);
    let trainers: Vec<Hello> = trainer.cycle().take(job.trainers as usize).collect();
    let seats = gpus.seats(&job.trainer.introduction, &job.timed_devices(), &trainers);
    let timed = job.targets.iter().zip(profilers);
    let timed: Vec<Seat> =
        timed.map(|(target, hello)| gpus.seat_of_profiler(target.device(), hello)).collect();
    let is_shared = |timed: &&Seat| seats.iter().any(|seat| seat.is_shared(timed, &gpus));
    settings.quiet = Quiet {
        from_training: timed.iter().filter(is_shared).map(|of| of.device.clone()).collect(),
        by_turns: by_turns(&timed),
    };
    let here = targets::started(&job.targets, profilers);
    let mut at_once: BTreeMap<String, u32> = BTreeMap::new();
    for (_, hello) in here {
        *at_once.entry(hello.device.clone()).or_default() += 1;
    }
    let reported: Vec<&str> = settings
        .objectives
        .iter()
        .map(Objective::name)
        .chain(settings.limits.names())
        .filter(|name| {
            let known = Metric::of(name).map(|(metric, _)| metric.facts().known);
            !matches!(known, Some(Known::Formula | Known::Timing))
        })
        .collect();
    let mut pretender = Pretender {
        rates,
        guess,
        reported: reported.into_iter().map(str::to_owned).collect(),
        tokens: settings.tokens,
        kernels: profilers.first().and_then(|of| of.kernels.clone()).unwrap_or_default(),
        expected: Expected::default(),
        kept: BTreeMap::new(),
    };
    let history = History { candidates: Vec::new(), latencies };
    let mut campaign = Campaign::new(settings, job.space.clone(), job.proposer.clone(), history);
    let (mut clock, mut ahead) = (rates.start_seconds, Vec::<Ahead>::new());
    let mut deadline = job.deadline_seconds();
    let mut event = Event::Workers { trainers: job.trainers, profilers: at_once };
    loop {
        let begin = Instant::now();
        let commands = campaign.handle(event);
        let thought = begin.elapsed().as_secs_f64();
        pretender.expected.proposal_seconds += thought;
        clock += thought;
        let mut is_over = false;
        for command in commands {
            match command {
                Command::Send(request) => {
                    let is_training = |of: &&Ahead| matches!(of.event, Event::Result(_));
                    let under_way = ahead.iter().filter(is_training).count() as u32;
                    if let Some((seconds, event)) = pretender.answer(request, under_way) {
                        ahead.push(Ahead { at: clock + seconds, event });
                    }
                }
                Command::RemoveCheckpoint(path) => {
                    pretender.kept.remove(&path.to_string_lossy().into_owned());
                }
                Command::RemoveTrunk(path) => {
                    if let Some(bytes) = pretender.kept.get_mut(&*path.to_string_lossy()) {
                        let share = WEIGHT_BYTES / pretender.rates.checkpoint_bytes;
                        *bytes = (*bytes as f64 * share.min(1.0)) as u64;
                    }
                }
                Command::Finish(finish) => {
                    is_over = true;
                    pretender.expected.is_cut = deadline.is_none()
                        && matches!(finish, Finish::Exhausted { .. })
                        && job.deadline_seconds().is_some();
                }
                Command::Save(_) | Command::SaveProgress(_) | Command::SaveLatency(_) => {}
            }
        }
        let next = (0..ahead.len()).min_by(|&a, &b| ahead[a].at.total_cmp(&ahead[b].at));
        let Some(next) = next.filter(|_| !is_over) else { break };
        if let Some(end) = deadline.take_if(|end| *end <= ahead[next].at) {
            clock = clock.max(end);
            event = Event::TimeOver { reason: "the time is over".to_owned() };
            continue;
        }
        let Ahead { at, event: answered } = ahead.swap_remove(next);
        clock = clock.max(at);
        event = answered;
    }
    let mut expected = pretender.expected;
    expected.seconds = clock;
    expected.candidates = campaign.candidates().count();
    let is_done = |state: &CandidateState| *state == CandidateState::Done;
    expected.evaluations = campaign.candidates().filter(|row| is_done(&row.state)).count();
    expected.disk_bytes += DATABASE_BYTES + ROW_BYTES * expected.candidates as u64;
    expected
}

/// A value that sends the search where real ones do: in campaigns of 32 and 140 stacks twice the parameters gained .08 and
/// .12 bits per byte, the best kind of mixer .35 and .6 over the worst, and what neither explains spread by .05 and .13;
/// errors of recall hung on the mixers alone in one of 128. Which kinds are good at what is anybody's guess.
fn pretended(
    name: &str,
    architecture: &Architecture,
    parameters: u64,
    tokens: u64,
    guess: u32,
) -> f64 {
    // FNV-1a
    let sum = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let is_loss = Metric::named(name).is_some_and(|of| of.facts().known != Known::Tasks);
    let first = if is_loss { 0x811c_9dc5 } else { name.bytes().fold(0x811c_9dc5, sum) };
    let guess =
        |text: &str| f64::from((text.bytes().fold(first ^ guess, sum) >> 8) % 1000) / 1000.0;
    let kinds: Vec<f64> = architecture
        .layers()
        .iter()
        .filter_map(|layer| layer.mixer)
        .map(|mixer| guess(mixer.kind().name()))
        .collect();
    let kind = kinds.iter().sum::<f64>() / kinds.len().max(1) as f64;
    let of_stack = 0.5 * kind + 0.2 * guess(architecture.id().as_str());
    if !is_loss {
        return of_stack;
    }
    4.0 - 0.1 * (parameters as f64).log2() + of_stack - (tokens as f64).log2() / 100.0
}

/// Workers that only take their time.
struct Pretender<'a> {
    rates: &'a Rates,
    guess: u32,
    /// The values that trainers report.
    reported: Vec<String>,
    /// Of a full evaluation.
    tokens: u64,
    kernels: String,
    expected: Expected,
    /// Bytes of checkpoints that are kept.
    kept: BTreeMap<String, u64>,
}

impl Pretender<'_> {
    /// How long a request takes beside so many trainings, and what answers it.
    fn answer(&mut self, request: Request, under_way: u32) -> Option<(f64, Event)> {
        Some(match request {
            Request::Measure(measure) => {
                let seconds = self.rates.part(&measure.conditions);
                self.expected.parts += 1;
                self.expected.part_seconds += seconds;
                let key = measure.clone().key();
                // Any time will do that grows with the work.
                let us = 1.0 + cost::part_flops(&key.part, key.conditions.phase) / 1e4;
                self.expected.asked.measures.push(measure.clone());
                (seconds, self.timed(measure.id, us))
            }
            Request::MeasureWhole(measure) => {
                let phase = measure.conditions.phase;
                let seconds = self.rates.whole(&measure.conditions);
                self.expected.wholes += 1;
                self.expected.whole_seconds += seconds;
                let us = 1.0 + cost::flops(&measure.architecture, phase) / 1e4;
                let event = self.timed(measure.id, us);
                self.expected.asked.measures_whole.push(measure);
                (seconds, event)
            }
            Request::Evaluate(evaluate) => self.trained(evaluate, under_way),
            _ => return None,
        })
    }

    fn timed(&self, id: u64, median_us: f64) -> Event {
        Event::Timing(Measured {
            id,
            timing: Timing {
                median_us,
                spread_us: 0.01 * median_us,
                samples: 100,
                other_load: 0.0,
                kernels: self.kernels.clone(),
                millijoules: None,
            },
        })
    }

    fn trained(&mut self, evaluate: Evaluate, under_way: u32) -> (f64, Event) {
        let Evaluate { id, architecture, tokens, resume_from, seed, .. } = evaluate;
        let before = resume_from.as_ref().and_then(|path| {
            path.file_stem()?.to_string_lossy().rsplit('-').next()?.parse::<u64>().ok()
        });
        let steps = tokens.saturating_sub(before.unwrap_or(0));
        let seconds = self.rates.training(Wanted {
            architecture: &architecture,
            tokens: steps,
            is_full: tokens >= self.tokens,
            is_first: before.is_none(),
            at_once: under_way + 1,
        });
        self.expected.trainings += 1;
        self.expected.training_seconds += seconds;
        let parameters = search::tensors::parameters(&architecture);
        let checkpoint = format!("{}-{seed}-{tokens}.safetensors", architecture.id());
        self.kept
            .insert(checkpoint.clone(), (self.rates.checkpoint_bytes * parameters as f64) as u64);
        let kept: u64 = self.kept.values().sum();
        self.expected.disk_bytes = self.expected.disk_bytes.max(kept);
        let value = |name: &String| {
            let mean = pretended(name, &architecture, parameters, tokens, self.guess);
            Value { mean, standard_error: Some(0.005) }
        };
        let values = self.reported.iter().map(|name| (name.clone(), value(name))).collect();
        self.expected.asked.trained.push(architecture);
        let evaluation = Evaluation {
            id,
            values,
            parameters,
            tokens,
            seconds,
            checkpoint: Some(checkpoint.into()),
            unsaved: None,
            curve: Vec::new(),
            retrieval: Vec::new(),
            parts: BTreeMap::new(),
        };
        (seconds, Event::Result(evaluation))
    }
}
