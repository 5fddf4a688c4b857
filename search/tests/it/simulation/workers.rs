//! Workers of a simulated campaign: what they answer depends on what they are asked alone.

use std::collections::BTreeMap;

use search::campaign::Event;
use search::latency::Timing;
use search::wire::{Evaluate, Evaluation, Measured, Refusal, Value};

use super::world::FULL;
use crate::stacks::chance;

pub(super) fn id_of(event: &Event) -> Option<u64> {
    match event {
        Event::Result(evaluation) => Some(evaluation.id),
        Event::Timing(measured) => Some(measured.id),
        Event::Infeasible(refusal) | Event::Failed { refusal, .. } => Some(refusal.id),
        Event::Lost { id } | Event::HandedBack { id } => Some(*id),
        Event::Values { values, .. } => Some(values.id),
        Event::Workers { .. }
        | Event::Progress(_)
        | Event::Adopted(_)
        | Event::QuietTiming { .. }
        | Event::Obstacle { .. }
        | Event::TimeOver { .. }
        | Event::StopRequested => None,
    }
}

/// The answer to a training: a function of the architecture and the attempt.
pub(super) fn trained(evaluate: &Evaluate, trouble: f64) -> Event {
    let id = evaluate.id;
    let name = evaluate.architecture.to_string();
    // Seeds are noise, and little training is worse and says less.
    let noise = |what: u64| chance(&format!("{name} {what}")) - 0.5;
    let short = FULL as f64 / evaluate.tokens as f64 - 1.0;
    let mut loss = 1.0 + chance(&name) + 0.1 * short + 0.02 * short * noise(evaluate.tokens);
    if evaluate.seed != 5 {
        loss += 0.05 * noise(evaluate.seed);
    }
    let exact = |mean| Value { mean, standard_error: None };
    let refusal = |reason: &str| Refusal::new(id, reason);
    let result = |values: &[(&str, f64)]| {
        Event::Result(Evaluation {
            id,
            values: values.iter().map(|(name, v)| ((*name).to_owned(), exact(*v))).collect(),
            parameters: 1,
            tokens: evaluate.tokens,
            seconds: 1.0,
            checkpoint: Some(
                format!("/{}-{}-{}", evaluate.architecture.id(), evaluate.seed, evaluate.tokens)
                    .into(),
            ),
            unsaved: None,
            parts: BTreeMap::new(),
            curve: vec![(evaluate.tokens, loss)],
            retrieval: Vec::new(),
        })
    };
    let luck =
        chance(&format!("{name} {} {} {}", evaluate.tokens, evaluate.seed, evaluate.attempt));
    if luck >= trouble {
        return result(&[("bits_per_byte", loss)]);
    }
    match (luck / trouble * 5.0) as u32 {
        0 => result(&[("bits_per_byte", f64::NAN)]),
        1 => result(&[("another_value", loss)]),
        2 => Event::Infeasible(refusal("out of memory")),
        _ => Event::Failed { refusal: refusal("exit status 1"), log: "last words".to_owned() },
    }
}

pub(super) fn timed(id: u64, name: &str, scale_us: f64, trouble: f64) -> Event {
    let luck = chance(&format!("{name} luck"));
    if luck < trouble * 0.1 {
        let refusal = Refusal::new(id, "exit status 1");
        return Event::Failed { refusal, log: "last words".to_owned() };
    }
    let timing = Timing {
        median_us: scale_us * chance(name),
        spread_us: 1.0,
        samples: 9,
        other_load: 0.0,
        kernels: "simulated".to_owned(),
        millijoules: None,
    };
    Event::Timing(Measured { id, timing })
}
