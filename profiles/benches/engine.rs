//! How close the engine is to what this machine can do: `cargo bench -p profiles`; with `-- quick`, a disturbed
//! timing is taken as it is.
//!
//! Prints the limits measured on this machine (reading memory, multiplying), then decode and prefill of hybrids beside
//! their bounds, and how well composed latencies agree with whole models. A figure with `!` was disturbed by other
//! processes, whose share of the machine stands at the end of its line.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::Duration;

use kernels::cpu::{Matrix, Pool};
use kernels::device::Cpu;
use kernels::timing::{Measurement, Plan, measure};
use profiles::measure::Profiler;
use search::Architecture;
use search::latency::{Conditions, Dtype, Phase, Timing, keys};

/// The 4-block hybrids at d 256 whose decode times other runtimes are known by, and a stack of 100 M parameters.
const STACKS: [(&str, &str); 4] = [
    (
        "GDN hybrid",
        "d=256,vocab=256,tied | 3*gdn(h=3,k=64,v=128)+ffn(768) | attn(h=4,kv=4,k=64)+ffn(768)",
    ),
    (
        "Mamba2-attention hybrid",
        "d=256,vocab=256,tied | 2*m2(h=8,p=64,n=128)+ffn(768) | attn(h=4,kv=4,k=64)+ffn(768) | m2(h=8,p=64,n=128)+ffn(768)",
    ),
    ("Mamba2", "d=256,vocab=256,tied | 4*m2(h=8,p=64,n=128)"),
    (
        "100 M",
        "d=1024,vocab=4096,tied | 6*gdn(h=6,k=128,v=256)+ffn(2816) | swa(h=16,kv=4,k=64,w=256)+ffn(2816)",
    ),
];

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let quick = std::env::args().any(|argument| argument == "quick");
    let plan = Plan {
        time: Duration::from_millis(400),
        patience: Duration::from_secs(if quick { 0 } else { 20 }),
        ..Plan::default()
    };
    let cpu = Cpu::read();
    writeln!(out, "{}, {} cores, {}", cpu.name, cpu.cores, kernels::version())?;
    let threads_all = [1, cpu.cores];
    for threads in threads_all {
        limits(&mut out, &plan, threads)?;
    }
    let profiler = Profiler::new(plan);
    for threads in threads_all {
        for (name, text) in STACKS {
            let architecture: Architecture = text.parse().expect("the stacks above are valid");
            let parameters = search::tensors::parameters(&architecture);
            for phase in [Phase::Decode { context: 512 }, Phase::Prefill { tokens: 512 }] {
                let conditions = Conditions {
                    device: profiler.device().to_owned(),
                    dtype: Dtype::F32,
                    batch: 1,
                    threads: threads as u32,
                    phase,
                };
                let time =
                    |what: Result<Timing, _>| what.expect("the conditions hold on this machine");
                let whole = time(profiler.whole(&architecture, &conditions));
                let composed: f64 = keys(&architecture, &conditions)
                    .map(|key| time(profiler.part(&key)).median_us)
                    .sum();
                let (per_token, rate) = match phase {
                    Phase::Decode { .. } => (1.0, parameters as f64 * 4.0 / whole.median_us / 1e3),
                    Phase::Prefill { tokens } => {
                        let tokens = f64::from(tokens);
                        (tokens, 2.0 * parameters as f64 * tokens / whole.median_us / 1e3)
                    }
                };
                let unit = if per_token > 1.0 { "GFLOP/s" } else { "GB/s" };
                writeln!(
                    out,
                    "{name:24} {threads} threads {phase:?}: {:9.1} ± {:.1} µs ({:.1} µs/token, {:.0} tokens/s, {rate:.0} {unit} of weights), composed {:+.1} %, load {:.2}{}",
                    whole.median_us,
                    whole.spread_us,
                    whole.median_us / per_token,
                    per_token * 1e6 / whole.median_us,
                    100.0 * (composed / whole.median_us - 1.0),
                    whole.other_load,
                    if whole.is_disturbed() { " !" } else { "" },
                )?;
                out.flush()?;
            }
        }
    }
    Ok(())
}

fn limits(out: &mut impl Write, plan: &Plan, threads: usize) -> io::Result<()> {
    let pool = Pool::new(threads);
    for mib in [1, 16, 256] {
        let values = vec![1.0_f32; mib << 18];
        let read = measure(plan, || {
            pool.for_each(threads, |thread| {
                let part = values.len() / threads;
                black_box(sum(&values[thread * part..][..part]));
            });
        });
        let bytes = values.len() as f64 * 4.0;
        line(
            out,
            &format!("{threads} threads, read {mib} MiB"),
            bytes / read.median_us / 1e3,
            "GB/s",
            &read,
        )?;
    }
    let n = 1024;
    let matrix = Matrix::from_rows(&vec![0.5; n * n], n, n);
    let (x, mut y) = (vec![0.5; 512 * n], vec![0.0; 512 * n]);
    let multiply = measure(plan, || matrix.apply(&pool, &x, &mut y));
    let flop = 2.0 * 512.0 * (n * n) as f64;
    line(
        out,
        &format!("{threads} threads, product 512×{n}×{n}"),
        flop / multiply.median_us / 1e3,
        "GFLOP/s",
        &multiply,
    )
}

fn line(
    out: &mut impl Write,
    what: &str,
    value: f64,
    unit: &str,
    m: &Measurement,
) -> io::Result<()> {
    let load = m.other_load.unwrap_or(0.0);
    let mark = if load > 0.05 { " !" } else { "" };
    writeln!(out, "{what:36} {value:8.1} {unit}, load {load:.2}{mark}")
}

/// A sum with enough independent additions to wait for nothing but the reads.
fn sum(values: &[f32]) -> f32 {
    let mut sums = [0.0; 128];
    for chunk in values.as_chunks::<128>().0 {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    sums.iter().sum()
}
