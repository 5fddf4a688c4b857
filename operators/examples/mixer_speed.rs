//! Training speed of one mixer layer on this machine: forward and backward, tokens per second.
//!
//! `cargo run --release -p operators --example mixer_speed [-- d_model tokens batch]`, from 256, 512, 4. The shapes
//! are those of the comparisons in which other implementations were timed: head width 64, Gated DeltaNet's values of
//! 128, Mamba2's state of 128; the log-linear forms of both have fifteen levels. Each round takes every mixer once, so that a busy moment falls on all of them.

use std::io::Write as _;
use std::time::Instant;

use operators::Variable;
use operators::mixer::{Mixer, alone};
use search::architecture::{Attention, Delta, GatedConv, Kda, Mamba2, Mixer as Gene};
use tch::{Device, Kind, Tensor, nn};

const ROUNDS: usize = 15;
/// As many as 16,384 positions have.
const LEVELS: u32 = 15;

struct Case {
    gene: Gene,
    mixer: Box<dyn Mixer>,
    variables: Vec<Variable>,
    seconds: Vec<f64>,
    _store: nn::VarStore,
}

fn genes(d: u32) -> Vec<Gene> {
    let heads = d / 64;
    let attention =
        |window| Gene::Attention(Attention { window, ..Attention::full(heads, heads, 64) });
    vec![
        attention(None),
        attention(Some(256)),
        attention(Some(64)),
        Gene::Delta(Delta::deltanet(heads, 64, 64)),
        Gene::Delta(Delta::gated(heads * 3 / 4, 64, 128)),
        Gene::Delta(Delta { levels: Some(LEVELS), ..Delta::gated(heads * 3 / 4, 64, 128) }),
        Gene::Mamba2(Mamba2::new(2 * heads, 64, 128)),
        Gene::Mamba2(Mamba2 { levels: Some(LEVELS), ..Mamba2::new(2 * heads, 64, 128) }),
        Gene::Kda(Kda { heads, key_width: 64, value_width: 64 }),
        Gene::GatedConv(GatedConv { channels: d, kernel_width: 3 }),
    ]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sizes = [256, 512, 4];
    for (size, argument) in sizes.iter_mut().zip(std::env::args().skip(1)) {
        *size = argument.parse::<u32>()?;
    }
    let [d, tokens, batch] = sizes;
    let shape = [batch.into(), tokens.into(), d.into()];
    let x = Tensor::randn(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let towards = Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let mut cases = Vec::new();
    for gene in genes(d) {
        let store = nn::VarStore::new(Device::Cpu);
        let (mixer, variables) = alone(&store.root(), d, gene, 0)?;
        cases.push(Case { gene, mixer, variables, seconds: Vec::new(), _store: store });
    }
    for round in 0..=ROUNDS {
        for case in &mut cases {
            let start = Instant::now();
            (case.mixer.forward(&x, None) * &towards).sum(Kind::Float).backward();
            let seconds = start.elapsed().as_secs_f64();
            if round > 0 {
                case.seconds.push(seconds); // the first round warms up
            }
            for tensor in case.variables.iter().map(|v| &v.tensor).chain([&x]) {
                let _ = tensor.grad().zero_();
            }
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "d {d}, T {tokens}, batch {batch}, f32, {} threads, {ROUNDS} rounds",
        tch::get_num_threads()
    )?;
    writeln!(out, "{:34} {:>10} {:>10} {:>10}", "mixer", "tokens/s", "slowest", "fastest")?;
    for case in &mut cases {
        case.seconds.sort_by(f64::total_cmp);
        let per_second = |seconds: f64| f64::from(tokens * batch) / seconds;
        let (median, slowest, fastest) =
            (case.seconds[ROUNDS / 2], case.seconds[ROUNDS - 1], case.seconds[0]);
        writeln!(
            out,
            "{:34} {:10.0} {:10.0} {:10.0}",
            case.gene.to_string(),
            per_second(median),
            per_second(slowest),
            per_second(fastest)
        )?;
    }
    Ok(())
}
