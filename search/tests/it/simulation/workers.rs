//! Workers of a simulated campaign: what they answer depends on what they are asked alone.

use std::collections::BTreeMap;

use rand::RngExt;
use search::campaign::Event;
use search::failure::FailureKind;
use search::latency::Timing;
use search::proposals::SearchRng;
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

/// What comes in place of an answer: numbers that are none, an answer to another question, or to nobody's; a driver makes a
/// failure of what is no message.
pub(super) fn corrupted(event: Event, rng: &mut SearchRng) -> Vec<Event> {
    let id = id_of(&event).expect("answers are to requests");
    let broken = |reason: &str| Event::Failed {
        refusal: Refusal::of(FailureKind::Protocol, id, reason),
        log: "last words".to_owned(),
    };
    let number = [f64::NAN, f64::INFINITY, f64::MAX, -1.0, 0.0, 5e-324][rng.random_range(0..6)];
    match (rng.random_range(0..5), event) {
        (0, _) => vec![broken("wrote a bad line")],
        (1, event) => {
            vec![to(event, id.wrapping_add(1 << 60)), broken("sent it for another request")]
        }
        (2, Event::Result(_)) => vec![timed(id, "another question", 1.0, 0.0)],
        (2, Event::Timing(_)) => vec![Event::Result(Evaluation {
            id,
            values: BTreeMap::new(),
            parameters: 0,
            tokens: 0,
            seconds: 0.0,
            checkpoint: None,
            unsaved: None,
            parts: BTreeMap::new(),
            curve: Vec::new(),
            retrieval: Vec::new(),
        })],
        (3, Event::Result(mut of)) => {
            of.seconds = number;
            of.curve = vec![(0, number)];
            vec![Event::Result(of)]
        }
        (_, Event::Result(mut of)) => {
            of.values.values_mut().for_each(|value| value.mean = number);
            vec![Event::Result(of)]
        }
        (3, Event::Timing(mut of)) => {
            of.timing.spread_us = number;
            vec![Event::Timing(of)]
        }
        (_, Event::Timing(mut of)) => {
            of.timing.median_us = number;
            vec![Event::Timing(of)]
        }
        (_, event) => vec![event],
    }
}

/// The same answer to another request.
fn to(event: Event, id: u64) -> Event {
    match event {
        Event::Result(of) => Event::Result(Evaluation { id, checkpoint: None, ..of }),
        Event::Timing(of) => Event::Timing(Measured { id, ..of }),
        Event::Infeasible(of) => Event::Infeasible(Refusal { id, ..of }),
        Event::Failed { refusal, log } => Event::Failed { refusal: Refusal { id, ..refusal }, log },
        other => other,
    }
}
