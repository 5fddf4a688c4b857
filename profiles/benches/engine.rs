//! How close the engine is to what this machine can do: `cargo bench -p profiles --bench engine`; with `-- quick`, a
//! disturbed timing is taken as it is; with `-- bf16` or `int8`, in that storage; with `-- prefill` or `decode`, that alone;
//! with `-- contexts`, decode after 2,048 and 8,192 positions too.
//!
//! Prints the limits measured on this machine (reading memory, multiplying), then decode and prefill of hybrids beside
//! their bounds, and how well composed latencies agree with whole models. A figure with `!` was disturbed by other
//! processes, whose share of the machine stands at the end of its line.

use std::io::{self, Write};
use std::time::Duration;

use kernels::device::Cpu;
use kernels::timing::Plan;
use profiles::backend::Backend;
use profiles::cpu::Profiler;
use search::Architecture;
use search::latency::{Conditions, Dtype, Limit, Phase, Timing, keys};

/// The 4-block hybrids at d 256 whose decode times other runtimes are known by, and a stack of 100 M parameters.
const STACKS: [(&str, &str); 5] = [
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
        "LFM2's pattern",
        "d=256,vocab=256,tied | gsc(c=256,k=3)+ffn(768) | attn(h=4,kv=1,k=64)+ffn(768) | gsc(c=256,k=3)+ffn(768)",
    ),
    (
        "100 M",
        "d=1024,vocab=4096,tied | 6*gdn(h=6,k=128,v=256)+ffn(2816) | swa(h=16,kv=4,k=64,w=256)+ffn(2816)",
    ),
];

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    let quick = asked("quick");
    let dtype = [Dtype::F32, Dtype::Bf16, Dtype::Int8]
        .into_iter()
        .rfind(|dtype| asked(&dtype.to_string()))
        .unwrap_or(Dtype::F32);
    let mut phases = Vec::new();
    if !asked("prefill") {
        let contexts: &[u32] = if asked("contexts") { &[512, 2048, 8192] } else { &[512] };
        phases.extend(contexts.iter().map(|&context| Phase::Decode { context }));
    }
    if !asked("decode") {
        phases.push(Phase::Prefill { tokens: 512 });
    }
    let plan = Plan {
        time: Duration::from_millis(400),
        patience: Duration::from_secs(if quick { 0 } else { 20 }),
        ..Plan::default()
    };
    let cpu = Cpu::read();
    writeln!(out, "{}, {} cores, {}", cpu.name, cpu.cores, kernels::version())?;
    let threads_all = [1, cpu.cores];
    let profiler = Profiler::new(plan);
    for threads in threads_all {
        limits(&mut out, &profiler, threads)?;
    }
    for threads in threads_all {
        for (name, text) in STACKS {
            let architecture: Architecture = text.parse().expect("the stacks above are valid");
            let parameters = search::tensors::parameters(&architecture);
            for &phase in &phases {
                let conditions = Conditions {
                    device: profiler.hardware().to_owned(),
                    dtype,
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
                    Phase::Decode { .. } => {
                        (1.0, (parameters * dtype.bytes()) as f64 / whole.median_us / 1e3)
                    }
                    Phase::Prefill { tokens } => {
                        let tokens = f64::from(tokens);
                        (tokens, 2.0 * parameters as f64 * tokens / whole.median_us / 1e3)
                    }
                };
                let unit = if per_token > 1.0 { "GFLOP/s" } else { "GB/s" };
                writeln!(
                    out,
                    "{name:24} {dtype} {threads} threads {phase:?}: {:9.1} ± {:.1} µs ({:.1} µs/token, {:.0} tokens/s, {rate:.0} {unit} of weights), composed {:+.1} %, load {:.2}{}",
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

fn limits(out: &mut impl Write, profiler: &Profiler, threads: usize) -> io::Result<()> {
    let reads = [1, 16, 256].map(|mib| (Limit::Read { mib }, "GB/s"));
    for (limit, unit) in reads.into_iter().chain([(Limit::Product, "GFLOP/s")]) {
        let timing = profiler.limit(limit, threads as u32).expect("this machine has the threads");
        let mark = if timing.is_disturbed() { " !" } else { "" };
        writeln!(
            out,
            "{:50} {:8.1} {unit}, load {:.2}{mark}",
            format!("{threads} threads, {limit}"),
            limit.amount() / timing.median_us / 1e3,
            timing.other_load
        )?;
    }
    Ok(())
}
