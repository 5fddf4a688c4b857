//! What rungs lead to where losses fall as they do: small stacks are ahead first, attention learns to look back late.

use std::collections::BTreeMap;

use search::Architecture;
use search::architecture::MixerKind;
use search::campaign::{Campaign, Command, Event, Finish, History, Settings};
use search::latency::{Part, Timing};
use search::pareto::{Objectives, hypervolume};
use search::proposals::{Algorithm, Proposer};
use search::space::{Space, SpaceConfig};
use search::tensors::parameters;
use search::value::Value;
use search::wire::{Evaluation, Measured, Request};

use crate::stacks::{self, chance, conditions};

const SPACE: &str = r#"
d_model = [64, 96, 128, 160]
depth = { min = 2, max = 6 }
ffn = ["none", "1x", "2x", "3x"]
[mixers.attn]
head_width = [32]
[mixers.swa]
head_width = [32]
window = [32, 64]
[mixers.gdn]
key_width = [16, 32]
[mixers.m2]
head_width = [32]
state_width = [32, 64]
"#;

const TOKENS: u64 = 1 << 20;
const TARGET: u64 = 16 * TOKENS;

/// Bits per byte after so many tokens, as stacks of 0.06 to 1.5 M parameters were seen to fall from 65 k to 16.8 M tokens
/// (docs/studies/prediction.md).
fn loss(stack: &Architecture, tokens: u64) -> f64 {
    let kinds = stack.layers().iter().filter_map(|layer| layer.mixer).map(|mixer| mixer.kind());
    let kinds: Vec<MixerKind> = kinds.collect();
    let share = |of: &[MixerKind]| {
        kinds.iter().filter(|kind| of.contains(kind)).count() as f64 / kinds.len().max(1) as f64
    };
    let attention = share(&[MixerKind::FullAttention, MixerKind::SlidingWindow]);
    let doublings = (parameters(stack) as f64 / 6e4).log2();
    let millions = tokens as f64 / TOKENS as f64;
    let gain = 0.58 + 0.05 * doublings + 0.06 * chance(&format!("gain {stack}"));
    let end = 1.85 - 0.115 * doublings - 0.1 * share(&[MixerKind::FullAttention]).min(0.25)
        + 0.05 * attention
        + 0.04 * chance(&stack.to_string());
    end + gain * millions.powf(-0.25) + 0.13 * attention * millions.powf(-0.5)
}

fn latency(part: &Part) -> f64 {
    let us = match part {
        Part::Mixer { d_model, mixer, .. } => {
            let d = f64::from(*d_model);
            let per_width = match mixer.kind() {
                MixerKind::FullAttention => 0.2,
                MixerKind::SlidingWindow | MixerKind::GatedDeltaNet => 0.06,
                _ => 0.04,
            };
            per_width * d * (d / 96.0)
        }
        Part::Ffn { d_model, ffn } => 3e-4 * f64::from(*d_model) * f64::from(ffn.width),
        Part::Head { .. } => 1.0,
    };
    us.max(0.1)
}

/// The volume that those trained to the end would dominate after the tokens that count, and the tokens that were trained on.
fn volume(seed: u64, rungs: &[u64], evaluations: u32) -> (f64, f64) {
    let config: SpaceConfig = toml::from_str(SPACE).expect("it is TOML");
    let space = Space::new(&config).expect("it holds stacks");
    let settings = Settings {
        seed,
        evaluations,
        tokens: TOKENS,
        target_tokens: TARGET,
        rungs: rungs.to_vec(),
        latencies: conditions().into_iter().take(1).collect(),
        attempts: 1,
        quiet_timing: false,
        ..stacks::settings()
    };
    let proposer = Proposer::new(Algorithm::Surrogate, seed, 12, Vec::new());
    let mut campaign = Campaign::new(settings, space, proposer, History::default());
    let mut commands = campaign.handle(Event::Workers { trainers: 1, profilers: 1 });
    let mut stacks: BTreeMap<u64, (Architecture, u64)> = BTreeMap::new();
    let mut spent = 0.0;
    let mut waiting: Vec<Request> = Vec::new();
    loop {
        if let Some(Command::Finish(finish)) = commands.last() {
            assert_eq!(*finish, Finish::Complete);
            break;
        }
        waiting.extend(commands.iter().filter_map(|command| match command {
            Command::Send(request) => Some(request.clone()),
            _ => None,
        }));
        commands = campaign.handle(match waiting.pop().expect("it goes on") {
            Request::Measure(measure) => {
                let timing = Timing {
                    median_us: latency(&measure.part),
                    spread_us: 0.0,
                    samples: 9,
                    other_load: 0.0,
                    kernels: "k".to_owned(),
                    millijoules: None,
                };
                Event::Timing(Measured { id: measure.id, timing })
            }
            Request::Evaluate(evaluate) => {
                let key = format!("{} {} {seed}", evaluate.architecture, evaluate.tokens);
                let noise = 0.014 * (chance(&key) - 0.5);
                let mean = loss(&evaluate.architecture, evaluate.tokens) + noise;
                spent += evaluate.tokens as f64;
                stacks.insert(evaluate.id, (evaluate.architecture.clone(), evaluate.tokens));
                let value = Value { mean, standard_error: Some(0.004) };
                Event::Result(Evaluation {
                    id: evaluate.id,
                    values: BTreeMap::from([("bits_per_byte".to_owned(), value)]),
                    parameters: 1,
                    tokens: evaluate.tokens,
                    seconds: 1.0,
                    checkpoint: Some(format!("/{}/{}", evaluate.id, evaluate.tokens).into()),
                    unsaved: None,
                    parts: BTreeMap::new(),
                    curve: Vec::new(),
                    retrieval: Vec::new(),
                })
            }
            other => panic!("{other:?} is not asked for"),
        });
    }
    let ended = stacks.values().filter(|(_, tokens)| *tokens == TOKENS);
    let points = ended.map(|(stack, _)| {
        let us: f64 = search::latency::parts(stack).map(|part| latency(&part)).sum();
        Objectives::new([loss(stack, TARGET), us.ln()]).expect("finite")
    });
    (hypervolume(&points.collect::<Vec<_>>(), &[2.4, 300.0_f64.ln()]), spent / 1e6)
}

#[test]
#[ignore = "a minute's search; the figures of docs/studies/prediction.md"]
#[expect(clippy::print_stdout, reason = "its figures")]
fn rungs_find_more_than_whole_trainings_of_more_tokens() {
    const SEEDS: u64 = 8;
    let mean = |rungs: &[u64], evaluations: u32| {
        let all: Vec<(f64, f64)> =
            (0..SEEDS).map(|seed| volume(seed, rungs, evaluations)).collect();
        let of = |at: fn(&(f64, f64)) -> f64| all.iter().map(at).sum::<f64>() / SEEDS as f64;
        println!("rungs {rungs:?}, {evaluations} evaluations: {all:.3?}");
        (of(|one| one.0), of(|one| one.1))
    };
    let (whole, whole_tokens) = mean(&[], 48);
    let (found, tokens) = mean(&[65_536, 262_144], 140);
    println!("mean volume {whole:.3} of {whole_tokens:.0} M tokens, {found:.3} of {tokens:.0} M");
    assert!(found > whole + 0.02 && tokens < whole_tokens);
}
