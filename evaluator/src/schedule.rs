//! The base learning rate: a linear rise, a slow fall that knows no end, and a linear decay at the end of each rung, so
//! that every rung's loss is that of a finished training and the next rung goes on from before the decay.
//!
//! The slow fall is with the fourth root of the tokens (arXiv 2408.13359 has such a schedule, with about this power): at
//! every length the rate is then the one that suits a training of that length.

use search::config::{LearningRate, TrainingConfig};

/// The base learning rate of `learning_rate = "auto"` at 2¹¹ tokens a step and 2²⁰ tokens in all, before the decay.
pub const BASE_RATE: f64 = 1.414e-3;

/// The power of the tokens by which the rate falls.
const POWER: f64 = -0.25;

/// Learning rate by step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Before the decay of the whole training.
    rate: f64,
    /// Steps of the whole training.
    whole: f64,
    warmup: f64,
    /// The step that the decay begins with, and the one after the last.
    decay: (u64, u64),
    /// What the decay leaves.
    last: f64,
}

impl Schedule {
    /// Of a training that is finished at `tokens`, whether the whole one or a rung.
    pub fn new(config: &TrainingConfig, tokens: u64) -> Self {
        let end = steps_of(config, tokens).max(1);
        let decaying = (end as f64 * config.decay_fraction).round() as u64;
        let warmup = match config.warmup_tokens {
            Some(tokens) => tokens as f64,
            None => config.tokens as f64 * config.warmup_fraction,
        };
        Self {
            rate: base_rate(config),
            whole: steps_of(config, config.tokens).max(1) as f64,
            warmup: (warmup / tokens_per_step(config) as f64).round().max(1.0),
            decay: (end - decaying.min(end), end),
            last: config.final_learning_rate_fraction,
        }
    }

    /// The step before which nothing depends on where the training is finished.
    pub fn decay_from(&self) -> u64 {
        self.decay.0
    }

    /// The rate of step `step`, the first being 0. It stays at its last value when the training is over.
    pub fn rate(&self, step: u64) -> f64 {
        let position = (step + 1) as f64;
        let rising = (position / self.warmup).min(1.0);
        let slow = (position.max(self.warmup) / self.whole).powf(POWER);
        let (from, end) = self.decay;
        let decayed = step.min(end).saturating_sub(from) as f64 / (end - from).max(1) as f64;
        self.rate * rising * slow * (1.0 - decayed * (1.0 - self.last))
    }
}

/// Tokens of one optimiser step.
pub(crate) fn tokens_per_step(config: &TrainingConfig) -> u64 {
    u64::from(config.batch) * u64::from(config.sequence_length)
}

/// Steps that see at least `tokens`.
pub(crate) fn steps_of(config: &TrainingConfig, tokens: u64) -> u64 {
    tokens.div_ceil(tokens_per_step(config))
}

/// The base rate before the decay of the whole training. What `"auto"` means grows with the root of the tokens of a step, by
/// which the gradient's noise falls (arXiv 2205.10287), and falls with the fourth root of all tokens (arXiv 2409.19913 finds
/// 0.32 for their power).
pub(crate) fn base_rate(config: &TrainingConfig) -> f64 {
    match config.learning_rate {
        LearningRate::Base(rate) => rate,
        LearningRate::Auto => {
            let (step, all) = (tokens_per_step(config) as f64, config.tokens.max(1) as f64);
            BASE_RATE * (step / 2048.0).sqrt() * (all / 1_048_576.0).powf(POWER)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TrainingConfig {
        TrainingConfig {
            tokens: 160 * 2048,
            batch: 8,
            sequence_length: 256,
            learning_rate: LearningRate::Base(1.0),
            warmup_tokens: Some(10 * 2048),
            decay_fraction: 0.25,
            final_learning_rate_fraction: 0.2,
            ..TrainingConfig::default()
        }
    }

    #[test]
    fn rises_falls_slowly_and_decays_at_the_end() {
        let schedule = Schedule::new(&config(), 160 * 2048);
        assert_eq!(schedule.decay_from(), 120);
        let close = |step, rate: f64| {
            assert!((schedule.rate(step) - rate).abs() < 1e-12, "{step}: {}", schedule.rate(step));
        };
        close(0, 0.2);
        close(9, 2.0);
        close(79, 2.0_f64.powf(0.25));
        close(120, (160.0_f64 / 121.0).powf(0.25));
        close(140, 0.6 * (160.0_f64 / 141.0).powf(0.25));
        close(160, 0.2 * (160.0_f64 / 161.0).powf(0.25));
        assert!((10..160).all(|step| schedule.rate(step) < schedule.rate(step - 1)));
    }

    #[test]
    fn a_rung_is_the_whole_training_up_to_its_own_decay() {
        let (rung, whole) =
            (Schedule::new(&config(), 40 * 2048), Schedule::new(&config(), 160 * 2048));
        assert_eq!(rung.decay_from(), 30);
        assert!((0..=30).all(|step| rung.rate(step).to_bits() == whole.rate(step).to_bits()));
        assert!((31..40).all(|step| rung.rate(step) < whole.rate(step)));
    }

    #[test]
    fn auto_at_a_rung_is_auto_of_a_training_that_long() {
        let auto = TrainingConfig { learning_rate: LearningRate::Auto, ..config() };
        let short = TrainingConfig { tokens: 40 * 2048, ..auto.clone() };
        let (rung, alone) = (Schedule::new(&auto, 40 * 2048), Schedule::new(&short, 40 * 2048));
        assert!((0..40).all(|step| (rung.rate(step) / alone.rate(step) - 1.0).abs() < 1e-12));
    }

    #[test]
    fn without_warmup_tokens_it_rises_over_its_part_of_the_whole() {
        let of_part = TrainingConfig { warmup_tokens: None, warmup_fraction: 0.0625, ..config() };
        let (a, b) = (Schedule::new(&of_part, 1), Schedule::new(&config(), 1));
        assert_eq!(a.warmup.to_bits(), b.warmup.to_bits());
    }
}
