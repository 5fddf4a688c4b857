//! Training a proxy: initialise or resume, step by step, validate, save.

use std::path::Path;

use operators::Model;
use search::Architecture;
use search::config::TrainingConfig;
use search::device::Device;
use search::tensors::TensorSpec;
use tch::Tensor;

use crate::checkpoint::{self, Origin};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::rule::{NUMBER, Rule, factors};
use crate::sampler::Sampler;
use crate::schedule::{Schedule, steps_of, tokens_per_step};
use crate::validation::{self, Validation, Windows, inputs_and_targets};

/// Points of a reported curve, at most.
const CURVE_POINTS: u64 = 128;

/// A proxy in training.
#[derive(Debug)]
pub struct Training<'a> {
    corpus: &'a Corpus,
    config: &'a TrainingConfig,
    architecture: Architecture,
    seed: u64,
    learner: Learner,
    sampler: Sampler,
    /// What came of the tasks beside it, for those who resume it.
    tasks: Option<String>,
}

impl<'a> Training<'a> {
    /// A fresh proxy; the same seed gives the same one. `architecture` is what is trained, at its scale.
    ///
    /// # Errors
    /// When a setting is impossible, the corpus does not suit the architecture, or libtorch cannot build the model.
    pub fn new(
        architecture: Architecture,
        corpus: &'a Corpus,
        config: &'a TrainingConfig,
        seed: u64,
    ) -> Result<Self> {
        let of_stack = architecture.clone();
        let rule = |spec: &TensorSpec| factors(spec, &of_stack);
        Self::with_rule(architecture, corpus, config, seed, &rule)
    }

    /// The same under another rule.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_rule(
        architecture: Architecture,
        corpus: &'a Corpus,
        config: &'a TrainingConfig,
        seed: u64,
        rule: Rule<'_>,
    ) -> Result<Self> {
        corpus.check(config.sequence_length, architecture.vocab())?;
        let learner = Learner::with_rule(&architecture, config, seed, rule)?;
        Ok(Self {
            corpus,
            config,
            architecture,
            seed,
            learner,
            sampler: Sampler::new(seed, corpus.train.len(), u64::from(config.sequence_length)),
            tasks: None,
        })
    }

    /// Has it finished, with a decay of the learning rate, at `tokens`: a rung, or beyond the whole. To be called before it
    /// is trained past [`Self::decay_from`].
    pub fn finish_at(&mut self, tokens: u64) {
        self.learner.schedule = Schedule::new(self.config, tokens);
    }

    /// The step that the decay begins with. Up to there it is the same training wherever it is finished.
    pub fn decay_from(&self) -> u64 {
        self.learner.schedule.decay_from()
    }

    /// Goes on from what [`Self::save_trunk`] left beside a checkpoint of the same training: the curve from there on is the
    /// one of an uninterrupted training.
    ///
    /// # Errors
    /// When it is not readable or of another training.
    pub fn resume(&mut self, path: &Path) -> Result<()> {
        let trunk = checkpoint::load(path, &self.origin(), &mut self.learner.optimizer)?;
        if trunk.losses.len() as u64 != trunk.step {
            let problem = format!("it has {} losses of {} steps", trunk.losses.len(), trunk.step);
            return Err(Error::Checkpoint { path: path.to_owned(), problem });
        }
        self.learner.losses = trunk.losses;
        self.tasks = trunk.tasks;
        Ok(())
    }

    /// What came of the tasks beside it, as whoever began this training left it in the trunk.
    pub fn tasks(&self) -> Option<&str> {
        self.tasks.as_deref()
    }

    /// Has it in every trunk from here on.
    pub fn keep_tasks(&mut self, tasks: String) {
        self.tasks = Some(tasks);
    }

    /// Writes the weights.
    ///
    /// # Errors
    /// When the file cannot be written; it is not left half written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let divided_logits = self.config.weight_normalisation;
        checkpoint::save(path, &self.origin(), divided_logits, &self.learner.optimizer)
    }

    /// Writes what a longer training goes on from, beside the weights at `path`.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_trunk(&self, path: &Path) -> Result<()> {
        let Learner { optimizer, losses, .. } = &self.learner;
        checkpoint::save_trunk(path, &self.origin(), optimizer, losses, self.tasks.as_deref())
    }

    /// One optimiser step. Returns its loss, nats per token.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub fn step(&mut self) -> Result<f64> {
        let (step, batch) = (self.steps(), u64::from(self.config.batch));
        let starts: Vec<u64> =
            (step * batch..(step + 1) * batch).map(|index| self.sampler.start(index)).collect();
        let windows =
            self.corpus.train.windows(&starts, u64::from(self.config.sequence_length) + 1);
        let (inputs, targets) = inputs_and_targets(&windows);
        self.learner.step(&inputs, &targets)
    }

    /// The loss on held-out text; `stop` is asked between batches.
    ///
    /// # Errors
    /// When the loss is not finite, or `stop` says so.
    pub fn validate(&self, stop: &dyn Fn() -> bool) -> Result<Validation> {
        let found = self.validate_on(Windows::Validation, 1, stop)?;
        Ok(found.expect("a corpus that can be trained on has a window to validate on"))
    }

    /// The loss on the held-out text that nothing selects on; none where there is too little of it.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub fn test(&self, stop: &dyn Fn() -> bool) -> Result<Option<Validation>> {
        self.validate_on(Windows::Test, 1, stop)
    }

    /// The loss on sequences that are `times` as long as those trained on; none where the held-out text is too short.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub fn validate_longer(
        &self,
        times: u32,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Validation>> {
        self.validate_on(Windows::Validation, times, stop)
    }

    fn validate_on(
        &self,
        windows: Windows,
        times: u32,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Validation>> {
        let (model, vocab) = (&self.learner.model, self.architecture.vocab());
        let which = (windows, times);
        validation::validate(model, self.corpus, self.config, vocab, which, self.steps(), stop)
    }

    /// Up to `sequences` sequences of held-out text, `[B, T]`.
    pub fn held_out(&self, sequences: i64) -> Tensor {
        validation::held_out(self.corpus, u64::from(self.config.sequence_length), sequences as u64)
    }

    /// Optimiser steps done.
    pub fn steps(&self) -> u64 {
        self.learner.steps()
    }

    /// Tokens seen.
    pub fn tokens(&self) -> u64 {
        self.steps() * tokens_per_step(self.config)
    }

    /// Tokens of one step.
    pub fn tokens_per_step(&self) -> u64 {
        tokens_per_step(self.config)
    }

    /// Steps after which at least `tokens` have been seen.
    pub fn steps_for(&self, tokens: u64) -> u64 {
        steps_of(self.config, tokens)
    }

    /// Loss of every step so far, nats per token.
    pub fn losses(&self) -> &[f32] {
        &self.learner.losses
    }

    /// The training loss against tokens, each point the mean of the steps since the one before.
    pub fn curve(&self) -> Vec<(u64, f64)> {
        // By the whole training, not by what is done of it, so that the points of a rung are points of the next.
        let stride = steps_of(self.config, self.config.tokens).div_ceil(CURVE_POINTS).max(1);
        self.learner
            .losses
            .chunks(stride as usize)
            .enumerate()
            .map(|(index, chunk)| {
                let steps = index as u64 * stride + chunk.len() as u64;
                let mean =
                    chunk.iter().map(|&loss| f64::from(loss)).sum::<f64>() / chunk.len() as f64;
                (steps * tokens_per_step(self.config), mean)
            })
            .collect()
    }

    /// The model, for whoever asks it something else than its loss.
    pub fn model(&self) -> &Model {
        &self.learner.model
    }

    fn origin(&self) -> Origin {
        Origin {
            architecture: self.architecture.to_string(),
            seed: self.seed,
            settings: settled(self.config),
            rule: NUMBER,
            corpus_tokens: self.corpus.train.len(),
            step: self.steps(),
        }
    }
}

/// The settings that make a training what it is, as checkpoints have them.
fn settled(config: &TrainingConfig) -> String {
    // These change nothing of the curve but its last bits.
    let settings = TrainingConfig {
        threads: 0,
        validation_tokens: 0,
        longer_contexts: Vec::new(),
        device: Device::Cpu,
        ..config.clone()
    };
    serde_json::to_string(&settings).expect("plain numbers serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_is_the_same_wherever_it_runs() {
        let here = TrainingConfig { threads: 3, ..TrainingConfig::default() };
        let there = TrainingConfig { device: Device::Cuda(Some(1)), ..here.clone() };
        assert_eq!(settled(&here), settled(&there));
        let other = TrainingConfig { batch: 1 + here.batch, ..here.clone() };
        assert_ne!(settled(&here), settled(&other));
    }
}
