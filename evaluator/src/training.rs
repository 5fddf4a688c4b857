//! Training a proxy: initialise or resume, step by step, validate, save.

use std::path::Path;

use operators::Model;
use search::Architecture;
use search::config::TrainingConfig;
use tch::nn::VarStore;
use tch::{Device, Reduction};

use crate::checkpoint::{self, Origin};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::optimizer::AdamW;
use crate::sampler::Sampler;
use crate::schedule::{Schedule, steps_of, tokens_per_step};
use crate::validation::{self, Validation};

/// A loss this many times the first one …
const DIVERGED_FACTOR: f64 = 1.5;
/// … for this many steps running will not come back.
const DIVERGED_STEPS: u64 = 32;

/// Points of a reported curve, at most.
const CURVE_POINTS: u64 = 128;

/// A proxy in training.
#[derive(Debug)]
pub struct Training<'a> {
    corpus: &'a Corpus,
    config: &'a TrainingConfig,
    architecture: Architecture,
    seed: u64,
    model: Model,
    optimizer: AdamW,
    schedule: Schedule,
    sampler: Sampler,
    /// Of every step, nats per token.
    losses: Vec<f32>,
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
        check(config)?;
        corpus.check(config.sequence_length, architecture.vocab())?;
        let variables = VarStore::new(Device::Cpu);
        let model = Model::new(&variables.root(), &architecture, seed)?;
        let optimizer = AdamW::new(&model, config)?;
        Ok(Self {
            corpus,
            config,
            architecture,
            seed,
            model,
            optimizer,
            schedule: Schedule::new(config),
            sampler: Sampler::new(seed, corpus.train.len(), u64::from(config.sequence_length)),
            losses: Vec::new(),
        })
    }

    /// Goes on from a checkpoint of the same training: the curve from there on is the one of an uninterrupted training.
    ///
    /// # Errors
    /// When the checkpoint is not readable or of another training.
    pub fn resume(&mut self, path: &Path) -> Result<()> {
        let (step, losses) = checkpoint::load(path, &self.origin(), &mut self.optimizer)?;
        if losses.len() as u64 != step {
            let problem = format!("it has {} losses of {step} steps", losses.len());
            return Err(Error::Checkpoint { path: path.to_owned(), problem });
        }
        self.losses = losses;
        Ok(())
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// When the files cannot be written; none is left half written.
    pub fn save(&self, path: &Path) -> Result<()> {
        checkpoint::save(path, &self.origin(), &self.optimizer, &self.losses)
    }

    /// One optimiser step. Returns its loss, nats per token.
    ///
    /// # Errors
    /// When loss or gradient are not finite, or the loss has been far above its first value for long.
    pub fn step(&mut self) -> Result<f64> {
        let step = self.steps();
        let batch = u64::from(self.config.batch);
        let starts: Vec<u64> =
            (step * batch..(step + 1) * batch).map(|index| self.sampler.start(index)).collect();
        let windows =
            self.corpus.train.windows(&starts, u64::from(self.config.sequence_length) + 1);
        self.optimizer.zero_gradients();
        let loss = validation::token_losses(&self.model, &windows, Reduction::Mean)?;
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            return Err(Error::NotFinite { what: "loss", value, step });
        }
        loss.f_backward()?;
        let norm = self.optimizer.step(self.schedule.rate(step));
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "gradient norm", value: norm, step });
        }
        self.losses.push(value as f32);
        self.check_divergence()?;
        Ok(value)
    }

    fn check_divergence(&self) -> Result<()> {
        let first = f64::from(self.losses[0]);
        let bound = DIVERGED_FACTOR * first;
        let high =
            self.losses.iter().rev().take_while(|&&loss| f64::from(loss) > bound).count() as u64;
        if high < DIVERGED_STEPS {
            return Ok(());
        }
        let loss = f64::from(self.losses[self.losses.len() - 1]);
        Err(Error::Diverged {
            loss,
            first,
            factor: DIVERGED_FACTOR,
            steps: high,
            step: self.steps(),
        })
    }

    /// The loss on held-out text; `stop` is asked between batches.
    ///
    /// # Errors
    /// When the loss is not finite, or `stop` says so.
    pub fn validate(&self, stop: &dyn Fn() -> bool) -> Result<Validation> {
        let vocab = self.architecture.vocab();
        validation::validate(&self.model, self.corpus, self.config, vocab, self.steps(), stop)
    }

    /// Optimiser steps done.
    pub fn steps(&self) -> u64 {
        self.losses.len() as u64
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
        &self.losses
    }

    /// The training loss against tokens, each point the mean of the steps since the one before.
    pub fn curve(&self) -> Vec<(u64, f64)> {
        // By the whole training, not by what is done of it, so that the points of a rung are points of the next.
        let stride = steps_of(self.config, self.config.tokens).div_ceil(CURVE_POINTS).max(1);
        self.losses
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
        &self.model
    }

    fn origin(&self) -> Origin {
        // These two change nothing of the curve but its last bits.
        let settings = TrainingConfig { threads: 0, validation_tokens: 0, ..self.config.clone() };
        Origin {
            architecture: self.architecture.to_string(),
            seed: self.seed,
            settings: serde_json::to_string(&settings).expect("plain numbers serialise"),
            corpus_tokens: self.corpus.train.len(),
            step: self.steps(),
        }
    }
}

/// Whether the settings make a training.
fn check(config: &TrainingConfig) -> Result<()> {
    let at_least_one = [
        ("batch", f64::from(config.batch)),
        ("sequence_length", f64::from(config.sequence_length)),
        ("validation_tokens", config.validation_tokens as f64),
    ];
    for (name, got) in at_least_one {
        if got < 1.0 {
            return Err(Error::Setting { name, expected: "at least 1", got });
        }
    }
    for (name, got) in
        [("learning_rate", config.learning_rate), ("gradient_clip", config.gradient_clip)]
    {
        if !(got > 0.0 && got.is_finite()) {
            return Err(Error::Setting { name, expected: "above 0", got });
        }
    }
    if !(config.weight_decay >= 0.0 && config.weight_decay.is_finite()) {
        return Err(Error::Setting {
            name: "weight_decay",
            expected: "0 or above",
            got: config.weight_decay,
        });
    }
    let shares = [
        ("warmup_fraction", config.warmup_fraction),
        ("final_learning_rate_fraction", config.final_learning_rate_fraction),
    ];
    for (name, got) in shares {
        if !(0.0..=1.0).contains(&got) {
            return Err(Error::Setting { name, expected: "from 0 to 1", got });
        }
    }
    for (name, got) in [("beta1", config.beta1), ("beta2", config.beta2)] {
        if !(0.0..1.0).contains(&got) {
            return Err(Error::Setting { name, expected: "from 0 to below 1", got });
        }
    }
    Ok(())
}
