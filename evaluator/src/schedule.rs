//! The base learning rate: a linear rise, then a cosine down to a part of the peak.

use search::config::TrainingConfig;

use crate::rule::base_rate;

/// Learning rate by step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    peak: f64,
    last: f64,
    warmup_steps: u64,
    steps: u64,
}

impl Schedule {
    /// Over the whole training of a proxy. A rung that ends earlier leaves the schedule midway, and the next one goes on
    /// from there.
    pub fn new(config: &TrainingConfig) -> Self {
        let steps = steps_of(config, config.tokens).max(1);
        let peak = base_rate(config);
        Self {
            peak,
            last: peak * config.final_learning_rate_fraction,
            warmup_steps: ((steps as f64 * config.warmup_fraction).round() as u64).min(steps),
            steps,
        }
    }

    /// The rate of step `step`, the first being 0. It stays at its last value when the schedule is over.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let falling = (self.steps - self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / falling as f64).min(1.0);
        self.last + (self.peak - self.last) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
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

#[cfg(test)]
mod tests {
    use search::config::LearningRate;

    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_the_last_rate() {
        let config = TrainingConfig {
            tokens: 100 * 2048,
            batch: 8,
            sequence_length: 256,
            learning_rate: LearningRate::Base(1.0),
            warmup_fraction: 0.1,
            final_learning_rate_fraction: 0.2,
            ..TrainingConfig::default()
        };
        let schedule = Schedule::new(&config);
        assert!((schedule.rate(0) - 0.1).abs() < 1e-12);
        assert!((schedule.rate(9) - 1.0).abs() < 1e-12);
        assert!((schedule.rate(10) - 1.0).abs() < 1e-12);
        assert!((schedule.rate(55) - 0.6).abs() < 1e-12);
        assert!((schedule.rate(100) - 0.2).abs() < 1e-12);
        assert!((schedule.rate(1000) - 0.2).abs() < 1e-12);
        assert!((11..100).all(|step| schedule.rate(step) < schedule.rate(step - 1)));
    }

    #[test]
    fn without_warmup_it_starts_at_the_peak() {
        let config = TrainingConfig {
            warmup_fraction: 0.0,
            learning_rate: LearningRate::Base(3e-3),
            ..TrainingConfig::default()
        };
        assert!((Schedule::new(&config).rate(0) - 3e-3).abs() < 1e-12);
    }
}
