//! What proposals are worth, and how long they take, where very many workers are at work: each with a model of its own, as where
//! few are, or several from one model. On a made-up loss and latency of real stacks, of which the latency is learnt, too.
//!
//! `cargo run --release -p search --example many_workers -- WORKERS EVALUATIONS SEEDS [one-by-one]`

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an example that measures time"
)]

use std::io::Write as _;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use search::Architecture;
use search::pareto::{Objectives, hypervolume};
use search::proposals::{Algorithm, Outcome, Proposer, SearchRng, Trial};
use search::space::{Space, SpaceConfig};
use search::statistics::mean_and_error;
use search::tensors::parameters;

const SPACE: &str = r#"
d_model = [128, 192, 256, 384]
depth = { min = 3, max = 12 }
ffn = ["none", "2x", "3x", "4x"]
[mixers.attn]
[mixers.swa]
[mixers.gdn]
[mixers.m2]
"#;

/// More parameters help, as a law has it; one layer of four of full attention helps most.
fn objectives(stack: &Architecture) -> [f64; 2] {
    let layers = stack.layers();
    let sign = |sign: &str| {
        let is = |layer: &&search::architecture::Layer| {
            layer.mixer.is_some_and(|mixer| mixer.kind().name() == sign)
        };
        layers.iter().filter(is).count() as f64
    };
    let (attention, windows) = (sign("attn"), sign("swa"));
    let n = layers.len() as f64;
    let loss = 1.0
        + 5.0 * (parameters(stack) as f64).powf(-0.15)
        + 0.25 * (attention / n - 0.25).powi(2)
        + 0.08 * windows / n;
    let widths: f64 = layers.iter().map(|l| l.ffn.map_or(0.0, |ffn| f64::from(ffn.width))).sum();
    let us = f64::from(stack.d_model()) * (1.3 * n + 1.9 * attention + 0.003 * widths) / 100.0;
    [loss, us.ln()]
}

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| {
        arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (workers, evaluations, seeds) = (number(0, 64), number(1, 400), number(2, 6));
    let one_by_one = arguments.get(3).is_some();
    let space = Space::new(&toml::from_str::<SpaceConfig>(SPACE).expect("it is TOML"))
        .expect("it holds stacks");
    let part = (workers / 8).clamp(1, 64);
    let mut volumes = Vec::new();
    let (mut took, mut longest, mut count) = (Duration::ZERO, Duration::ZERO, 0_u32);
    for seed in 0..seeds as u64 {
        let mut rng = SearchRng::seed_from_u64(seed);
        let mut proposer = Proposer::new(Algorithm::Surrogate, seed, 10, Vec::new());
        let mut trials: Vec<Trial<Architecture>> = Vec::new();
        let mut points = Vec::new();
        while points.len() < evaluations {
            let pending: Vec<usize> =
                (0..trials.len()).filter(|&i| trials[i].outcome == Outcome::Pending).collect();
            let first = trials.len() as u32 + 1;
            let wanted = part.min(workers.saturating_sub(pending.len()));
            let begin = Instant::now();
            if one_by_one {
                for number in first..first + wanted as u32 {
                    let next = proposer.propose(&space, number, &trials).expect("a large space");
                    trials.push(Trial { number, point: next.point, outcome: Outcome::Pending });
                }
            } else {
                let none = |_: &Architecture| Vec::new();
                proposer.propose_many(&space, first, wanted, &mut trials, &none);
            }
            if !points.is_empty() {
                took += begin.elapsed();
                longest = longest.max(begin.elapsed());
                count += wanted as u32;
            }
            // While they come in there is an answer for every part of them, then one for each.
            let ended = if pending.len() + wanted < workers { 1 } else { part };
            for _ in 0..ended {
                let under_way: Vec<usize> =
                    (0..trials.len()).filter(|&i| trials[i].outcome == Outcome::Pending).collect();
                let trial = &mut trials[under_way[rng.random_range(0..under_way.len())]];
                let known = Objectives::new(objectives(&trial.point)).expect("finite");
                points.push(known.clone());
                trial.outcome = Outcome::Known(known);
            }
        }
        volumes.push(hypervolume(&points[..evaluations], &[2.0, 400.0_f64.ln()]));
    }
    let (mean, error) = mean_and_error(&volumes);
    writeln!(
        std::io::stdout(),
        "{workers} workers, {evaluations} evaluations, {seeds} seeds: volume {mean:.4} ± {:.4}; {:.1} ms a proposal, \
         {:.0} ms for a part of {part} at most",
        error.unwrap_or(0.0),
        1e3 * took.as_secs_f64() / f64::from(count.max(1)),
        1e3 * longest.as_secs_f64(),
    )
}
