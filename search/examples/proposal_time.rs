//! How long a proposal takes after 50, 200, 1,000 and 10,000 observations, of two and of four objectives.
//!
//! `cargo run --release -p search --example proposal_time`

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an example that measures time"
)]

use std::io::Write as _;
use std::time::Instant;

use rand::SeedableRng;
use search::parameters::{Parameter, ParameterKind, ParameterSpace, Setting};
use search::pareto::Objectives;
use search::proposals::{Algorithm, Domain, Outcome, Proposer, SearchRng, Trial};

/// Six categories, four ordered choices and two integers.
fn space() -> ParameterSpace {
    let choices = |count: u64| (0..count).map(|i| Setting::Number(i.into())).collect();
    let kind = |index| match index {
        0..6 => ParameterKind::Categorical { choices: choices(5) },
        6..10 => ParameterKind::Ordinal { choices: choices(8) },
        10 => ParameterKind::Integer { low: 0, high: 100 },
        _ => ParameterKind::LogInteger { low: 1, high: 10_000 },
    };
    let parameter = |i| Parameter { name: format!("p{i}"), kind: kind(i), when: None };
    ParameterSpace::new((0..12).map(parameter).collect()).expect("a possible space")
}

fn objectives(row: &[f64], count: usize) -> Objectives {
    let of = |shift: usize| {
        let terms = row.iter().enumerate();
        terms.map(|(i, x)| (x - ((i * 7 + shift * 3) % 5) as f64 / 4.0).powi(2)).sum::<f64>()
    };
    Objectives::new((0..count).map(of).collect::<Vec<f64>>()).expect("finite")
}

fn main() -> std::io::Result<()> {
    /// Consecutive proposals, refits of hyperparameters among them.
    const PROPOSALS: usize = 20;
    let space = space();
    let mut stdout = std::io::stdout().lock();
    for count in [2, 4] {
        for observations in [50, 200, 1000, 10_000] {
            let mut rng = SearchRng::seed_from_u64(1);
            let mut proposer = Proposer::new(Algorithm::Surrogate, 1, 10, Vec::new());
            let mut trials: Vec<Trial<Vec<i64>>> = Vec::new();
            let add = |trials: &mut Vec<Trial<Vec<i64>>>, point: Vec<i64>| {
                let number = trials.len() as u32 + 1;
                let outcome = Outcome::Known(objectives(&space.encode(&point), count));
                trials.push(Trial { number, point, outcome });
            };
            for _ in 0..observations {
                let point = space.sample(&mut rng).expect("not empty");
                add(&mut trials, point);
            }
            let mut times_ms = Vec::new();
            // The first fits the hyperparameters, as after a restart.
            for _ in 0..=PROPOSALS {
                let begin = Instant::now();
                let number = trials.len() as u32 + 1;
                let proposal = proposer.propose(&space, number, &trials).expect("a large space");
                times_ms.push(1e3 * begin.elapsed().as_secs_f64());
                add(&mut trials, proposal.point);
            }
            let first = times_ms.remove(0);
            times_ms.sort_by(f64::total_cmp);
            writeln!(
                stdout,
                "{count} objectives, {observations:>6} observations: median {:.1} ms, mean {:.1} ms, worst {:.1} ms, \
                 first {first:.1} ms",
                times_ms[PROPOSALS / 2],
                times_ms.iter().sum::<f64>() / PROPOSALS as f64,
                times_ms[PROPOSALS - 1],
            )?;
        }
    }
    Ok(())
}
