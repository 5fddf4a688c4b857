//! What the surrogate gains where it need not learn an objective, and where it sees in which order layers stand: on a
//! made-up loss and latency of real stacks.

use search::Architecture;
use search::architecture::MixerKind;
use search::pareto::{Objectives, hypervolume};
use search::proposals::{Algorithm, Outcome, Proposer, Trial};
use search::space::{Space, SpaceConfig};
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

fn space() -> Space {
    let config: SpaceConfig = toml::from_str(SPACE).expect("it is TOML");
    Space::new(&config).expect("it holds stacks")
}

/// More parameters help, as a law has it; so does attention among the others, one layer in four, late rather than early, and
/// apart rather than side by side; in bits.
fn loss(stack: &Architecture) -> f64 {
    let kinds: Vec<MixerKind> =
        stack.layers().iter().filter_map(|layer| layer.mixer).map(|mixer| mixer.kind()).collect();
    let n = kinds.len() as f64;
    let share = |kind| kinds.iter().filter(|&&k| k == kind).count() as f64 / n;
    let (attn, swa) = (share(MixerKind::FullAttention), share(MixerKind::SlidingWindow));
    let places: Vec<f64> = (0..kinds.len())
        .filter(|&i| kinds[i] == MixerKind::FullAttention)
        .map(|i| (i as f64 + 0.5) / n)
        .collect();
    let early = places.iter().map(|place| (0.6 - place).max(0.0)).sum::<f64>() / n;
    let pairs =
        kinds.windows(2).filter(|p| p[0] == p[1] && p[0] == MixerKind::FullAttention).count();
    1.0 + 5.0 * (parameters(stack) as f64).powf(-0.15)
        + 0.25 * (attn - 0.25).powi(2)
        + 0.08 * swa
        + 0.06 * share(MixerKind::Mamba2)
        + 0.1 * early
        + 0.1 * pairs as f64 / n
}

/// The sum of its layers', in µs.
fn latency(stack: &Architecture) -> f64 {
    let d = f64::from(stack.d_model());
    let of_mixer = |kind| match kind {
        MixerKind::FullAttention => 3.2,
        MixerKind::SlidingWindow => 1.4,
        MixerKind::GatedDeltaNet => 1.9,
        _ => 1.2,
    };
    let of = |layer: &search::architecture::Layer| {
        let mixer = layer.mixer.map_or(0.0, |mixer| of_mixer(mixer.kind()) * d);
        mixer + 0.003 * layer.ffn.map_or(0.0, |ffn| f64::from(ffn.width)) * d
    };
    stack.layers().iter().map(of).sum::<f64>() / 100.0
}

/// The dominated volume after each of some counts of evaluations, over the box that random stacks span.
fn volumes(seed: u64, knows: bool, counts: &[u32]) -> Vec<f64> {
    let space = space();
    let mut proposer = Proposer::new(Algorithm::Surrogate, seed, 10, Vec::new());
    let mut trials: Vec<Trial<Architecture>> = Vec::new();
    let computed = |stack: &Architecture| {
        if knows { vec![None, Some(latency(stack))] } else { Vec::new() }
    };
    let mut volumes = Vec::new();
    let mut points = Vec::new();
    for number in 1..=*counts.last().expect("there are counts") {
        let point = proposer
            .propose_knowing(&space, number, &trials, &computed)
            .expect("a large space")
            .point;
        let objectives = Objectives::new([loss(&point), latency(&point)]).expect("finite");
        points.push(Objectives::new([loss(&point), latency(&point).ln()]).expect("finite"));
        trials.push(Trial { number, point, outcome: Outcome::Known(objectives) });
        if counts.contains(&number) {
            let reference = [2.0, 400.0_f64.ln()];
            volumes.push(hypervolume(&points, &reference));
        }
    }
    volumes
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures of docs/studies/search.md")]
fn an_objective_that_is_computed_is_not_learnt() {
    let counts = [30, 50];
    let mean = |knows: bool| -> Vec<f64> {
        let all: Vec<Vec<f64>> = (0..6).map(|seed| volumes(seed, knows, &counts)).collect();
        let of = |i: usize| all.iter().map(|v| v[i]).sum::<f64>() / all.len() as f64;
        (0..counts.len()).map(of).collect()
    };
    let (learnt, computed) = (mean(false), mean(true));
    println!("mean volume after {counts:?}: latency learnt {learnt:.4?}, computed {computed:.4?}");
    assert!(computed[0] >= 0.995 * learnt[0] && computed[1] >= 0.995 * learnt[1]);
}
