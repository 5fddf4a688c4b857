//! Generated tasks that tell mixers apart in minutes: recall, copying, state tracking. Each is a stream of examples that
//! is a function of its seed; the last of a training sequence never is one of a test.

mod mqar;
mod noisy_recall;
mod parity;
mod permutations;
mod selective_copying;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use search::Architecture;
use search::config::{LearningRate, TASKS_ERROR, TaskConfig, TaskKind, TrainingConfig};
use search::wire::Value;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::learner::{IGNORED, Learner};
use crate::sampler::mix;
use crate::schedule::base_rate;
use permutations::Permutations;

/// One sequence: what is read, and for some positions what must be said there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// `[T]`
    pub inputs: Vec<u32>,
    /// `[T]`; none where nothing is asked.
    pub targets: Vec<Option<u32>>,
}

impl Example {
    /// All of one token, nothing asked.
    fn blank(length: usize, token: u32) -> Self {
        Self { inputs: vec![token; length], targets: vec![None; length] }
    }
}

/// A task at its difficulty.
#[derive(Debug)]
pub struct Task {
    config: TaskConfig,
    group: Option<Permutations>,
}

/// Which stream of examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// To learn from.
    Training,
    /// To be asked.
    Test,
}

/// How well a trained model does at one length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// The length, as a multiple of the training's.
    pub multiple: u32,
    /// Part of the positions asked about that are right.
    pub accuracy: f64,
    /// Of `accuracy`, from the spread over sequences.
    pub standard_error: f64,
}

/// Sequences that tell how much of a task is asked about.
const ASKED_SEQUENCES: u64 = 64;

/// Sequences of a test batch have at most this many tokens together.
const TEST_BATCH_TOKENS: usize = 8192;

impl Task {
    /// `config` has been checked with the campaign file.
    pub fn new(config: TaskConfig) -> Self {
        let group = match config.kind {
            TaskKind::S3 => Some(Permutations::new(3)),
            TaskKind::S5 => Some(Permutations::new(5)),
            TaskKind::Mqar
            | TaskKind::SelectiveCopying
            | TaskKind::NoisyRecall
            | TaskKind::Parity => None,
        };
        Self { config, group }
    }

    /// The difficulty.
    pub fn config(&self) -> &TaskConfig {
        &self.config
    }

    /// Tokens there are, answers included.
    pub fn vocab(&self) -> u32 {
        let c = &self.config;
        match c.kind {
            TaskKind::Mqar => mqar::vocab(c),
            TaskKind::SelectiveCopying => selective_copying::vocab(c),
            TaskKind::NoisyRecall => noisy_recall::vocab(c),
            TaskKind::S3 | TaskKind::S5 => self.group.as_ref().map_or(0, Permutations::order),
            TaskKind::Parity => parity::VOCAB,
        }
    }

    /// The `index`-th sequence of a part, of `length` tokens.
    pub fn example(&self, seed: u64, part: Part, index: u64, length: usize) -> Example {
        let part = match part {
            Part::Training => 0,
            Part::Test => 1,
        };
        let seed = mix(mix(mix(seed) ^ part) ^ index);
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let c = &self.config;
        match c.kind {
            TaskKind::Mqar => mqar::example(c, rng, length),
            TaskKind::SelectiveCopying => selective_copying::example(c, rng, length),
            TaskKind::NoisyRecall => noisy_recall::example(c, rng, length),
            TaskKind::S3 | TaskKind::S5 => {
                self.group.as_ref().expect("group tasks have one").example(rng, length)
            }
            TaskKind::Parity => parity::example(rng, length),
        }
    }

    /// The model that learns this: the layers of `architecture` with the task's vocabulary.
    ///
    /// # Errors
    /// Never for an architecture that exists; the type does not show it.
    pub fn architecture(&self, architecture: &Architecture) -> Result<Architecture> {
        let layers = architecture.layers().to_vec();
        Architecture::new(
            architecture.d_model(),
            self.vocab(),
            architecture.tied_embeddings(),
            layers,
        )
        .and_then(|model| model.with_meta_tokens(architecture.meta_tokens()))
        .map_err(|problem| Error::Task {
            name: self.config.name().to_owned(),
            problem: problem.to_string(),
        })
    }

    /// The settings it is trained with: its own, the campaign's for the rest. "auto" is the rate of a text with as many tokens
    /// of a step as this task asks about: the noise of the gradient, which it goes by, is of those that have a loss.
    pub fn training(&self, campaign: &TrainingConfig) -> TrainingConfig {
        let c = &self.config;
        let own = TrainingConfig {
            tokens: c.tokens,
            batch: c.batch,
            sequence_length: c.sequence_length,
            learning_rate: c.learning_rate,
            // of its own tokens
            warmup_tokens: None,
            ..campaign.clone()
        };
        let rate = match c.learning_rate {
            LearningRate::Base(rate) => rate,
            LearningRate::Auto => base_rate(&own) * self.asked_part().sqrt(),
        };
        TrainingConfig { learning_rate: LearningRate::Base(rate), ..own }
    }

    /// Positions that are asked about over all, of a few sequences to learn from.
    fn asked_part(&self) -> f64 {
        let length = self.config.sequence_length as usize;
        let asked = |index| {
            let example = self.example(0, Part::Training, index, length);
            example.targets.iter().flatten().count()
        };
        let all: usize = (0..ASKED_SEQUENCES).map(asked).sum();
        all.max(1) as f64 / (ASKED_SEQUENCES as usize * length) as f64
    }

    /// Inputs and targets of a training step, both `[B, T]`.
    pub fn batch(&self, seed: u64, step: u64) -> (Tensor, Tensor) {
        let batch = u64::from(self.config.batch);
        let indices = step * batch..(step + 1) * batch;
        let length = self.config.sequence_length as usize;
        tensors(indices.map(|index| self.example(seed, Part::Training, index, length)))
    }

    /// Inputs and targets of the first `sequences` of the test, both `[B, T]`.
    pub fn test_batch(&self, seed: u64, sequences: u64) -> (Tensor, Tensor) {
        let length = self.config.sequence_length as usize;
        tensors((0..sequences).map(|index| self.example(seed, Part::Test, index, length)))
    }

    /// Accuracy on the test at `multiple` times the training length.
    ///
    /// # Errors
    /// When `stop` says so.
    pub fn score(
        &self,
        learner: &Learner,
        seed: u64,
        multiple: u32,
        stop: &dyn Fn() -> bool,
    ) -> Result<Score> {
        let trained = self.config.sequence_length as usize;
        let length = trained * multiple as usize;
        // What a state that was tracked for the training length says before its end is no test of more.
        let from = if multiple > 1 && self.asks_everywhere() { trained } else { 0 };
        let batch = (TEST_BATCH_TOKENS / length).max(1) as u64;
        let sequences = u64::from(self.config.test_sequences);
        let mut accuracies = Vec::new();
        for first in (0..sequences).step_by(batch as usize) {
            if stop() {
                return Err(Error::Stopped);
            }
            let indices = first..(first + batch).min(sequences);
            let (inputs, targets) =
                tensors(indices.map(|index| self.example(seed, Part::Test, index, length)));
            accuracies.extend(accuracies_of(learner, &inputs, &targets, from as i64)?);
        }
        // A sequence of noisy recall may ask nothing.
        let n = accuracies.len().max(1) as f64;
        let accuracy = accuracies.iter().sum::<f64>() / n;
        let variance =
            accuracies.iter().map(|x| (x - accuracy).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        Ok(Score { multiple, accuracy, standard_error: (variance / n).sqrt() })
    }

    fn asks_everywhere(&self) -> bool {
        matches!(self.config.kind, TaskKind::S3 | TaskKind::S5 | TaskKind::Parity)
    }
}

/// Of each sequence that asks something, among the positions from `from` on that are asked about.
fn accuracies_of(
    learner: &Learner,
    inputs: &Tensor,
    targets: &Tensor,
    from: i64,
) -> Result<Vec<f64>> {
    let answers = tch::no_grad(|| learner.model().forward(inputs))
        .argmax(-1, false)
        .to_device(tch::Device::Cpu); // [B, T]
    let rest = targets.size()[1] - from;
    let (answers, targets) = (answers.narrow(1, from, rest), targets.narrow(1, from, rest));
    let right = answers.eq_tensor(&targets).sum_dim_intlist(1, false, Kind::Double);
    let asked = targets.not_equal(IGNORED).sum_dim_intlist(1, false, Kind::Double);
    let (right, asked) = (Vec::<f64>::try_from(right)?, Vec::<f64>::try_from(asked)?);
    Ok(right
        .into_iter()
        .zip(asked)
        .filter(|(_, asked)| *asked > 0.0)
        .map(|(right, asked)| right / asked)
        .collect())
}

/// `[B, T]` each.
fn tensors(examples: impl Iterator<Item = Example>) -> (Tensor, Tensor) {
    let (mut inputs, mut targets, mut count) = (Vec::new(), Vec::new(), 0);
    for example in examples {
        inputs.extend(example.inputs.into_iter().map(i64::from));
        targets.extend(example.targets.into_iter().map(|target| target.map_or(IGNORED, i64::from)));
        count += 1;
    }
    (Tensor::from_slice(&inputs).view([count, -1]), Tensor::from_slice(&targets).view([count, -1]))
}

/// The values of a task's scores, by the names of [`TaskConfig::value_names`].
pub(crate) fn values(config: &TaskConfig, scores: &[Score]) -> Vec<(String, Value)> {
    let value = |mean, score: &Score| Value { mean, standard_error: Some(score.standard_error) };
    scores
        .iter()
        .flat_map(|score| {
            let name = |measure| config.value_name(score.multiple, measure);
            [
                (name("accuracy"), value(score.accuracy, score)),
                (name("error"), value(1.0 - score.accuracy, score)),
            ]
        })
        .collect()
}

/// The weighted mean of the errors at training length; none without a weight.
pub(crate) fn weighted_error(scores: &[(&TaskConfig, Score)]) -> Option<(String, Value)> {
    let weights: f64 = scores.iter().map(|(config, _)| config.weight).sum();
    let share = |config: &TaskConfig| config.weight / weights;
    let mean = scores.iter().map(|(config, score)| share(config) * (1.0 - score.accuracy)).sum();
    let variance: f64 =
        scores.iter().map(|(config, score)| (share(config) * score.standard_error).powi(2)).sum();
    (weights > 0.0)
        .then(|| (TASKS_ERROR.to_owned(), Value { mean, standard_error: Some(variance.sqrt()) }))
}
