//! What rungs lead to among stacks that were all trained: every order of four mixers in one to four layers at two widths
//! (tools/truth_table/grid.csv), at 65 k, 262 k, 1 M and 4 M tokens, some at 16.8 M.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::seq::IndexedRandom;
use search::Architecture;
use search::architecture::{ArchitectureId, MixerKind};
use search::campaign::front::Contenders;
use search::campaign::{
    Campaign, Candidate, CandidateState, Command, Event, Finish, History, Quiet, Settings,
};
use search::latency::{Part, Timing};
use search::pareto::{Objectives, hypervolume};
use search::proposals::{Algorithm, Domain, Proposer, SearchRng};
use search::subject::{Subject, Subjects};
use search::surrogate::Feature;
use search::value::Value;
use search::wire::{Evaluation, Measured, Request};

use crate::stacks::{self, conditions, workers};

const TABLE: &str = include_str!("../../../tools/truth_table/grid.csv");
const WIDTHS: [u32; 2] = [64, 128];
const KINDS: [&str; 4] = ["attn", "swa", "gdn", "m2"];
const LAYERS: usize = 4;
const TOKENS: u64 = 1 << 20;
/// The longest training that all have.
const TARGET: u64 = 4 * TOKENS;

/// A stack of the table: its width and its mixers, by their places in `KINDS`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cell {
    width: u32,
    kinds: Vec<usize>,
}

impl Cell {
    fn stack(&self) -> Architecture {
        let (d, heads) = (self.width, self.width / 32);
        let layer = |&kind: &usize| {
            let mixer = match KINDS[kind] {
                "attn" => format!("attn(h={heads},kv={heads},k=32)"),
                "swa" => format!("swa(h={heads},kv={heads},k=32,w=64)"),
                "gdn" => format!("gdn(h={},k=32,v=64)", 3 * heads / 4),
                _ => format!("m2(h={heads},p=64,n=64)"),
            };
            format!("{mixer}+ffn({})", 3 * d)
        };
        let layers: Vec<String> = self.kinds.iter().map(layer).collect();
        format!("d={d},vocab=256,tied | {}", layers.join(" | ")).parse().expect("a stack")
    }

    fn of(stack: &Architecture) -> Self {
        let kind = |kind: MixerKind| KINDS.iter().position(|name| *name == kind.name());
        let kinds = stack.layers().iter().filter_map(|layer| kind(layer.mixer?.kind()));
        Self { width: stack.d_model(), kinds: kinds.collect() }
    }
}

/// What was measured of a stack.
#[derive(Debug)]
struct Measures {
    losses: BTreeMap<u64, f64>,
    decode_us: f64,
}

/// By their texts.
fn table() -> BTreeMap<String, Measures> {
    let mut lines = TABLE.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().expect("a heading");
    let column = |name: &str| names.iter().position(|n| *n == name).expect("a column");
    let lengths = names
        .iter()
        .enumerate()
        .filter_map(|(at, name)| Some((at, name.strip_prefix("loss_")?.parse::<u64>().ok()?)));
    let lengths: Vec<(usize, u64)> = lengths.collect();
    let of = |row: &[&str]| {
        let kind = |name: &str| KINDS.iter().position(|kind| *kind == name).expect("a mixer");
        let width = row[column("d_model")].parse().expect("a width");
        let kinds = row[column("mixers")].split('-').map(kind).collect();
        let loss = |&(at, tokens): &(usize, u64)| Some((tokens, row[at].parse().ok()?));
        let decode_us = row[column("decode_us")].parse().expect("a number");
        let measures = Measures { losses: lengths.iter().filter_map(loss).collect(), decode_us };
        (Cell { width, kinds }.stack().to_string(), measures)
    };
    lines.map(|row| of(&row)).collect()
}

/// The stacks of the table.
#[derive(Debug, Clone, Copy)]
struct Grid;

impl Domain for Grid {
    type Point = Architecture;
    type Id = ArchitectureId;

    fn id(&self, point: &Architecture) -> ArchitectureId {
        point.id()
    }

    fn sample(&self, rng: &mut SearchRng) -> Option<Architecture> {
        let width = *WIDTHS.choose(rng)?;
        let layers = rng.random_range(1..=LAYERS);
        let kinds = (0..layers).map(|_| rng.random_range(0..KINDS.len())).collect();
        Some(Cell { width, kinds }.stack())
    }

    fn mutate(&self, point: &Architecture, rng: &mut SearchRng) -> Option<(Architecture, String)> {
        let mut cell = Cell::of(point);
        let at = rng.random_range(0..cell.kinds.len());
        let kind = rng.random_range(0..KINDS.len());
        match rng.random_range(0..5) {
            0 => cell.width = *WIDTHS.iter().find(|width| **width != cell.width)?,
            1 if cell.kinds.len() < LAYERS => cell.kinds.insert(at, kind),
            2 if cell.kinds.len() > 1 => _ = cell.kinds.remove(at),
            _ => cell.kinds[at] = kind,
        }
        Some((cell.stack(), format!("layer {at}")))
    }

    fn recombine(
        &self,
        a: &Architecture,
        b: &Architecture,
        rng: &mut SearchRng,
    ) -> Option<Architecture> {
        let (mut a, b) = (Cell::of(a), Cell::of(b));
        let cut = rng.random_range(1..=a.kinds.len());
        a.kinds.truncate(cut);
        a.kinds.extend(b.kinds.iter().skip(cut));
        Some(a.stack())
    }

    fn features(&self) -> Vec<Feature> {
        vec![Feature::Number; 2 + 2 * KINDS.len()]
    }

    fn encode(&self, point: &Architecture) -> Vec<f64> {
        let Cell { width, kinds } = Cell::of(point);
        let n = kinds.len() as f64;
        let share = |kind| kinds.iter().filter(|k| **k == kind).count() as f64 / n;
        let first = |kind| f64::from(u8::from(kinds[0] == kind));
        let mut features = vec![f64::from(width) / 128.0, n / LAYERS as f64];
        features.extend((0..KINDS.len()).flat_map(|kind| [share(kind), first(kind)]));
        features
    }
}

impl Subjects for Grid {
    fn subject(&self, point: &Architecture) -> Subject {
        Subject::Stack(point.clone())
    }

    fn point(&self, subject: &Subject) -> Option<Architecture> {
        subject.stack().cloned()
    }
}

/// Microseconds of parts such that those of a stack add up to what the table says of it.
fn latencies(table: &BTreeMap<String, Measures>) -> BTreeMap<String, f64> {
    let us = |width, kinds: &[usize]| {
        table[&Cell { width, kinds: kinds.to_vec() }.stack().to_string()].decode_us
    };
    let mut parts = BTreeMap::new();
    for width in WIDTHS {
        for (kind, name) in KINDS.iter().enumerate() {
            parts.insert(format!("{width} {name}"), us(width, &[kind, kind]) - us(width, &[kind]));
        }
        parts.insert(format!("{width}"), 2.0 * us(width, &[0]) - us(width, &[0, 0]));
    }
    parts
}

fn key(part: &Part) -> Option<String> {
    match part {
        Part::Mixer { d_model, mixer, .. } => Some(format!("{d_model} {}", mixer.kind().name())),
        Part::Ffn { .. } => None,
        Part::Head { d_model, .. } => Some(d_model.to_string()),
    }
}

/// How a campaign ended.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// The volume that its front dominates after the tokens that count.
    volume: f64,
    /// Tokens that were trained on, in millions.
    tokens: f64,
    /// Of the front, bits per byte after the tokens that count, of the slower half of the latencies (in their logarithm).
    slow: f64,
    /// Stacks that were trained to the end.
    ended: usize,
    /// Of pairs of stacks, those that were judged as they are after the tokens that count.
    right: f64,
}

/// A campaign of the table: what its front is worth.
fn campaign(
    table: &BTreeMap<String, Measures>,
    seed: u64,
    rungs: &[u64],
    evaluations: u32,
) -> Found {
    let settings = Settings {
        seed,
        evaluations,
        tokens: TOKENS,
        target_tokens: TARGET,
        rungs: rungs.to_vec(),
        latencies: conditions().into_iter().take(1).collect(),
        attempts: 1,
        quiet: Quiet::default(),
        ..stacks::settings()
    };
    let objectives = settings.objectives.clone();
    let parts = latencies(table);
    let reference = |name: &str, kinds: [usize; LAYERS]| {
        (name.to_owned(), Cell { width: 128, kinds: kinds.to_vec() }.stack())
    };
    let references = vec![
        reference("full-attention", [0; LAYERS]),
        reference("gated-deltanet", [2; LAYERS]),
        reference("swa-full", [1, 0, 1, 0]),
    ];
    let proposer = Proposer::new(Algorithm::Surrogate, seed, 12, references);
    let mut campaign = Campaign::new(settings, Grid, proposer, History::default());
    let mut commands = campaign.handle(workers(1, 1));
    let mut spent: BTreeMap<String, u64> = BTreeMap::new();
    let mut waiting: Vec<Request> = Vec::new();
    loop {
        if let Some(Command::Finish(finish)) = commands.last() {
            assert!(matches!(finish, Finish::Complete | Finish::Exhausted { .. }), "{finish:?}");
            break;
        }
        waiting.extend(commands.iter().filter_map(|command| match command {
            Command::Send(request) => Some(request.clone()),
            _ => None,
        }));
        commands = campaign.handle(match waiting.pop().expect("it goes on") {
            Request::Measure(measure) => {
                // an FFN's time is in its mixer's
                let median_us = key(&measure.part).map_or(1e-6, |key| parts[&key]);
                let timing = Timing {
                    median_us,
                    spread_us: 0.0,
                    samples: 9,
                    other_load: 0.0,
                    kernels: "k".to_owned(),
                    millijoules: None,
                };
                Event::Timing(Measured { id: measure.id, timing })
            }
            Request::Evaluate(evaluate) => {
                let text = evaluate.architecture.to_string();
                let mean = table[&text].losses[&evaluate.tokens];
                spent.insert(text, evaluate.tokens);
                let value = Value { mean, standard_error: Some(0.003) };
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
    let rows: Vec<Candidate> = campaign.candidates().cloned().collect();
    let contenders = Contenders::of(rows.iter(), &objectives, TARGET);
    let truth = |row: &Candidate| {
        let measures = &table[&row.subject.to_string()];
        (measures.losses[&TARGET], measures.decode_us.ln())
    };
    let numbers = contenders.front();
    let front: Vec<(f64, f64)> =
        rows.iter().filter(|row| numbers.contains(&row.number)).map(truth).collect();
    let points = front.iter().map(|&(loss, us)| Objectives::new([loss, us]).expect("finite"));
    let slow = front.iter().filter(|(_, us)| *us > 17_f64.ln()).map(|(loss, _)| *loss);
    let ended = |row: &&Candidate| row.state == CandidateState::Done && row.fidelity == TOKENS;
    let judged: Vec<(f64, f64)> = contenders
        .rows
        .iter()
        .zip(&contenders.points)
        .map(|(row, point)| (point.values()[0], truth(row).0))
        .collect();
    let pairs =
        || judged.iter().enumerate().flat_map(|(i, a)| judged[..i].iter().map(move |b| (a, b)));
    let right = pairs().filter(|(a, b)| (a.0 - b.0) * (a.1 - b.1) > 0.0).count();
    Found {
        volume: hypervolume(&points.collect::<Vec<_>>(), &[1.95, 100.0_f64.ln()]),
        tokens: spent.values().sum::<u64>() as f64 / 1e6,
        slow: slow.fold(f64::INFINITY, f64::min),
        ended: rows.iter().filter(ended).count(),
        right: right as f64 / pairs().count() as f64,
    }
}

/// The volume of the front of all stacks.
fn best(table: &BTreeMap<String, Measures>) -> f64 {
    let of = |m: &Measures| Objectives::new([m.losses[&TARGET], m.decode_us.ln()]).expect("finite");
    hypervolume(&table.values().map(of).collect::<Vec<_>>(), &[1.95, 100.0_f64.ln()])
}

#[test]
#[ignore = "two minutes of searches; the figures of docs/studies/prediction.md"]
#[expect(clippy::print_stdout, reason = "its figures")]
fn rungs_lose_little_of_the_front() {
    const SEEDS: u64 = 12;
    let table = table();
    let best = best(&table);
    println!("of all: volume {best:.3}");
    let mean = |rungs: &[u64], evaluations: u32| {
        let all: Vec<Found> =
            (0..SEEDS).map(|seed| campaign(&table, seed, rungs, evaluations)).collect();
        let of = |at: &dyn Fn(&Found) -> f64| {
            let mean = all.iter().map(at).sum::<f64>() / SEEDS as f64;
            let square = all.iter().map(|one| (at(one) - mean).powi(2)).sum::<f64>();
            (mean, (square / (SEEDS * (SEEDS - 1)) as f64).sqrt())
        };
        let (volume, error) = of(&|found| found.volume / best);
        let (tokens, slow) = (of(&|found| found.tokens).0, of(&|found| found.slow));
        println!(
            "rungs {rungs:?}, {evaluations} evaluations: {tokens:.0} M tokens, {volume:.4} ± {error:.4} of the volume, \
             slow end {:.4} ± {:.4}, {:.1} trained to the end, {:.3} of pairs right",
            slow.0,
            slow.1,
            of(&|found| found.ended as f64).0,
            of(&|found| found.right).0,
        );
        (volume, tokens)
    };
    let (short, _) = mean(&[65_536, 262_144], 140);
    mean(&[], 29);
    let (one, tokens) = mean(&[262_144], 96);
    let (whole, whole_tokens) = mean(&[], 48);
    assert!(short > 0.945 && one > whole - 0.015 && tokens < 1.1 * whole_tokens);
}
