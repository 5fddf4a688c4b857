//! A whole training step of a proxy: embedding, blocks, head, loss and optimiser. Prints the first losses, tokens per second, the share of the
//! peak of products, the FLOPs that it counts, and the most memory that the process held.
//!
//! `cargo run --release -p evaluator --example step_speed [-- STACK tokens batch fp32|bf16 steps device]`, from eight
//! Gated DeltaNet blocks of width 512, 2048, 4, fp32, 5 and cpu. FLOPs are three times those of the forward pass as `search::cost`
//! counts them (projections, recurrences, scores, head), which leaves out norms, activations and the optimiser.

use std::io::Write as _;
use std::time::Instant;

use evaluator::learner::Learner;
use operators::precision;
use search::Architecture;
use search::config::{LearningRate, Precision, TrainingConfig};
use search::cost::part_flops;
use search::latency::{Part, Phase, parts};
use tch::{Device, Kind, Tensor};

const STACK: &str = "d=512,vocab=256,tied | 8*gdn(h=6,k=64,v=128)+ffn(1408)";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |i: usize, default: &str| arguments.get(i).map_or_else(|| default.to_owned(), Clone::clone);
    let architecture: Architecture = argument(0, STACK).parse()?;
    let (tokens, batch): (u32, u32) = (argument(1, "2048").parse()?, argument(2, "4").parse()?);
    let (chosen, products) = match argument(3, "fp32").as_str() {
        "fp32" => (Precision::Fp32, precision::Precision::F32),
        "bf16" => (Precision::Bf16, precision::Precision::Bf16),
        other => return Err(format!("expected fp32 or bf16, got `{other}`").into()),
    };
    let steps: usize = argument(4, "5").parse()?;
    let config = TrainingConfig {
        precision: chosen,
        sequence_length: tokens,
        batch,
        learning_rate: LearningRate::Base(1e-4),
        device: argument(5, "cpu").parse()?,
        ..TrainingConfig::default()
    };
    let mut learner = Learner::new(&architecture, &config, 0)?;
    tch::manual_seed(0); // the same text on every device; asked for a GPU, libtorch knows of it by now
    let vocab = i64::from(architecture.vocab());
    let on_cpu = config.device == search::device::Device::Cpu;
    let shape = [i64::from(batch), i64::from(tokens)];
    let text = || Tensor::randint(vocab, shape, (Kind::Int64, Device::Cpu));
    // Of every position, where a prefill makes the logits of the last one only.
    let forward: f64 = parts(&architecture)
        .map(|part| {
            let flops = part_flops(&part, Phase::Prefill { tokens });
            if matches!(part, Part::Head { .. }) { f64::from(tokens) * flops } else { flops }
        })
        .sum();
    let flops = 3.0 * f64::from(batch) * forward;
    let (mut seconds, mut peaks, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..=steps {
        let (inputs, targets) = (text(), text());
        // of the CPU, in the same moment
        peaks.push(if on_cpu { precision::peak_flops(products) } else { f64::NAN });
        let start = Instant::now();
        losses.push(learner.step(&inputs, &targets)?);
        if step > 0 {
            seconds.push(start.elapsed().as_secs_f64()); // the first step warms up
        }
    }
    let losses: Vec<String> = losses.iter().take(12).map(|loss| format!("{loss:.7}")).collect();
    writeln!(std::io::stdout(), "losses of the first steps: {}", losses.join(" "))?;
    seconds.sort_by(f64::total_cmp);
    peaks.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let peak = peaks[peaks.len() - 1];
    writeln!(
        std::io::stdout(),
        "{architecture}\nT {tokens}, batch {batch}, {chosen:?}, {} threads: {:.0} tokens/s, {:.4} s a step \
         (fastest {:.4}), {:.3} TFLOP a step, {:.0} GFLOP/s = {:.0} % of the CPU's peak of {:.0}, most memory {} MB",
        tch::get_num_threads(),
        f64::from(batch * tokens) / median,
        median,
        seconds[0],
        flops / 1e12,
        flops / median / 1e9,
        100.0 * flops / median / peak,
        peak / 1e9,
        most_memory_mb()
    )?;
    Ok(())
}

/// The most memory that this process held, as the system counts it.
fn most_memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0)
        / 1024
}
