//! A small domain of real architectures, and what the simulated workers answer about them.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::seq::IndexedRandom;
use search::Architecture;
use search::architecture::{ArchitectureId, Attention, Delta, Ffn, Layer, Mixer};
use search::campaign::trust::Plan;
use search::campaign::{Event, Keep, Quiet, Settings};
use search::latency::{Conditions, Dtype, Phase, WholeModels};
use search::limits::{Limit, Limits};
use search::objective::Objective;
use search::proposals::{Domain, SearchRng};
use search::subject::{Subject, Subjects};
use search::surrogate::Feature;

/// Objectives by their texts.
pub(crate) fn objectives(texts: &[&str]) -> Vec<Objective> {
    texts.iter().map(|text| text.parse().expect("names of values")).collect()
}

/// Largest values by their names.
pub(crate) fn at_most(limits: &[(&str, f64)]) -> Limits {
    limits.iter().map(|&(name, most)| (name.to_owned(), Limit::at_most(most))).collect()
}

/// Stacks of up to `depth` layers; three mixers, three FFN widths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stacks {
    pub(crate) depth: usize,
}

fn mixers() -> [Option<Mixer>; 4] {
    let delta = |heads| Delta::deltanet(heads, 16, 16);
    let gated = |heads| Delta::gated(heads, 16, 32);
    let attention = Attention::full(2, 1, 16);
    [
        Some(Mixer::Delta(delta(2))),
        Some(Mixer::Delta(gated(2))),
        Some(Mixer::Delta(gated(4))),
        Some(Mixer::Attention(attention)),
    ]
}

fn layer(rng: &mut SearchRng) -> Layer {
    let mixer = *mixers().choose(rng).expect("there are mixers");
    let width: Option<u32> = *[None, Some(64), Some(128)].choose(rng).expect("there are widths");
    Layer { mixer, ffn: width.map(Ffn::swiglu) }
}

pub(crate) fn stack(layers: Vec<Layer>) -> Architecture {
    Architecture::new(32, 256, true, layers).expect("valid by construction")
}

/// The stack of one mixer, `index` into the list of mixers.
pub(crate) fn uniform(index: usize, depth: usize) -> Architecture {
    stack(vec![Layer { mixer: mixers()[index], ffn: Some(Ffn::swiglu(64)) }; depth])
}

impl Domain for Stacks {
    type Point = Architecture;
    type Id = ArchitectureId;

    fn id(&self, point: &Architecture) -> ArchitectureId {
        point.id()
    }

    fn sample(&self, rng: &mut SearchRng) -> Option<Architecture> {
        let depth = rng.random_range(1..=self.depth);
        Some(stack((0..depth).map(|_| layer(rng)).collect()))
    }

    fn mutate(&self, point: &Architecture, rng: &mut SearchRng) -> Option<(Architecture, String)> {
        let mut layers = point.layers().to_vec();
        let index = rng.random_range(0..layers.len());
        layers[index] = layer(rng);
        Some((stack(layers), format!("layer {index}")))
    }

    fn recombine(
        &self,
        a: &Architecture,
        b: &Architecture,
        rng: &mut SearchRng,
    ) -> Option<Architecture> {
        let cut = rng.random_range(1..=a.layers().len());
        let tail = b.layers().iter().skip(cut);
        Some(stack(a.layers()[..cut].iter().chain(tail).cloned().collect()))
    }

    fn features(&self) -> Vec<Feature> {
        vec![Feature::Number; 5]
    }

    fn encode(&self, point: &Architecture) -> Vec<f64> {
        let layers = point.layers();
        let share = |is: &dyn Fn(&Layer) -> bool| {
            layers.iter().filter(|layer| is(layer)).count() as f64 / layers.len() as f64
        };
        let mixers = mixers();
        vec![
            layers.len() as f64 / self.depth as f64,
            share(&|layer| layer.mixer == mixers[0]),
            share(&|layer| layer.mixer == mixers[3]),
            share(&|layer| layer.ffn.is_none()),
            share(&|layer| layer.ffn == Some(Ffn::swiglu(128))),
        ]
    }
}

impl Subjects for Stacks {
    fn subject(&self, point: &Architecture) -> Subject {
        Subject::Stack(point.clone())
    }

    fn point(&self, subject: &Subject) -> Option<Architecture> {
        subject.stack().cloned()
    }
}

/// The device that everything is timed on.
pub(crate) const DEVICE: &str = "simulated";

/// So many trainers, and so many who time on [`DEVICE`].
pub(crate) fn workers(trainers: u32, profilers: u32) -> Event {
    Event::Workers { trainers, profilers: BTreeMap::from([(DEVICE.to_owned(), profilers)]) }
}

/// The conditions of decode and prefill timings.
pub(crate) fn conditions() -> Vec<(String, Conditions)> {
    let conditions = |phase| Conditions {
        device: DEVICE.to_owned(),
        dtype: Dtype::F32,
        batch: 1,
        threads: 1,
        phase,
    };
    vec![
        ("decode_us".to_owned(), conditions(Phase::Decode { context: 512 })),
        ("prefill_us".to_owned(), conditions(Phase::Prefill { tokens: 64 })),
    ]
}

/// A campaign of both objectives without rungs, limits or trust; a test changes what it is about.
pub(crate) fn settings() -> Settings {
    Settings {
        seed: 1,
        evaluations: 4,
        refusals_count: false,
        objectives: objectives(&["bits_per_byte", "decode_us"]),
        tokens: 1000,
        target_tokens: 1000,
        rungs: Vec::new(),
        promote: 3,
        trust: Plan::default(),
        latencies: conditions(),
        throughput: None,
        limits: Limits::default(),
        attempts: 2,
        give_up_after: 3,
        quiet: Quiet { from_training: BTreeSet::from([DEVICE.to_owned()]), ..Quiet::default() },
        time_whole_models: WholeModels::Never,
        whole_only: BTreeSet::new(),
        keep: Keep::Front,
    }
}

/// A number in 0..1 that is a function of the text alone.
pub(crate) fn chance(text: &str) -> f64 {
    // FNV-1a, then a finaliser, because near texts must give far numbers.
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}
