//! A model with its optimiser: what text and tasks have in common. It sees batches and knows nothing of their source.

use operators::Model;
use search::Architecture;
use search::config::{Precision, TrainingConfig};
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::error::{Error, Result};
pub use crate::loss::IGNORED;
use crate::optimizer::Optimizer;
use crate::pass::Pass;
use crate::rule::{Rule, factors};
use crate::schedule::{Schedule, base_rate};

/// A loss this many times the first one …
const DIVERGED_FACTOR: f64 = 1.5;
/// … for this many steps running will not come back.
const DIVERGED_STEPS: u64 = 32;

/// A model in training.
#[derive(Debug)]
pub struct Learner {
    pub(crate) model: Model,
    pub(crate) optimizer: Optimizer,
    pub(crate) schedule: Schedule,
    pass: Pass,
    weight_normalisation: bool,
    /// Of every step, nats per token.
    pub(crate) losses: Vec<f32>,
}

impl Learner {
    /// A fresh model; the same seed gives the same one.
    ///
    /// # Errors
    /// When a setting is impossible or libtorch cannot build the model.
    pub fn new(architecture: &Architecture, config: &TrainingConfig, seed: u64) -> Result<Self> {
        Self::with_rule(architecture, config, seed, &|spec| factors(spec, architecture))
    }

    /// The same under another rule.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_rule(
        architecture: &Architecture,
        config: &TrainingConfig,
        seed: u64,
        rule: Rule<'_>,
    ) -> Result<Self> {
        check(config)?;
        let device = device(config.device)?;
        let variables = VarStore::new(device);
        let mut model = Model::new(&variables.root(), architecture, seed)?;
        model.set_precision(precision(config.precision, device));
        for variable in model.variables() {
            let factor = rule(&variable.spec).initial;
            tch::no_grad(|| {
                let _ = variable.tensor.shallow_clone().g_mul_scalar_(factor);
            });
        }
        if config.weight_normalisation {
            model.normalise_weights();
            model.divide_by_head_norms(true);
        }
        let optimizer = Optimizer::new(&model, config, rule)?;
        Ok(Self {
            model,
            optimizer,
            schedule: Schedule::new(config, config.tokens),
            pass: Pass::of(architecture),
            weight_normalisation: config.weight_normalisation,
            losses: Vec::new(),
        })
    }

    /// One optimiser step towards `targets` `[B, T]` given `inputs` `[B, T]`. Returns its loss, nats per token.
    ///
    /// # Errors
    /// When loss or gradient are not finite, or the loss has been far above its first value for long.
    pub fn step(&mut self, inputs: &Tensor, targets: &Tensor) -> Result<f64> {
        let step = self.steps();
        self.optimizer.zero_gradients();
        let value = self.pass.run(&self.model, inputs, targets)?;
        if !value.is_finite() {
            return Err(Error::NotFinite { what: "loss", value, step });
        }
        let norm = self.optimizer.step(self.schedule.rate(step));
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "gradient norm", value: norm, step });
        }
        if self.weight_normalisation {
            self.model.normalise_weights();
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

    /// Optimiser steps done.
    pub fn steps(&self) -> u64 {
        self.losses.len() as u64
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// libtorch's word for the device that the campaign file names.
pub(crate) fn device(device: search::device::Device) -> Result<Device> {
    match device {
        search::device::Device::Cpu => Ok(Device::Cpu),
        search::device::Device::Cuda(number) => {
            operators::gpu::device(number.unwrap_or(0) as usize)
                .map_err(|error| Error::Device { device, problem: error.to_string() })
        }
    }
}

/// In which numbers products are made on a device where the campaign file asks for `precision`.
pub(crate) fn precision(precision: Precision, device: Device) -> operators::precision::Precision {
    match precision {
        Precision::Auto if device.is_cuda() => operators::precision::Precision::Bf16,
        Precision::Auto => operators::precision::fastest(),
        Precision::Fp32 => operators::precision::Precision::F32,
        Precision::Bf16 => operators::precision::Precision::Bf16,
    }
}

/// Whether the settings make a training.
pub(crate) fn check(config: &TrainingConfig) -> Result<()> {
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
        [("learning_rate", base_rate(config)), ("gradient_clip", config.gradient_clip)]
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
        ("decay_fraction", config.decay_fraction),
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
