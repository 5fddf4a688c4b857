//! Training speed of one mixer layer on this machine: forward and backward, tokens per second.
//!
//! `cargo run --release -p operators --example mixer_speed [-- d_model tokens batch [rules]]`, from 256, 512, 4. The shapes
//! are those of the comparisons in which other implementations were timed: head width 64, Gated DeltaNet's values of
//! 128, Mamba2's state of 128; the log-linear forms of both have fifteen levels. With `rules` the delta rules alone are
//! timed, by kernels and by torch operators. Each round takes every case once, so that a busy moment falls on all of them.

use std::io::Write as _;
use std::time::Instant;

use operators::mixer::alone;
use operators::ops::delta_rule::DeltaRule;
use operators::ops::kda::Kda as KimiRule;
use search::architecture::{Attention, Delta, GatedConv, Kda, Mamba2, Mixer as Gene};
use tch::{Device, Kind, Tensor, nn};

const ROUNDS: usize = 15;
/// As many as 16,384 positions have.
const LEVELS: u32 = 15;

struct Case {
    name: String,
    forward: Box<dyn Fn() -> Tensor>,
    /// What multiplies the output in the loss.
    towards: Tensor,
    /// What gets gradients.
    leaves: Vec<Tensor>,
    seconds: Vec<f64>,
}

impl Case {
    fn new(
        name: String,
        leaves: Vec<Tensor>,
        shape: &[i64],
        forward: impl Fn() -> Tensor + 'static,
    ) -> Self {
        let towards = Tensor::randn(shape, (Kind::Float, Device::Cpu));
        Self { name, forward: Box::new(forward), towards, leaves, seconds: Vec::new() }
    }

    /// Seconds of forward and backward.
    fn train(&self) -> f64 {
        let start = Instant::now();
        ((self.forward)() * &self.towards).sum(Kind::Float).backward();
        let seconds = start.elapsed().as_secs_f64();
        for tensor in &self.leaves {
            let _ = tensor.grad().zero_();
        }
        seconds
    }
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

fn leaf(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true)
}

fn mixers([d, tokens, batch]: [u32; 3]) -> Result<Vec<Case>, Box<dyn std::error::Error>> {
    let shape = [batch.into(), tokens.into(), d.into()];
    let x = leaf(&shape);
    let mut cases = Vec::new();
    for gene in genes(d) {
        let store = nn::VarStore::new(Device::Cpu);
        let (mixer, variables) = alone(&store.root(), d, gene, 0)?;
        let mut leaves = vec![x.shallow_clone()];
        leaves.extend(variables.into_iter().map(|variable| variable.tensor));
        let x = x.shallow_clone();
        cases.push(Case::new(gene.to_string(), leaves, &shape, move || mixer.forward(&x, None)));
    }
    Ok(cases)
}

/// The gated delta rule and Kimi Delta Attention, of d / 64 heads, keys and values of 64.
fn rules([d, tokens, batch]: [u32; 3]) -> Vec<Case> {
    let (b, t, h, width) = (batch.into(), tokens.into(), (d / 64).into(), 64);
    let shape = [b, t, h, width];
    let [q, k, v, g] = [(); 4].map(|()| leaf(&shape));
    let [strength, shared] = [(); 2].map(|()| leaf(&[b, t, h]));
    let all = [&q, &k, &v, &g, &strength, &shared].map(Tensor::shallow_clone);
    let mut cases = Vec::new();
    for (title, is_kimi) in [("gated delta rule", false), ("Kimi Delta Attention", true)] {
        for (way, by_kernels) in [("kernels", true), ("torch operators", false)] {
            let [q, k, v, g, strength, shared] = all.each_ref().map(Tensor::shallow_clone);
            let gates = if is_kimi { g.shallow_clone() } else { shared.shallow_clone() };
            let leaves = [&q, &k, &v, &gates, &strength].map(Tensor::shallow_clone).into();
            let forward = move || {
                let [q, k, v] = [&q, &k, &v].map(Tensor::shallow_clone);
                let (beta, scale, normalise) = (strength.sigmoid(), 0.125, true);
                let log_decay = -gates.softplus();
                if is_kimi {
                    let rule = KimiRule { q, k, v, log_decay, beta, scale, normalise };
                    if by_kernels { rule.forward(None).0 } else { rule.chunked(None).0 }
                } else {
                    let log_decay = Some(log_decay);
                    let rule = DeltaRule { q, k, v, log_decay, beta, scale, normalise };
                    if by_kernels { rule.forward(None).0 } else { rule.chunked(None).0 }
                }
            };
            cases.push(Case::new(format!("{title}, {way}"), leaves, &shape, forward));
        }
    }
    cases
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sizes = [256, 512, 4];
    for (size, argument) in sizes.iter_mut().zip(std::env::args().skip(1)) {
        *size = argument.parse::<u32>()?;
    }
    let [d, tokens, batch] = sizes;
    let mut cases = match std::env::args().nth(4).as_deref() {
        None => mixers(sizes)?,
        Some("rules") => rules(sizes),
        Some(other) => return Err(format!("`{other}`: only `rules` may follow the sizes").into()),
    };
    for round in 0..=ROUNDS {
        for case in &mut cases {
            let seconds = case.train();
            if round > 0 {
                case.seconds.push(seconds); // the first round warms up
            }
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "d {d}, T {tokens}, batch {batch}, f32, {} threads, {ROUNDS} rounds",
        tch::get_num_threads()
    )?;
    writeln!(out, "{:36} {:>10} {:>10} {:>10}", "", "tokens/s", "slowest", "fastest")?;
    for case in &mut cases {
        case.seconds.sort_by(f64::total_cmp);
        let per_second = |seconds: f64| f64::from(tokens * batch) / seconds;
        let (median, slowest, fastest) =
            (case.seconds[ROUNDS / 2], case.seconds[ROUNDS - 1], case.seconds[0]);
        writeln!(
            out,
            "{:36} {:10.0} {:10.0} {:10.0}",
            case.name,
            per_second(median),
            per_second(slowest),
            per_second(fastest)
        )?;
    }
    Ok(())
}
