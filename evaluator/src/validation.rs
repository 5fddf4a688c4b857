//! The loss on held-out text, with its standard error. Every other window of it selects among candidates; those between
//! them are the test, which nothing selects on.

use operators::Model;
use search::config::TrainingConfig;
use tch::{Kind, Reduction, Tensor};

use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::loss::cross_entropy;

/// Tokens of a validation batch: enough to fill the cores, little enough to stay near the caches.
const BATCH_TOKENS: u64 = 8192;

/// Logits of a validation batch at most: 256 MB.
const BATCH_LOGITS: u64 = 1 << 26;

/// The mean loss over validation sequences.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// Nats per token.
    pub loss: f64,
    /// Standard error of `loss`, from the spread over sequences; none if there is but one.
    pub standard_error: Option<f64>,
    /// Tokens predicted.
    pub tokens: u64,
    /// The mean in each of 16 parts of them, or in each sequence where these are fewer.
    pub parts: Vec<f32>,
}

/// Parts of the validation text that are told apart, so that two models are compared on the same text: enough for the error
/// of a difference, few enough to keep them of a hundred thousand candidates.
const PARTS: usize = 16;

/// The mean in each part of some losses.
fn parts(losses: &[f64]) -> Vec<f32> {
    let count = losses.len().min(PARTS);
    let bound = |part: usize| part * losses.len() / count;
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    (0..count).map(|part| mean(&losses[bound(part)..bound(part + 1)]) as f32).collect()
}

/// Which windows of the held-out text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Windows {
    /// Those that candidates are compared on.
    Validation,
    /// Those between them.
    Test,
}

/// Windows whose targets do not overlap, spread evenly over the held-out tokens. None where there are too few tokens.
fn starts(tokens: u64, sequence_length: u64, wanted_tokens: u64, windows: Windows) -> Vec<u64> {
    let all = (tokens - 1) / sequence_length;
    let (first, available) = match windows {
        Windows::Validation => (0, all.div_ceil(2)),
        Windows::Test => (1, all / 2),
    };
    let wanted = wanted_tokens.div_ceil(sequence_length).max(1).min(available);
    (0..wanted).map(|i| (2 * (i * available / wanted) + first) * sequence_length).collect()
}

/// Validates `model` on windows as long as its sequences, or `times` as long; `stop` is asked between batches. None where
/// the held-out text has no such window.
pub(crate) fn validate(
    model: &Model,
    corpus: &Corpus,
    config: &TrainingConfig,
    vocab: u32,
    (windows, times): (Windows, u32),
    step: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Validation>> {
    let length = u64::from(config.sequence_length) * u64::from(times);
    let starts = starts(corpus.validation.len(), length, config.validation_tokens, windows);
    if starts.is_empty() {
        return Ok(None);
    }
    let batch = (BATCH_TOKENS / length).min(BATCH_LOGITS / (length * u64::from(vocab))).max(1);
    let mut losses = Vec::with_capacity(starts.len());
    for chunk in starts.chunks(batch as usize) {
        if stop() {
            return Err(Error::Stopped);
        }
        let windows = corpus.validation.windows(chunk, length + 1);
        let of_sequences = tch::no_grad(|| sequence_losses(model, &windows)); // [B]
        let mut of_batch = vec![0.0_f64; chunk.len()];
        of_sequences.to_kind(Kind::Double).copy_data(&mut of_batch, chunk.len());
        losses.extend(of_batch);
    }
    let n = losses.len() as f64;
    let loss = losses.iter().sum::<f64>() / n;
    if !loss.is_finite() {
        return Err(Error::NotFinite { what: "validation loss", value: loss, step });
    }
    let variance = losses.iter().map(|x| (x - loss).powi(2)).sum::<f64>() / (n - 1.0);
    let standard_error = (losses.len() > 1).then(|| (variance / n).sqrt());
    let tokens = losses.len() as u64 * length;
    Ok(Some(Validation { loss, standard_error, tokens, parts: parts(&losses) }))
}

/// Up to `sequences` of the validation sequences, `[B, T]`.
pub(crate) fn held_out(corpus: &Corpus, length: u64, sequences: u64) -> Tensor {
    let starts = starts(corpus.validation.len(), length, sequences * length, Windows::Validation);
    corpus.validation.windows(&starts, length)
}

/// The mean loss of each window `[B, T + 1]`, in nats per token: `[B]`.
fn sequence_losses(model: &Model, windows: &Tensor) -> Tensor {
    let (inputs, targets) = inputs_and_targets(windows);
    let losses = cross_entropy(&model.forward(&inputs), &targets, Reduction::None); // [B·T]
    losses.view(targets.size().as_slice()).mean_dim(1, false, Kind::Double)
}

/// Windows `[B, T + 1]` as what is read and what is to be said after each token, both `[B, T]`.
pub(crate) fn inputs_and_targets(windows: &Tensor) -> (Tensor, Tensor) {
    let length = windows.size()[1] - 1;
    (windows.narrow(1, 0, length).contiguous(), windows.narrow(1, 1, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_overlap_and_lie_inside() {
        for (tokens, length, wanted) in
            [(65, 64, 1), (1000, 64, 10_000), (1000, 64, 128), (1001, 1, 77), (100, 33, 40)]
        {
            let of = |windows| starts(tokens, length, wanted, windows);
            let (validation, test) = (of(Windows::Validation), of(Windows::Test));
            let mut all = [validation.clone(), test.clone()].concat();
            all.sort_unstable();
            assert!(all.windows(2).all(|pair| pair[1] - pair[0] >= length), "{all:?}");
            assert!(all.iter().all(|start| start + length < tokens), "{all:?}");
            let windows = (tokens - 1) / length;
            for (starts, available) in [(validation, windows.div_ceil(2)), (test, windows / 2)] {
                let least = wanted.min(available * length);
                assert!(starts.len() as u64 * length >= least, "{starts:?}");
            }
        }
    }
}
