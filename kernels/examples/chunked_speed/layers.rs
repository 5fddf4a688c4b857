//! Attention, the kernels of rows and those of one token of a batch.

use kernels::cuda::attention::check::{Case, Problem};
use kernels::cuda::attention::{Attention, Shape};
use kernels::cuda::chunked::Rows;
use kernels::cuda::gpu::Gpu;
use kernels::cuda::rows::{self, Gather, Swiglu};
use kernels::cuda::short_conv::ShortConv;
use kernels::cuda::step::{self, ConvStep, RecurrentStep, Rule};
use kernels::cuda::{Error, Launch, Machine, upload_new};
use serde_json::json;

use crate::report::{Report, time};

/// More than the last-level cache holds.
const COLD_BYTES: f64 = 300e6;

fn shape(
    batch: usize,
    tokens: usize,
    heads: (usize, usize),
    width: usize,
    window: Option<usize>,
) -> Shape {
    Shape { batch, tokens, heads: heads.0, kv_heads: heads.1, width, window }
}

fn recurrent(
    rule: Rule,
    batch: usize,
    heads: (usize, usize),
    widths: (usize, usize),
) -> RecurrentStep {
    RecurrentStep {
        rule,
        batch,
        heads: heads.0,
        key_heads: heads.1,
        key_width: widths.0,
        value_width: widths.1,
    }
}

/// Every kernel against its definition.
pub(crate) fn checks(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    let cases = [
        ("attention", shape(2, 1000, (8, 2), 128, None), true, 0),
        ("attention, head width 64, window", shape(1, 3000, (6, 3), 64, Some(300)), false, 0),
        ("attention, short", shape(1, 63, (2, 1), 96, None), false, 0),
        ("attention 1x8192", shape(1, 8192, (16, 16), 128, None), false, 0),
        ("attention of a batch's token", shape(32, 1, (16, 4), 128, None), true, 3000),
        ("attention of a token, split", shape(3, 1, (32, 2), 64, None), false, 5000),
        ("attention of a token, window", shape(5, 1, (4, 4), 128, Some(1000)), false, 4000),
    ];
    for (name, shape, norm, past) in cases {
        let case = Case { shape, norm, past, compared: 9 };
        let attention = Attention::new(shape, gpu.extent())?;
        let problem = Problem::new(gpu, case, &attention, 11)?;
        let [output, cache] = problem.errors(gpu, &attention)?;
        problem.free(gpu)?;
        report.check(name, &[("output", output), ("cache", cache)], 5e-3);
    }
    let cases = [
        ("token of Gated DeltaNet", recurrent(Rule::Delta(1), 9, (12, 12), (128, 256)), true, 1.0),
        ("token of DeltaNet", recurrent(Rule::Delta(1), 2, (6, 3), (64, 48)), false, 1.0),
        ("token of DeltaProduct", recurrent(Rule::Delta(3), 3, (4, 4), (128, 128)), true, 2.0),
        ("token of Mamba2", recurrent(Rule::Mamba2, 5, (64, 1), (128, 64)), true, 1.0),
    ];
    for (name, step, decay, largest_beta) in cases {
        step.check()?;
        let problem = step::check::Problem::new(gpu, step, decay, largest_beta, 11)?;
        let [output, state] = problem.errors(gpu, 2)?;
        problem.free(gpu)?;
        report.check(name, &[("output", output), ("state x 1000", 1e3 * state)], 5e-3);
    }
    let mut errors = rows::check::errors(gpu, 300, 2048)?;
    errors.extend(rows::check::norm_errors(gpu, 300, 2048)?);
    report.check("rows", &errors, 5e-3);
    Ok(())
}

/// Their times, beside the bytes and operations that they cannot do without.
pub(crate) fn times(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    let copied = copied_bytes_per_ms(gpu, report)?;
    attention(gpu, report)?;
    attention_steps(gpu, report, copied)?;
    recurrent_steps(gpu, report, copied)?;
    row_kernels(gpu, report, copied)
}

/// Bytes that a plain copy reads and writes in a millisecond.
fn copied_bytes_per_ms(gpu: &mut Gpu, report: &mut Report) -> Result<f64, Error> {
    let bytes = 1 << 30;
    let rate = 2.0 * bytes as f64 / gpu.copy_ms(bytes)?;
    report.row("copy", &json!({ "GB_per_s": (rate / 1e6).round() }));
    Ok(rate)
}

/// Prefill: attention alone, and what norms, rotates and caches before it.
pub(crate) fn attention(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    let cases = [
        ("1x8192, 16 heads of 128", shape(1, 8192, (16, 16), 128, None)),
        ("1x8192, 16 heads of 128 over 4", shape(1, 8192, (16, 4), 128, None)),
        ("1x8192, window 1024", shape(1, 8192, (16, 16), 128, Some(1024))),
        ("1x8192, 32 heads of 64", shape(1, 8192, (32, 32), 64, None)),
        ("4x4096, 16 heads of 128", shape(4, 4096, (16, 16), 128, None)),
        ("1x32768, 16 heads of 128", shape(1, 32768, (16, 16), 128, None)),
        ("1x1024, 16 heads of 128", shape(1, 1024, (16, 16), 128, None)),
    ];
    for (name, shape) in cases {
        let attention = Attention::new(shape, gpu.extent())?;
        let case = Case { shape, norm: true, past: 0, compared: 1 };
        let problem = Problem::new(gpu, case, &attention, 11)?;
        let (rotate, _) = time(gpu, &[problem.rotate(&attention)])?;
        let (ms, spread) = time(gpu, &problem.attend(&attention))?;
        problem.free(gpu)?;
        report.row(
            &format!("prefill attention {name}"),
            &json!({
                "ms": ms, "spread_ms": spread, "rotate_ms": rotate, "GFLOP": shape.flops() / 1e9,
                "GB": shape.bytes() / 1e9, "TFLOP_per_s": (shape.flops() / ms / 1e9).round(),
            }),
        );
    }
    Ok(())
}

/// Time of one of several pieces of the same work, `bytes` each, which together are colder than the last-level cache.
fn cold(
    gpu: &mut Gpu,
    report: &mut Report,
    name: &str,
    pieces: &[Vec<Launch>],
    (bytes, copied): (f64, f64),
) -> Result<(), Error> {
    let (ms, spread) = time(gpu, &pieces.concat())?;
    let count = pieces.len() as f64;
    let (ms, spread) = (ms / count, spread / count);
    report.row(
        name,
        &json!({
            "ms": ms, "spread_ms": spread, "GB": bytes / 1e9,
            "GB_per_s": (bytes / ms / 1e6).round(), "share_of_copy": bytes / copied / ms,
        }),
    );
    Ok(())
}

fn copies(bytes: f64) -> usize {
    (COLD_BYTES / bytes) as usize + 1
}

fn attention_steps(gpu: &mut Gpu, report: &mut Report, copied: f64) -> Result<(), Error> {
    let cases = [
        (8, (16, 4), 128, None, 8191),
        (32, (16, 4), 128, None, 8191),
        (128, (16, 4), 128, None, 2047),
        (32, (16, 16), 128, None, 2047),
        (32, (16, 4), 64, None, 8191),
        (32, (16, 4), 128, Some(1024), 8191),
    ];
    for (batch, heads, width, window, past) in cases {
        let shape = shape(batch, 1, heads, width, window);
        let attention = Attention::new(shape, gpu.extent())?;
        // a batch whose sequences are all as long as its last
        let case = Case { shape, norm: false, past, compared: 1 };
        let bytes = shape.step_bytes(past + 1);
        let mut problems = Vec::new();
        for seed in 0..copies(bytes) as u64 {
            problems.push(Problem::new(gpu, case, &attention, seed)?.all_as_long(gpu)?);
        }
        let pieces: Vec<Vec<Launch>> = problems.iter().map(|p| p.attend(&attention)).collect();
        let seen = window.map_or(String::new(), |window| format!("{window} of "));
        let (heads, kv) = heads;
        let name = format!(
            "step attention {batch} x {seen}{}, {heads} heads of {width} over {kv}",
            past + 1
        );
        cold(gpu, report, &name, &pieces, (bytes, copied))?;
        problems.into_iter().try_for_each(|problem| problem.free(gpu))?;
    }
    Ok(())
}

fn recurrent_steps(gpu: &mut Gpu, report: &mut Report, copied: f64) -> Result<(), Error> {
    let delta = Rule::Delta(1);
    let cases = [
        ("Gated DeltaNet 12 heads 128x256", recurrent(delta, 1, (12, 12), (128, 256)), true),
        ("DeltaNet 16 heads 128x128", recurrent(delta, 1, (16, 16), (128, 128)), false),
        (
            "DeltaProduct(2) 16 heads 128x128",
            recurrent(Rule::Delta(2), 1, (16, 16), (128, 128)),
            true,
        ),
        ("Mamba2 64 heads 128x64", recurrent(Rule::Mamba2, 1, (64, 1), (128, 64)), true),
    ];
    for (name, step, decay) in cases {
        for batch in [8, 32, 128] {
            let step = RecurrentStep { batch, ..step };
            let mut problems = Vec::new();
            for seed in 0..copies(step.bytes()) as u64 {
                problems.push(step::check::Problem::new(gpu, step, decay, 1.0, seed)?);
            }
            let pieces: Vec<Vec<Launch>> = problems.iter().map(|p| vec![p.launch()]).collect();
            let name = format!("step {batch} x {name}");
            cold(gpu, report, &name, &pieces, (step.bytes(), copied))?;
            problems.into_iter().try_for_each(|problem| problem.free(gpu))?;
        }
    }
    for batch in [32, 128] {
        let conv = ConvStep { batch, channels: 6144 };
        let positions = upload_new(gpu, &vec![9_u32; batch])?;
        let mut addresses = vec![positions];
        let mut pieces = Vec::new();
        for _ in 0..copies(conv.bytes()).min(64) {
            let sizes = [batch * 2, 16, batch * 8, batch * 2].map(|n| n * conv.channels);
            let mut taken = Vec::new();
            for bytes in sizes {
                taken.push(gpu.allocate(bytes)?);
                gpu.pretend(*taken.last().unwrap_or(&0), bytes)?;
            }
            let [x, weight, ring, y] = [taken[0], taken[1], taken[2], taken[3]];
            let x = Rows { address: x, stride: conv.channels };
            pieces.push(vec![conv.forward(x, (weight, 0), ring, positions, y)]);
            addresses.extend(taken);
        }
        let name = format!("step {batch} x short convolution of 6144 channels");
        cold(gpu, report, &name, &pieces, (conv.bytes(), copied))?;
        addresses.into_iter().try_for_each(|address| gpu.free(address))?;
    }
    Ok(())
}

/// At 8192 rows of 2048 and a SwiGLU of 6144.
fn row_kernels(gpu: &mut Gpu, report: &mut Report, copied: f64) -> Result<(), Error> {
    let (rows, width, inner) = (8192, 2048, 6144);
    let wide = gpu.allocate(rows * 2 * inner * 2)?;
    gpu.pretend(wide, rows * 2 * inner * 2)?;
    let [y, residual, table] =
        [inner, width, width].map(|columns| gpu.allocate(rows * columns * 2));
    let (y, residual, table) = (y?, residual?, table?);
    gpu.pretend(residual, rows * width * 2)?;
    let weight = upload_new(gpu, &vec![1.0_f32; 4 * inner])?;
    let entries: Vec<u32> = (0..rows).map(|row| (row * 5077 % rows) as u32).collect();
    let entries = upload_new(gpu, &entries)?;
    let norm = rows::check::norm(rows, width);
    let conv = ShortConv { batch: 1, tokens: rows, channels: inner, wide: false };
    let row = |stride| Rows { address: wide, stride };
    let swiglu = Swiglu { rows, width: inner, wide: false };
    let gather = Gather { rows, width };
    let works = [
        ("norm 8192x2048", 2 * width, norm.forward(row(width), row(width), weight, y)),
        ("norm of a sum 8192x2048", 4 * width, norm.add(row(width), residual, weight, y)),
        ("SwiGLU 8192x6144", 3 * inner, swiglu.forward(row(2 * inner), y)),
        ("short convolution 8192x6144", 2 * inner, conv.forward(row(inner), weight, 0, y)),
        ("embedding rows 8192x2048", 2 * width, gather.forward(table, entries, y)),
    ];
    for (name, columns, launch) in works {
        let bytes = (2 * rows * columns) as f64;
        cold(gpu, report, name, &[vec![launch]], (bytes, copied))?;
    }
    [wide, y, residual, table, weight, entries].into_iter().try_for_each(|at| gpu.free(at))
}
