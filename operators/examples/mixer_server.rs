//! Our side of the paired benchmark of mixers, `tools/bench_cpu/bench.py`: runs and trains single ones on request.
//!
//! Reads lines `GENE d tokens batch fp32|bf16 forward|training`, as in `gdn(h=6,k=64,v=128) 512 2048 4 bf16 training`, runs
//! forward, and in training backward, once, and answers with the seconds it took, the FLOPs of the mixer's products, and
//! the most FLOPs per second that the instructions allow, measured just before. Mixers are kept between lines.

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::time::Instant;

use operators::Variable;
use operators::mixer::{Mixer, alone};
use operators::precision::{self, Precision};
use search::architecture::Layer;
use search::cost::part_flops;
use search::latency::{Part, Phase};
use tch::{Device, Kind, Tensor, nn};

struct Case {
    mixer: Box<dyn Mixer>,
    variables: Vec<Variable>,
    x: Tensor,
    d_y: Tensor,
    _store: nn::VarStore,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cases: HashMap<String, Case> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [gene, d, tokens, batch, precision, work] = words[..] else {
            return Err(
                format!("expected `GENE d tokens batch precision work`, got `{line}`").into()
            );
        };
        let trains = match work {
            "forward" => false,
            "training" => true,
            other => return Err(format!("expected forward or training, got `{other}`").into()),
        };
        let (d, tokens, batch): (u32, u32, u32) = (d.parse()?, tokens.parse()?, batch.parse()?);
        let precision = match precision {
            "fp32" => Precision::F32,
            "bf16" => Precision::Bf16,
            other => return Err(format!("expected fp32 or bf16, got `{other}`").into()),
        };
        let gene = gene.parse::<Layer>()?.mixer.ok_or("expected a mixer")?;
        let case = match cases.entry(line.clone()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let store = nn::VarStore::new(Device::Cpu);
                let (mixer, variables) = alone(&store.root(), d, gene, 0)?;
                let shape = [i64::from(batch), i64::from(tokens), i64::from(d)];
                let random = || Tensor::randn(shape, (Kind::Float, Device::Cpu));
                let x = random().set_requires_grad(true);
                entry.insert(Case { mixer, variables, x, d_y: random(), _store: store })
            }
        };
        let passes = if trains { 3.0 } else { 1.0 };
        let flops = passes
            * f64::from(batch)
            * part_flops(&Part::mixer(d, gene, 0), Phase::Prefill { tokens });
        let peak = precision::peak_flops(precision);
        let start = Instant::now();
        let forward = || precision::with(precision, || case.mixer.forward(&case.x, None));
        if trains {
            let leaves: Vec<&Tensor> =
                case.variables.iter().map(|v| &v.tensor).chain([&case.x]).collect();
            let loss = (forward() * &case.d_y).sum(Kind::Float);
            drop(Tensor::run_backward(&[loss], &leaves, false, false));
        } else {
            drop(tch::no_grad(forward));
        }
        let seconds = start.elapsed().as_secs_f64();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{seconds} {flops} {peak}")?;
        out.flush()?;
    }
    Ok(())
}
