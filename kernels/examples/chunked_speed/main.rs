//! The chunked kernels, attention, the kernels of rows and of one token of a batch on the GPU at hand: each against its
//! definition, then their times inside a CUDA graph.
//!
//! `cargo run --release -p kernels --example chunked_speed [-- FILE [attention|kda]]`: a table on standard output, JSON lines in
//! FILE; with `attention` of the prefill of attention alone, to be run in turn with its peers; with `kda` of Kimi Delta
//! Attention alone, and of the gated delta rule's training beside it.

mod kda;
mod layers;
mod report;

use kernels::cuda::chunked::check::{Case, Problem};
use kernels::cuda::chunked::{Chunked, Rule, Shape};
use kernels::cuda::gpu::Gpu;
use kernels::cuda::{Error, Launch, Machine};
use serde_json::json;

use report::{Report, time};

fn shape(batch: usize, tokens: usize, heads: (usize, usize), widths: (usize, usize)) -> Shape {
    Shape {
        batch,
        tokens,
        heads: heads.0,
        key_heads: heads.1,
        key_width: widths.0,
        value_width: widths.1,
        wide: false,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).map(std::fs::File::create).transpose()?;
    let mut report = Report::new(file);
    let mut gpu = Gpu::open(0)?;
    let facts = gpu.facts();
    report.row("device", &json!({ "gpu": facts.name, "driver": facts.driver_version }));
    match std::env::args().nth(2).as_deref() {
        Some("attention") => layers::attention(&mut gpu, &mut report)?,
        Some("kda") => {
            kda::checks(&mut gpu, &mut report)?;
            kda::prefill(&mut gpu, &mut report)?;
            kda::training(&mut gpu, &mut report)?;
            training(&mut gpu, &mut report, Some(Rule::Delta))?;
        }
        _ => {
            checks(&mut gpu, &mut report)?;
            layers::checks(&mut gpu, &mut report)?;
            kda::checks(&mut gpu, &mut report)?;
            prefill(&mut gpu, &mut report)?;
            kda::prefill(&mut gpu, &mut report)?;
            training(&mut gpu, &mut report, None)?;
            kda::training(&mut gpu, &mut report)?;
            layers::times(&mut gpu, &mut report)?;
        }
    }
    for r in gpu.resources().to_vec() {
        let values = json!({ "registers": r.registers, "spill_bytes": r.spill_store_bytes });
        report.row(&r.kernel, &values);
    }
    if report.wrong > 0 {
        return Err(format!("{} results are wrong", report.wrong).into());
    }
    Ok(())
}

/// Products round their operands to bf16, 2⁻⁹ each; a long sequence with values of β up to 1.6 adds a little.
const LIMIT: f64 = 1e-2;
/// Products of fp32 numbers leave out 2⁻¹⁶.
const WIDE_LIMIT: f64 = 1e-4;

fn in_fp32(shape: Shape) -> Shape {
    Shape { wide: true, ..shape }
}

fn checks(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    use Rule::{Delta, LinearAttention};
    let cases = [
        ("gated delta rule", Delta, shape(2, 1000, (4, 2), (128, 128)), true, true),
        ("gated delta rule, wide values", Delta, shape(1, 700, (2, 2), (128, 256)), true, true),
        ("delta rule", Delta, shape(2, 63, (3, 3), (64, 64)), false, true),
        ("delta rule, one position", Delta, shape(3, 1, (2, 1), (96, 48)), true, true),
        ("linear attention", LinearAttention, shape(2, 1000, (6, 1), (128, 64)), true, true),
        ("linear attention, odd", LinearAttention, shape(1, 100, (2, 2), (32, 80)), true, true),
        ("gated delta rule, 8192", Delta, shape(1, 8192, (32, 16), (128, 128)), true, false),
        ("gated delta rule, fp32", Delta, in_fp32(shape(1, 700, (2, 2), (128, 256))), true, true),
        (
            "linear attention, fp32",
            LinearAttention,
            in_fp32(shape(1, 100, (2, 2), (32, 80))),
            true,
            true,
        ),
    ];
    for (name, rule, shape, decay, backward) in cases {
        let case = Case { rule, shape, decay, backward, compared: 3 };
        let problem = Problem::new(gpu, case, 11)?;
        let chunked = Chunked::new(rule, shape, problem.scale(), gpu.extent())?;
        let errors = problem.errors(gpu, &chunked)?;
        problem.free(gpu)?;
        report.check(name, &errors, if shape.wide { WIDE_LIMIT } else { LIMIT });
    }
    Ok(())
}

fn prefill(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    use Rule::{Delta, LinearAttention};
    let cases = [
        ("gated delta rule 1x8192", Delta, shape(1, 8192, (32, 16), (128, 128)), true),
        ("delta rule 1x8192", Delta, shape(1, 8192, (32, 32), (128, 128)), false),
        ("linear attention 1x8192", LinearAttention, shape(1, 8192, (32, 32), (128, 128)), true),
        ("gated delta rule 1x32768", Delta, shape(1, 32768, (32, 16), (128, 128)), true),
        ("gated delta rule 8x4096", Delta, shape(8, 4096, (8, 8), (128, 256)), true),
        ("Mamba2 1x8192", LinearAttention, shape(1, 8192, (64, 1), (128, 64)), true),
        (
            "gated delta rule 1x8192 fp32",
            Delta,
            in_fp32(shape(1, 8192, (32, 16), (128, 128))),
            true,
        ),
    ];
    for (name, rule, shape, decay) in cases {
        let case = Case { rule, shape, decay, backward: false, compared: 1 };
        let problem = Problem::new(gpu, case, 11)?;
        let chunked = Chunked::new(rule, shape, problem.scale(), gpu.extent())?;
        let launches = problem.forward(&chunked, false);
        let (prepare, _) = time(gpu, &launches[..1])?;
        let (walk, _) = time(gpu, &launches[1..])?;
        let (ms, spread) = time(gpu, &launches)?;
        report.row(
            &format!("prefill {name}"),
            &json!({
                "ms": ms, "spread_ms": spread, "prepare_ms": prepare, "walk_ms": walk,
                "GFLOP": shape.flops(rule) / 1e9, "GB": shape.bytes(rule) / 1e9,
            }),
        );
        problem.free(gpu)?;
    }
    Ok(())
}

/// Of both rules, or of one.
fn training(gpu: &mut Gpu, report: &mut Report, only: Option<Rule>) -> Result<(), Error> {
    use Rule::{Delta, LinearAttention};
    let cases = [
        ("gated delta rule 4x4096", Delta, shape(4, 4096, (12, 12), (128, 256)), true),
        (
            "gated delta rule 4x4096, 16 heads of 128",
            Delta,
            shape(4, 4096, (16, 16), (128, 128)),
            true,
        ),
        ("Mamba2 4x4096", LinearAttention, shape(4, 4096, (64, 1), (128, 64)), true),
        ("gated delta rule 1x32768", Delta, shape(1, 32768, (12, 12), (128, 256)), true),
        (
            "gated delta rule 4x4096 fp32",
            Delta,
            in_fp32(shape(4, 4096, (12, 12), (128, 256))),
            true,
        ),
    ];
    let wanted = |rule: &Rule| only.is_none_or(|only| only == *rule);
    for (name, rule, shape, decay) in cases.into_iter().filter(|case| wanted(&case.1)) {
        let case = Case { rule, shape, decay, backward: true, compared: 1 };
        let problem = Problem::new(gpu, case, 11)?;
        let chunked = Chunked::new(rule, shape, problem.scale(), gpu.extent())?;
        let (forward, backward) = (problem.forward(&chunked, true), problem.backward(&chunked));
        let (prepare, _) = time(gpu, &forward[..1])?;
        let (walk, _) = time(gpu, &forward[1..])?;
        let (back, _) = time(gpu, &backward[..1])?;
        let (rest, _) = time(gpu, &backward[1..])?;
        let all: Vec<Launch> = forward.into_iter().chain(backward).collect();
        let (ms, spread) = time(gpu, &all)?;
        report.row(
            &format!("training {name}"),
            &json!({
                "ms": ms, "spread_ms": spread, "prepare_ms": prepare, "walk_ms": walk,
                "walk_back_ms": back, "gradients_ms": rest,
                // the gradients of what is read, and those of what is written
                "GFLOP": 3.0 * shape.flops(rule) / 1e9, "GB": 3.0 * shape.bytes(rule) / 1e9,
            }),
        );
        problem.free(gpu)?;
    }
    Ok(())
}
