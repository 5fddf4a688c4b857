//! How well composed latencies agree with whole models: `cargo bench -p profiles --bench composed`; options after `--`:
//! a number of stacks (50), `fp32`, `bf16` or `int8`, and `2threads`. Memory in huge pages, which the driver asks for when
//! it starts the profiler, is asked for by `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` here.
//!
//! Draws random stacks, half of them from the space of a new campaign file and half from one with wider models, and
//! times each as a whole beside the sum of its parts. A row with `!` holds a timing that other processes disturbed.

use std::collections::HashMap;
use std::io::{self, Write};

use kernels::timing::Plan;
use profiles::backend::Backend;
use profiles::cpu::Profiler;
use rand::SeedableRng;
use search::config::{CampaignFile, TEMPLATE};
use search::latency::{Conditions, Dtype, LatencyKey, Phase, Timing, keys};
use search::statistics::kendall;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let stacks = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(50);
    let has = |word: &str| arguments.iter().any(|a| a == word);
    let dtype = match (has("bf16"), has("int8")) {
        (true, _) => Dtype::Bf16,
        (_, true) => Dtype::Int8,
        _ => Dtype::F32,
    };
    let threads = if has("2threads") { 2 } else { 1 };
    let profiler = Profiler::new(Plan::default());
    let mut out = io::stdout().lock();
    writeln!(out, "{}, {}, {dtype}, {threads} threads", profiler.hardware(), kernels::version())?;

    let spaces = [TEMPLATE.to_owned(), TEMPLATE.replace("[64, 96, 128, 160]", "[192, 256, 384]")]
        .map(|text| {
            let file = CampaignFile::parse(&text).expect("the template is a campaign file");
            file.space().expect("the template has a space")
        });
    let mut random = rand::rngs::ChaCha8Rng::seed_from_u64(0);
    let mut parts: HashMap<LatencyKey, Timing> = HashMap::new();
    let mut pairs = [Vec::new(), Vec::new()];
    for number in 0..stacks {
        let architecture = spaces[number % 2].sample(&mut random);
        for (phase, pairs) in [Phase::Decode { context: 512 }, Phase::Prefill { tokens: 512 }]
            .into_iter()
            .zip(&mut pairs)
        {
            let device = profiler.hardware().to_owned();
            let conditions = Conditions { device, dtype, batch: 1, threads, phase };
            let whole = profiler.whole(&architecture, &conditions).expect("it can be timed here");
            let mut composed = 0.0;
            let mut disturbed = whole.is_disturbed();
            for key in keys(&architecture, &conditions) {
                let timing = parts
                    .entry(key)
                    .or_insert_with_key(|key| profiler.part(key).expect("it can be timed here"));
                composed += timing.median_us;
                disturbed |= timing.is_disturbed();
            }
            let error = 100.0 * (composed / whole.median_us - 1.0);
            let mark = if disturbed { '!' } else { ' ' };
            let word = if matches!(phase, Phase::Decode { .. }) { "decode" } else { "prefill" };
            writeln!(
                out,
                "{word:8} whole {:10.1} ± {:5.1} µs, composed {composed:10.1} µs {error:+6.1} % {mark} {architecture}",
                whole.median_us, whole.spread_us,
            )?;
            out.flush()?;
            pairs.push((whole.median_us, composed));
        }
    }
    for (word, pairs) in ["decode", "prefill"].into_iter().zip(&pairs) {
        let errors = pairs.iter().map(|(whole, composed)| (composed / whole - 1.0).abs());
        writeln!(
            out,
            "{word}: {} stacks, mean error {:.1} %, largest {:.1} %, Kendall τ {:.3}",
            pairs.len(),
            100.0 * errors.clone().sum::<f64>() / pairs.len() as f64,
            100.0 * errors.fold(0.0, f64::max),
            kendall(pairs).map_or(1.0, |correlation| correlation.value),
        )?;
    }
    writeln!(out, "{} parts timed", parts.len())
}
