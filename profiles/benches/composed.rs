//! How well composed latencies agree with whole models: `cargo bench -p profiles --bench composed`; options after `--`:
//! a number of stacks (50), `fp32`, `bf16` or `int8`, `2threads`, `avx2`: as a machine without AVX-512, and `par-moe`: a
//! third of the stacks from a space of parallel heads and mixtures of experts. Memory in
//! huge pages, which the driver asks for when it starts the profiler, is asked for by
//! `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` here.
//!
//! Draws random stacks, as many from the space of a new campaign file as from one with wider models, and
//! times each as a whole beside the sum of its parts, and as a whole once more at the end, minutes later: by as much as
//! those two differ nothing can foretell either. A row with `!` holds a timing that other processes disturbed. Then what a
//! campaign makes of it: the first stacks of each space tell what the sums of the others are worth, and, timed once more,
//! how far the machine drifts. How often the ± that a campaign shows at its end holds what was timed is said last.

use std::collections::HashMap;
use std::io::{self, Write};

use kernels::cpu::Level;
use kernels::timing::Plan;
use profiles::backend::Backend;
use profiles::cpu::Profiler;
use rand::SeedableRng;
use search::Architecture;
use search::campaign::LatencyTable;
use search::campaign::calibration::{Calibration, SAMPLE};
use search::campaign::drift::Drift;
use search::config::{CampaignFile, TEMPLATE};
use search::latency::{Conditions, Dtype, LatencyEntry, Phase, Timing, keys};
use search::space::Space;
use search::statistics::kendall;
use search::value::Value;

/// A deviation of a normal variable that nine of ten are within.
const NINE_OF_TEN: f64 = 1.645;
/// Two timings of one model that differ by more show a machine that was not the same.
const SAME: f64 = 0.04;

/// Parallel heads and mixtures of experts beside Gated DeltaNet, attention and networks that every token goes through.
const PAR_MOE: &str = r#"
name = "par-moe"
[space]
vocab = 256
d_model = [96, 160, 256]
depth = { min = 2, max = 6 }
ffn = ["none", "3x", "moe e=8 k=2 1x", "moe e=16 k=2 s=1 96"]
[space.mixers.par]
head_width = [32]
window = [0, 64]
beside = ["m2", "gdn", "dn"]
beside_key_width = [32]
branch_norms = [true, false]
[space.mixers.gdn]
key_width = [32]
[space.mixers.attn]
head_width = [32]
[data]
corpus = "corpus.txt"
"#;

/// One stack under one set of conditions.
struct Row {
    architecture: Architecture,
    conditions: Conditions,
    whole: Timing,
    /// The same minutes later; until then the first.
    again: Timing,
    sum: Value,
}

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
    if has("avx2") {
        Level::limit(Level::Avx2);
    }
    let profiler = Profiler::new(Plan::default());
    let mut out = io::stdout().lock();
    writeln!(out, "{}, {}, {dtype}, {threads} threads", profiler.hardware(), kernels::version())?;

    let mut texts =
        vec![TEMPLATE.to_owned(), TEMPLATE.replace("[64, 96, 128, 160]", "[192, 256, 384]")];
    texts.extend(has("par-moe").then(|| PAR_MOE.to_owned()));
    let spaces: Vec<Space> = texts
        .iter()
        .map(|text| {
            let file = CampaignFile::parse(text).expect("it is a campaign file");
            file.space().expect("it has a space")
        })
        .collect();
    let mut random = rand::rngs::ChaCha8Rng::seed_from_u64(0);
    let mut table = LatencyTable::default();
    let mut disturbed: HashMap<String, bool> = HashMap::new();
    let mut phases = [Vec::new(), Vec::new()];
    for number in 0..stacks {
        let architecture = spaces[number % spaces.len()].sample(&mut random);
        for (phase, rows) in [Phase::Decode { context: 512 }, Phase::Prefill { tokens: 512 }]
            .into_iter()
            .zip(&mut phases)
        {
            let device = profiler.hardware().to_owned();
            let conditions = Conditions { device, dtype, batch: 1, threads, phase };
            let whole = profiler.whole(&architecture, &conditions).expect("it can be timed here");
            let mut is_disturbed = whole.is_disturbed();
            for key in keys(&architecture, &conditions) {
                let name = key.to_string();
                if !table.contains(&key) {
                    let timing = profiler.part(&key).expect("it can be timed here");
                    disturbed.insert(name.clone(), timing.is_disturbed());
                    table.insert(LatencyEntry { key, timing });
                }
                is_disturbed |= disturbed[&name];
            }
            let sum = table.compose(&architecture, &conditions).expect("all parts are timed");
            let mark = if is_disturbed { '!' } else { ' ' };
            writeln!(
                out,
                "{:8} whole {:10.1} ± {:5.1} µs, composed {:10.1} µs {:+6.1} % {mark} {architecture}",
                word(phase),
                whole.median_us,
                whole.spread_us,
                sum.mean,
                100.0 * (sum.mean / whole.median_us - 1.0),
            )?;
            out.flush()?;
            let (again, architecture) = (whole.clone(), architecture.clone());
            rows.push(Row { architecture, conditions, whole, again, sum });
        }
    }
    for row in phases.iter_mut().flatten() {
        let again = profiler.whole(&row.architecture, &row.conditions);
        row.again = again.expect("it was timed before");
        let off = 100.0 * (row.again.over(&row.whole) - 1.0);
        let phase = word(row.conditions.phase);
        let stack = &row.architecture;
        writeln!(out, "{phase:8} again {:10.1} µs {off:+6.1} %   {stack}", row.again.median_us)?;
        out.flush()?;
    }
    for rows in &phases {
        conclude(&mut out, rows, spaces.len())?;
    }
    Ok(())
}

fn word(phase: Phase) -> &'static str {
    if matches!(phase, Phase::Decode { .. }) { "decode" } else { "prefill" }
}

fn conclude(out: &mut impl Write, rows: &[Row], spaces: usize) -> io::Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let phase = word(first.conditions.phase);
    let sums: Vec<_> = rows.iter().map(|row| (row.sum.mean, row.whole.median_us)).collect();
    say(out, &format!("{phase}, sums beside whole models"), &sums)?;
    let again: Vec<_> = rows.iter().map(|row| (row.again.median_us, row.whole.median_us)).collect();
    say(out, &format!("{phase}, whole models beside themselves, minutes later"), &again)?;
    let (mut foretold, mut steady) = (Vec::new(), Vec::new());
    let mut held = Held::default();
    for space in 0..spaces {
        let of_space = || rows.iter().skip(space).step_by(spaces);
        let sample = || of_space().take(SAMPLE);
        let before = Calibration::of(sample().map(|row| (row.sum.mean, row.whole.median_us)));
        let drift = Drift::of(sample().map(|row| (&row.whole, &row.again)));
        let after = Calibration::of(sample().map(|row| (row.sum.mean, row.again.median_us)));
        let after = after.drifting(drift);
        for row in of_space().skip(SAMPLE) {
            let expected = before.expected(row.sum);
            foretold.push((expected.mean, row.whole.median_us));
            if (row.again.over(&row.whole) - 1.0).abs() <= SAME {
                steady.push((expected.mean, row.whole.median_us));
            }
            held.add(row, expected, after.expected(row.sum), after.of_whole(&row.again));
        }
        let Drift { common, individual } = drift;
        let (common, individual) = (100.0 * common, 100.0 * individual);
        writeln!(
            out,
            "{phase}, drift of space {}: {common:.1} % of all alike, {individual:.1} % of each by itself",
            space + 1
        )?;
    }
    say(
        out,
        &format!("{phase}, foretold from sums and {SAMPLE} whole models of a space"),
        &foretold,
    )?;
    let what = format!("{phase}, of these the ones that took the same again to {} %", 100.0 * SAME);
    say(out, &what, &steady)?;
    held.say(out, phase, foretold.len())
}

/// How many times 1.645 ± held what was timed.
#[derive(Default)]
struct Held {
    /// Of sums, while no drift is known: the whole model of the same minutes.
    before: usize,
    /// Of sums, at the end of a campaign: the whole model then …
    composed: usize,
    /// … and minutes before.
    composed_earlier: usize,
    /// Of whole models, at the end of a campaign: the same minutes before.
    whole: usize,
    /// Of whole models, as the spread of a timing has it.
    spread: usize,
}

impl Held {
    fn add(&mut self, row: &Row, before: Value, composed: Value, whole: Value) {
        let holds = |value: Value, timing: &Timing| {
            let reach = NINE_OF_TEN * value.standard_error.unwrap_or(0.0);
            usize::from((value.mean - timing.median_us).abs() <= reach)
        };
        self.before += holds(before, &row.whole);
        self.composed += holds(composed, &row.again);
        self.composed_earlier += holds(composed, &row.whole);
        self.whole += holds(whole, &row.whole);
        self.spread += holds(row.again.value(), &row.whole);
    }

    fn say(&self, out: &mut impl Write, phase: &str, count: usize) -> io::Result<()> {
        for (held, what) in [
            (self.before, "sums, before the drift is known: the whole model of the same minutes"),
            (self.composed, "sums, at the end: the whole model then"),
            (self.composed_earlier, "sums, at the end: the whole model minutes before"),
            (self.whole, "whole models, at the end: the same minutes before"),
            (self.spread, "whole models, by the spread of a timing alone: the same minutes before"),
        ] {
            writeln!(out, "{phase}: {held} of {count} within {NINE_OF_TEN} ± of {what}")?;
        }
        Ok(())
    }
}

/// How far the first of each pair is from the second.
fn say(out: &mut impl Write, what: &str, pairs: &[(f64, f64)]) -> io::Result<()> {
    let errors = pairs.iter().map(|(of, truth)| of / truth - 1.0);
    let n = pairs.len().max(1) as f64;
    writeln!(
        out,
        "{what}: {} stacks, mean error {:.1} % (signed {:+.1} %), largest {:.1} %, Kendall τ {:.3}",
        pairs.len(),
        100.0 * errors.clone().map(f64::abs).sum::<f64>() / n,
        100.0 * errors.clone().sum::<f64>() / n,
        100.0 * errors.map(f64::abs).fold(0.0, f64::max),
        kendall(pairs).map_or(1.0, |correlation| correlation.value),
    )
}
