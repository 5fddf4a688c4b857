//! What a candidate makes of the generated tasks, each learnt from the start by a model of its layers.

use std::collections::BTreeMap;

use search::Architecture;
use search::config::{TaskConfig, TrainingConfig};
use search::metric::Metric;
use search::wire::{LayerRetrieval, Value};
use serde::{Deserialize, Serialize};

use super::meter::Meter;
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::retrieval::{SEQUENCES, retrieval};
use crate::schedule::{steps_of, tokens_per_step};
use crate::tasks::{self, Score, Task};
use crate::training::Training;

/// What is to be learnt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lesson<'a> {
    pub(super) tasks: &'a [Task],
    /// The campaign's, for what tasks do not say themselves.
    pub(super) training: &'a TrainingConfig,
    /// Of each task's tokens.
    pub(super) share: f64,
}

/// What came of it, and as JSON what the trunk of a training on text keeps of that.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Learnt {
    tasks: Vec<TaskConfig>,
    pub(super) values: BTreeMap<String, Value>,
    /// Of the first task; the text's own stands in its place.
    #[serde(skip)]
    pub(super) retrieval: Vec<LayerRetrieval>,
}

impl Lesson<'_> {
    /// Tokens of all trainings.
    pub(super) fn tokens(&self) -> u64 {
        let of =
            |config: TrainingConfig| steps_of(&config, config.tokens) * tokens_per_step(&config);
        self.tasks.iter().map(|task| of(self.config(task))).sum()
    }

    pub(super) fn learn(
        &self,
        architecture: &Architecture,
        seed: u64,
        stop: &dyn Fn() -> bool,
        meter: &mut Meter<'_>,
    ) -> Result<Learnt> {
        let mut learnt = Learnt {
            tasks: self.tasks.iter().map(|task| task.config().clone()).collect(),
            ..Learnt::default()
        };
        let mut base = Vec::new();
        for task in self.tasks {
            let learner = self.train(task, architecture, seed, stop, meter)?;
            let scores = scores(task, &learner, seed, stop)?;
            if learnt.retrieval.is_empty() {
                let (inputs, _) = task.test_batch(seed, SEQUENCES as u64);
                let (layers, best) = retrieval(learner.model(), &inputs);
                learnt.retrieval = layers;
                learnt.values.insert(Metric::RetrievalSnr.name().to_owned(), best);
            }
            base.push((task.config(), scores[0]));
            learnt.values.extend(tasks::values(task.config(), &scores));
        }
        learnt.values.extend(tasks::weighted_error(&base));
        Ok(learnt)
    }

    fn train(
        &self,
        task: &Task,
        architecture: &Architecture,
        seed: u64,
        stop: &dyn Fn() -> bool,
        meter: &mut Meter<'_>,
    ) -> Result<Learner> {
        let config = self.config(task);
        let mut learner = Learner::new(&task.architecture(architecture)?, &config, seed)?;
        for step in 0..steps_of(&config, config.tokens) {
            if stop() {
                return Err(Error::Stopped);
            }
            let (inputs, targets) = task.batch(seed, step);
            let loss = learner.step(&inputs, &targets)?;
            meter.step(tokens_per_step(&config), loss);
        }
        Ok(learner)
    }

    fn config(&self, task: &Task) -> TrainingConfig {
        let full = task.training(self.training);
        TrainingConfig { tokens: ((full.tokens as f64 * self.share) as u64).max(1), ..full }
    }
}

/// The score at training length, then those at the longer ones.
fn scores(
    task: &Task,
    learner: &Learner,
    seed: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Score>> {
    std::iter::once(1)
        .chain(task.config().extrapolate.iter().copied())
        .map(|multiple| task.score(learner, seed, multiple, stop))
        .collect()
}

impl Learnt {
    /// What an earlier part of this training has of the same tasks; nothing is to be learnt where there are none.
    pub(super) fn of(training: &Training<'_>, tasks: &[Task]) -> Option<Self> {
        if tasks.is_empty() {
            return Some(Self::default());
        }
        let known: Self = serde_json::from_str(training.tasks()?).ok()?;
        let is_same = known.tasks.iter().eq(tasks.iter().map(Task::config));
        is_same.then_some(known)
    }

    /// As [`Self::of`] reads it.
    pub(super) fn kept(&self) -> String {
        serde_json::to_string(self).expect("names and numbers serialise")
    }
}
