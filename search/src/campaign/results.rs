//! What a result means for its candidate: whether it can be used, what changes in the row, whether it is within the limits.

use std::path::PathBuf;

use super::candidate::{Candidate, CandidateState, Trained};
use super::settings::Settings;
use super::tasks::Training;
use crate::latency::Timing;
use crate::value::Name;
use crate::wire::{Evaluation, LayerRetrieval, PARTS_MAX};

/// Whether the numbers of a result can be used.
pub(super) fn check(evaluation: &Evaluation) -> Result<(), String> {
    for (name, value) in &evaluation.values {
        if !value.mean.is_finite() || value.standard_error.is_some_and(|e| !e.is_finite()) {
            return Err(format!("the result's `{name}` must be finite, got {}", value.mean));
        }
    }
    for (name, parts) in &evaluation.parts {
        if parts.len() > PARTS_MAX || parts.iter().any(|part| !part.is_finite()) {
            return Err(format!(
                "the parts of the result's `{name}` must be finite, and at most {PARTS_MAX}, got {}",
                parts.len()
            ));
        }
    }
    let Evaluation { seconds, curve, .. } = evaluation;
    if !seconds.is_finite() || *seconds < 0.0 || curve.iter().any(|(_, loss)| !loss.is_finite()) {
        return Err(
            "the result's seconds and curve must be finite, and no time negative".to_owned()
        );
    }
    if evaluation.retrieval.iter().flat_map(LayerRetrieval::points).any(|(_, snr)| !snr.is_finite())
    {
        return Err("the result's retrieval SNR must be finite".to_owned());
    }
    Ok(())
}

/// The first objective or limit that neither a result nor its row has a value for.
pub(super) fn lacking<'a>(
    evaluation: &Evaluation,
    row: &Candidate,
    settings: &'a Settings,
) -> Option<Lacking<'a>> {
    // What an earlier rung reported is no value of this one.
    let is_known = |name: &str| row.values.contains_key(name) && !is_of_trainer(row, name);
    let lacks = |name: &&str| !is_known(name) && !evaluation.values.contains_key(*name);
    let objectives = settings.objectives.iter().map(|of| ("objective", of.name()));
    let limits = settings.limits.names().map(|name| ("limit on", name));
    let (what, name) = objectives.chain(limits).find(|(_, name)| lacks(name))?;
    let has: Vec<String> = evaluation.values.keys().map(|name| format!("`{name}`")).collect();
    let has = if has.is_empty() { "nothing".to_owned() } else { has.join(", ") };
    let reason = format!("the result lacks the {what} `{name}`; it has {has}");
    Some(Lacking { name, reason })
}

/// A value that is asked for and not there.
pub(super) struct Lacking<'a> {
    pub(super) name: &'a str,
    /// One sentence.
    pub(super) reason: String,
}

/// Whether a value was reported by an earlier training.
fn is_of_trainer(row: &Candidate, name: &str) -> bool {
    row.trained.iter().any(|trained| trained.values.contains_key(name))
}

/// Takes a checked result into its row; gives the checkpoint that nothing goes on from any more.
pub(super) fn take(
    row: &mut Candidate,
    training: Training,
    evaluation: Evaluation,
    settings: &Settings,
) -> Option<PathBuf> {
    // What was measured or computed here outweighs what a trainer says.
    let is_new = |name: &str| !row.values.contains_key(name) || is_of_trainer(row, name);
    let values = evaluation.values.into_iter().filter(|(name, _)| is_new(name));
    let values = values.map(|(name, value)| (Name::from(name), value)).collect();
    let Training { tokens, seed, .. } = training;
    let (parts, seconds) = (evaluation.parts, evaluation.seconds);
    row.train_seconds += seconds;
    let superseded = if row.state == CandidateState::Training {
        row.fidelity = tokens;
        row.tokens = evaluation.tokens;
        if !evaluation.curve.is_empty() {
            row.curve = evaluation.curve;
        }
        row.retrieval = evaluation.retrieval;
        row.add(Trained { tokens, seed, values, parts, seconds });
        // At a lower rung a limit on what the trainer reports may yet be kept.
        row.state = match settings.limits.broken(&row.values) {
            Some(reason) if tokens >= settings.tokens => CandidateState::Infeasible { reason },
            _ => CandidateState::Done,
        };
        std::mem::replace(&mut row.checkpoint, evaluation.checkpoint)
    } else {
        row.add(Trained { tokens, seed, values, parts, seconds });
        evaluation.checkpoint
    };
    superseded.filter(|path| row.checkpoint.as_ref() != Some(path))
}

/// Times of a step, µs, between the shortest that a clock could tell and eleven days: the sums and ratios of what lies within
/// are numbers.
const TIMES_US: std::ops::RangeInclusive<f64> = 1e-6..=1e12;

/// Whether a timing is a number that a table can hold.
pub(super) fn check_timing(timing: &Timing) -> Result<(), String> {
    let Timing { median_us, spread_us, other_load, millijoules, .. } = timing;
    let is_time = |us: f64| us == 0.0 || TIMES_US.contains(&us);
    let others = [*other_load, millijoules.unwrap_or(0.0)];
    if is_time(*median_us) && is_time(*spread_us) && others.into_iter().all(f64::is_finite) {
        Ok(())
    } else {
        Err(format!(
            "a timing must be 0, or {:e} to {:e} µs, got median_us {median_us}, spread_us {spread_us}",
            TIMES_US.start(),
            TIMES_US.end()
        ))
    }
}

/// A training that did not come to its end leaves what the rung before it left.
pub(super) fn back_to_rung(row: &mut Candidate) {
    let fidelity = row.fidelity;
    row.tokens = fidelity;
    row.curve.retain(|(tokens, _)| *tokens <= fidelity);
}
