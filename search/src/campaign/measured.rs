//! How sure a measured value is: of the held-out text, of the seed, of the learning rate.

use super::candidate::{Candidate, Trained};
use super::drift::Drift;
use super::noise::Noise;
use crate::metric::Metric;
use crate::objective::Objective;
use crate::value::Value;

/// The standard deviation between seeds of a loss over the loss, before a campaign measures it: 0.0040 of 1.66 bits per
/// byte, pooled over three seeds of 25 stacks at 1 M tokens (`tools/truth_table`).
const SEEDS: f64 = 0.0024;

/// The repeats that this is worth.
const FREEDOM: f64 = 4.0;

/// What training at `"auto"` loses to each stack's best rate, as a standard deviation over the loss: 0.0013 of 1.66 bits per
/// byte over the same stacks.
const RATE: f64 = 0.0008;

/// The standard deviation between seeds of each objective, pooled over all candidates with several, and its degrees of
/// freedom. Zero for values that no trainer reports.
pub fn seed_deviations<'a>(
    rows: &(impl Iterator<Item = &'a Candidate> + Clone),
    objectives: &[Objective],
    tokens: u64,
) -> Vec<(f64, usize)> {
    objectives
        .iter()
        .map(Objective::name)
        .map(|name| {
            let (mut squares, mut freedom) = (0.0, 0);
            let is_of_several = |row: &&Candidate| row.seeds(tokens) > 1;
            for row in rows.clone().filter(is_of_several) {
                let of_seeds: Vec<f64> = row
                    .trained
                    .iter()
                    .filter(|t| t.tokens == tokens)
                    .filter_map(|t| Some(t.values.get(name)?.mean))
                    .collect();
                let mean = of_seeds.iter().sum::<f64>() / of_seeds.len().max(1) as f64;
                squares += of_seeds.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
                freedom += of_seeds.len().saturating_sub(1);
            }
            (if freedom == 0 { 0.0 } else { (squares / freedom as f64).sqrt() }, freedom)
        })
        .collect()
}

/// The error of an objective, as it is minimised, after so many tokens: of the text, which all candidates share where
/// trainers report its parts, and of seed and rate. `seeds`: its entry of [`seed_deviations`]. Of a latency all share what the
/// machine drifts by as a whole, the rest is its own; none of what is computed.
pub(super) fn noise(
    row: &Candidate,
    objective: &Objective,
    tokens: u64,
    (deviation, freedom): (f64, usize),
    drift: Drift,
) -> Noise {
    let name = objective.name();
    let trained = || row.trained.iter().filter(|t| t.tokens == tokens);
    let with_value = || trained().filter(|t| t.values.contains_key(name));
    let values = || trained().filter_map(|t| t.values.get(name));
    let (Some(first), Some(value)) = (with_value().next(), values().next()) else {
        let is_trained = row.trained.iter().any(|t| t.values.contains_key(name));
        let timed = row.values.get(name).filter(|_| !is_trained);
        return timed.map_or_else(Noise::default, |value| of_latency(*value, drift));
    };
    let n = values().count() as f64;
    let of_seeds = deviation / n.sqrt();
    let text = first.parts.get(name).and_then(|_| of_text(with_value().collect(), objective));
    let Some(text) = text else {
        let reported = || value.standard_error.unwrap_or(0.0);
        return Noise::of_its_own(if freedom > 0 { of_seeds } else { reported() });
    };
    let is_loss = matches!(
        objective.metric(),
        Some(Metric::BitsPerByte | Metric::BitsPerToken | Metric::ValidationLoss)
    );
    let noise = Noise::default().and_shared(0, &text);
    if !is_loss {
        return noise.and_own(of_seeds);
    }
    let loss = values().map(|value| value.mean).sum::<f64>() / n;
    let known = freedom as f64 * deviation.powi(2);
    let pooled = ((FREEDOM * (SEEDS * loss).powi(2) + known) / (FREEDOM + freedom as f64)).sqrt();
    noise.and_own(pooled / n.sqrt()).and_own(RATE * loss)
}

/// The error of a latency, of which all drift by the same part of it together.
fn of_latency(value: Value, drift: Drift) -> Noise {
    let error = value.standard_error.unwrap_or(0.0);
    let shared = (drift.common * value.mean.abs()).min(error);
    if shared == 0.0 {
        return Noise::of_its_own(error);
    }
    let own = (error.powi(2) - shared.powi(2)).max(0.0).sqrt();
    Noise::of_its_own(own).and_shared(0, &[shared])
}

/// What each part of the held-out text moves the mean by: (xᵢ − x̄) / √(n(n − 1)), whose squares add up to those of the
/// standard error. None where not every training reports the same parts.
fn of_text(trained: Vec<&Trained>, objective: &Objective) -> Option<Vec<f64>> {
    let parts: Option<Vec<&Vec<f32>>> =
        trained.into_iter().map(|t| t.parts.get(objective.name())).collect();
    let parts = parts?;
    let count = parts.first()?.len();
    if count < 2 || parts.iter().any(|of| of.len() != count) {
        return None;
    }
    let mean_of =
        |i: usize| parts.iter().map(|of| f64::from(of[i])).sum::<f64>() / parts.len() as f64;
    let means: Vec<f64> = (0..count).map(mean_of).collect();
    let n = count as f64;
    let mean = means.iter().sum::<f64>() / n;
    let scale = objective.turned(1.0) / (n * (n - 1.0)).sqrt();
    Some(means.into_iter().map(|x| scale * (x - mean)).collect())
}
