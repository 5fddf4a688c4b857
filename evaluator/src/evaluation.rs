//! One evaluation: from an architecture at target scale to the values that the search compares.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use search::config::TrainingConfig;
use search::tensors::tensors;
use search::wire::{Evaluate, Evaluation, Progress, Value};

use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::scale::scaled;
use crate::training::Training;
use crate::validation::Validation;

/// Time between two reports of progress, at least.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Trains and validates what `request` asks for. `stop` is asked between steps, `progress` hears how it goes.
/// The checkpoint, if there is a folder for it, carries the name of the architecture, the seed and the tokens.
///
/// # Errors
/// When the request cannot be done, or failed; [`Error::is_infeasible`] tells the two apart.
pub fn evaluate(
    request: &Evaluate,
    corpus: &Corpus,
    config: &TrainingConfig,
    checkpoints: Option<&Path>,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Evaluation> {
    let began = Instant::now();
    let architecture = scaled(&request.architecture, config.width_scale)?;
    let parameters = tensors(&architecture).iter().map(search::tensors::TensorSpec::elements).sum();
    let mut training = Training::new(architecture, corpus, config, request.seed)?;
    if let Some(path) = &request.resume_from {
        training.resume(path)?;
    }
    let last = training.steps_for(request.tokens);
    let (mut reported_at, mut reported_tokens) = (Instant::now(), training.tokens());
    while training.steps() < last {
        if stop() {
            return Err(Error::Stopped);
        }
        let loss = training.step()?;
        let since = reported_at.elapsed();
        if since >= PROGRESS_INTERVAL || training.steps() == last {
            progress(Progress {
                id: request.id,
                step: training.steps(),
                tokens: training.tokens(),
                tokens_total: training.tokens()
                    + (last - training.steps()) * training.tokens_per_step(),
                loss,
                tokens_per_second: (training.tokens() - reported_tokens) as f64
                    / since.as_secs_f64().max(1e-9),
            });
            (reported_at, reported_tokens) = (Instant::now(), training.tokens());
        }
    }
    let validation = training.validate(stop)?;
    let checkpoint = checkpoints.map(|folder| {
        let id = request.architecture.id();
        folder.join(format!("{id}-seed{}-{}.safetensors", request.seed, training.tokens()))
    });
    if let Some(path) = &checkpoint {
        training.save(path)?;
    }
    Ok(Evaluation {
        id: request.id,
        values: values(&validation, corpus),
        parameters,
        tokens: training.tokens(),
        seconds: began.elapsed().as_secs_f64(),
        checkpoint,
        curve: training.curve(),
    })
}

/// `validation_loss` in nats per token, and `bits_per_byte`, or `bits_per_token` if the bytes are unknown.
fn values(validation: &Validation, corpus: &Corpus) -> BTreeMap<String, Value> {
    let scaled_by = |factor: f64| Value {
        mean: validation.loss * factor,
        standard_error: validation.standard_error.map(|error| error * factor),
    };
    let bits = std::f64::consts::LN_2.recip();
    let per_unit = match corpus.bytes_per_token {
        Some(bytes_per_token) => ("bits_per_byte".to_owned(), scaled_by(bits / bytes_per_token)),
        None => ("bits_per_token".to_owned(), scaled_by(bits)),
    };
    BTreeMap::from([("validation_loss".to_owned(), scaled_by(1.0)), per_unit])
}
