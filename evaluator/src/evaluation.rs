//! One evaluation: from an architecture at target scale to the values that the search compares.

mod lesson;
mod meter;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use search::Architecture;
use search::config::TrainingConfig;
use search::metric::Metric;
use search::tensors::{TensorSpec, tensors};
use search::wire::{Evaluate, Evaluation, Progress, Value};

use crate::checkpoint::trunk_path;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::retrieval::{SEQUENCES, retrieval};
use crate::scale::scaled;
use crate::tasks::Task;
use crate::training::Training;
use crate::validation::Validation;

use lesson::{Learnt, Lesson};
use meter::Meter;

/// What every candidate of a campaign is trained on.
#[derive(Debug, Clone, Copy)]
pub struct Proxies<'a> {
    /// The text; none if there are only tasks.
    pub corpus: Option<&'a Corpus>,
    /// Each learnt by a model of its own.
    pub tasks: &'a [Task],
    /// How.
    pub training: &'a TrainingConfig,
    /// Where checkpoints go; none: nowhere.
    pub checkpoints: Option<&'a Path>,
    /// How often a training keeps what it goes on from should its process be killed; less often where keeping it takes long.
    pub kept_every: Duration,
}

/// How often that is: a kill repeats a minute.
pub const KEPT_EVERY: Duration = Duration::from_mins(1);
/// A training takes at least so many times as long as keeping what it goes on from.
const KEPT_SHARE: u32 = 20;

/// Trains and validates what `request` asks for. `stop` is asked between steps, `progress` hears how it goes.
/// The checkpoint carries the name of the architecture, the seed and the tokens.
///
/// # Errors
/// When the request cannot be done, or failed; [`Error::is_infeasible`] tells the two apart.
pub fn evaluate(
    request: &Evaluate,
    proxies: Proxies<'_>,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Evaluation> {
    let began = Instant::now();
    let architecture = scaled(&request.architecture, proxies.training.width_scale)?;
    let mut evaluation = Evaluation {
        id: request.id,
        values: BTreeMap::new(),
        parameters: tensors(&architecture).iter().map(TensorSpec::elements).sum(),
        tokens: 0,
        seconds: 0.0,
        checkpoint: None,
        unsaved: None,
        parts: BTreeMap::new(),
        curve: Vec::new(),
        retrieval: Vec::new(),
    };
    let text = match proxies.corpus {
        Some(corpus) => Some(Text::begin(request, &architecture, corpus, proxies)?),
        None => None,
    };
    let known = text.as_ref().and_then(|text| Learnt::of(&text.training, proxies.tasks));
    // Beside a text a task is learnt once, whole, and longer trainings carry what came of it. Where tasks are all, a rung is
    // a share of each, learnt anew.
    let all: u64 = proxies.tasks.iter().map(|task| task.config().tokens).sum();
    let share = if text.is_some() { 1.0 } else { request.tokens as f64 / all.max(1) as f64 };
    let lesson = Lesson { tasks: proxies.tasks, training: proxies.training, share };
    let mut meter = Meter::new(request.id, progress);
    if known.is_none() {
        meter.expect(lesson.tokens());
    }
    if let Some(text) = &text {
        meter.resume(text.training.tokens(), text.tokens_left(request));
    }
    let learnt = match known {
        Some(known) => known,
        None => lesson.learn(&architecture, request.seed, stop, &mut meter)?,
    };
    let kept = learnt.kept();
    evaluation.values.extend(learnt.values);
    evaluation.retrieval = learnt.retrieval;
    if let Some(mut text) = text {
        if !proxies.tasks.is_empty() {
            text.training.keep_tasks(kept);
        }
        text.finish(request, proxies, stop, &mut meter, &mut evaluation)?;
    }
    if proxies.corpus.is_none() {
        evaluation.tokens = meter.tokens;
    }
    evaluation.seconds = began.elapsed().as_secs_f64();
    Ok(evaluation)
}

/// The training on text.
struct Text<'a> {
    corpus: &'a Corpus,
    training: Training<'a>,
    /// Where its checkpoint goes.
    path: Option<PathBuf>,
    unfinished: Unfinished,
}

impl<'a> Text<'a> {
    /// From the beginning, or from where an earlier training of it came to.
    fn begin(
        request: &Evaluate,
        architecture: &Architecture,
        corpus: &'a Corpus,
        proxies: Proxies<'a>,
    ) -> Result<Self> {
        let new = || Training::new(architecture.clone(), corpus, proxies.training, request.seed);
        let mut training = new()?;
        let place = |end: &str| {
            let (id, seed, tokens) = (request.architecture.id(), request.seed, request.tokens);
            proxies
                .checkpoints
                .map(|folder| folder.join(format!("{id}-seed{seed}-{tokens}{end}.safetensors")))
        };
        let unfinished = Unfinished::new(place("-going"), proxies.kept_every);
        let is_first = request.attempt == 1;
        let is_there = |path: &&PathBuf| is_first && trunk_path(path).is_file();
        // What this very training left when its process was killed, else what a rung before it left.
        for from in [unfinished.path.as_ref().filter(is_there), request.resume_from.as_ref()] {
            let Some(from) = from else { continue };
            match training.resume(from) {
                Ok(()) => break,
                Err(error @ Error::Checkpoint { .. }) => {
                    // The way is longer, the result the same.
                    eprintln!("deltafront-train: {error}: it is trained from the beginning");
                    training = new()?;
                }
                Err(error) => return Err(error),
            }
        }
        training.finish_at(request.tokens);
        Ok(Self { corpus, training, path: place(""), unfinished })
    }

    fn tokens_left(&self, request: &Evaluate) -> u64 {
        let last = self.training.steps_for(request.tokens);
        last.saturating_sub(self.training.steps()) * self.training.tokens_per_step()
    }

    /// Trains it to its end and says what came of it.
    fn finish(
        self,
        request: &Evaluate,
        proxies: Proxies<'_>,
        stop: &dyn Fn() -> bool,
        meter: &mut Meter<'_>,
        evaluation: &mut Evaluation,
    ) -> Result<()> {
        let Self { corpus, mut training, path, mut unfinished } = self;
        // A trained value is not thrown away because its weights cannot be kept.
        let mut saved = Ok(());
        let last = training.steps_for(request.tokens);
        while training.steps() < last {
            if stop() {
                unfinished.keep(&training, Duration::ZERO);
                return Err(Error::Stopped);
            }
            if let Some(path) = &path
                && training.steps() == training.decay_from()
            {
                saved = training.save_trunk(path);
            }
            let loss = training.step().inspect_err(|_| unfinished.remove())?;
            meter.step(training.tokens_per_step(), loss);
            unfinished.keep(&training, unfinished.every);
        }
        let validation = training.validate(stop)?;
        evaluation.values.extend(values(&validation, corpus));
        evaluation.parts = parts(&validation, corpus);
        // What is reported of the finished training alone: it costs time, and a rung is for choosing.
        if request.tokens >= proxies.training.tokens {
            let (unit, factor) = unit(corpus);
            let mut report = |name: String, found: Option<Validation>| {
                if let Some(found) = found {
                    evaluation.values.insert(name, scaled_by(&found, factor));
                }
            };
            report(format!("test_{unit}"), training.test(stop)?);
            for &times in &proxies.training.longer_contexts {
                report(format!("{unit}_x{times}"), training.validate_longer(times, stop)?);
            }
        }
        evaluation.tokens = training.tokens();
        evaluation.curve = training.curve();
        let (layers, best) = retrieval(training.model(), &training.held_out(SEQUENCES));
        evaluation.retrieval = layers;
        evaluation.values.insert(Metric::RetrievalSnr.name().to_owned(), best);
        if let Some(path) = path {
            match saved.and_then(|()| training.save(&path)) {
                Ok(()) => evaluation.checkpoint = Some(path),
                Err(error) => evaluation.unsaved = Some(error.to_string()),
            }
        }
        unfinished.remove();
        Ok(())
    }
}

/// What a training under way goes on from should its process be killed.
struct Unfinished {
    /// Beside which path it lies.
    path: Option<PathBuf>,
    every: Duration,
    kept_at: Instant,
}

impl Unfinished {
    fn new(path: Option<PathBuf>, every: Duration) -> Self {
        Self { path, every, kept_at: Instant::now() }
    }

    /// Keeps it if that was done longer ago than this.
    fn keep(&mut self, training: &Training<'_>, ago: Duration) {
        let Some(path) = &self.path else { return };
        if self.kept_at.elapsed() < ago {
            return;
        }
        let begin = Instant::now();
        if let Err(error) = training.save_trunk(path) {
            // It would be gone on from after a kill alone.
            eprintln!("deltafront-train: {error}: a kill would begin this training anew");
            self.path = None;
        }
        self.every = self.every.max(KEPT_SHARE * begin.elapsed());
        self.kept_at = Instant::now();
    }

    fn remove(&self) {
        if let Some(path) = &self.path {
            // What cannot be removed costs room, nothing else.
            let _ = std::fs::remove_file(trunk_path(path));
        }
    }
}

/// `validation_loss` in nats per token, and `bits_per_byte`, or `bits_per_token` if the bytes are unknown.
pub(crate) fn values(validation: &Validation, corpus: &Corpus) -> BTreeMap<String, Value> {
    let (unit, factor) = unit(corpus);
    BTreeMap::from([
        ("validation_loss".to_owned(), scaled_by(validation, 1.0)),
        (unit.to_owned(), scaled_by(validation, factor)),
    ])
}

/// The loss in bits on parts of the held-out text.
fn parts(validation: &Validation, corpus: &Corpus) -> BTreeMap<String, Vec<f32>> {
    let (unit, factor) = unit(corpus);
    let parts = validation.parts.iter().map(|part| part * factor as f32).collect();
    BTreeMap::from([(unit.to_owned(), parts)])
}

/// The name of the loss in bits, and how many of its units a nat per token is.
pub(crate) fn unit(corpus: &Corpus) -> (&'static str, f64) {
    let bits = std::f64::consts::LN_2.recip();
    match corpus.bytes_per_token() {
        Some(bytes_per_token) => ("bits_per_byte", bits / bytes_per_token),
        None => ("bits_per_token", bits),
    }
}

pub(crate) fn scaled_by(validation: &Validation, factor: f64) -> Value {
    Value {
        mean: validation.loss * factor,
        standard_error: validation.standard_error.map(|error| error * factor),
    }
}
