//! All checks and measurements of the CUDA kernels on the GPU at hand, in one command: first each kernel against its
//! definition, then a table of times beside their floors. Needs a driver and NVRTC, nothing else.
//!
//! `deltafront-gpu [--json FILE] [--only TEXT]`: the table on standard output, the same as JSON lines in FILE; of the
//! checks and measurements only those whose name holds TEXT.

use std::io::Write;

use kernels::cuda::decode::definition::Definition;
use kernels::cuda::decode::{Decoder, Delta, Layer, Mixer, Stack};
use kernels::cuda::gpu::Gpu;
use kernels::cuda::layers::{Model, Section};
use kernels::cuda::weights::weight;
use kernels::cuda::{Error, bf16_bits};
use serde_json::json;

/// Where results go: a line for people, a line of JSON for programs.
struct Report {
    begin: std::time::Instant,
    json: Option<std::fs::File>,
    only: String,
    failures: usize,
}

impl Report {
    fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    fn row(&mut self, name: &str, values: &serde_json::Value) {
        let text = values.as_object().map_or_else(String::new, |object| {
            object.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join("  ")
        });
        let _ = writeln!(
            std::io::stdout(),
            "{:6.1} s  {name:<34} {text}",
            self.begin.elapsed().as_secs_f64()
        );
        if let Some(file) = &mut self.json {
            let mut line = json!({ "name": name });
            if let (Some(line), Some(values)) = (line.as_object_mut(), values.as_object()) {
                line.extend(values.clone());
            }
            let _ = writeln!(file, "{line}");
        }
    }

    fn check(&mut self, name: &str, error: f64, limit: f64) {
        let passed = error < limit;
        self.failures += usize::from(!passed);
        let verdict = if passed { "ok" } else { "WRONG" };
        self.row(&format!("check {name}"), &json!({ "relative_error": format!("{error:.2e}"), "limit": limit, "verdict": verdict }));
    }
}

fn main() -> std::process::ExitCode {
    let mut report = match report(std::env::args().skip(1)) {
        Ok(report) => report,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            return std::process::ExitCode::from(2);
        }
    };
    let ended = Gpu::open(0).and_then(|mut gpu| {
        // said before the GPU is closed, which can take long after a fault
        run(&mut gpu, &mut report).inspect_err(|error| drop(writeln!(std::io::stderr(), "{error}")))
    });
    if ended.is_ok() && report.failures == 0 {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}

/// Where the results go, by the command line.
fn report(mut arguments: impl Iterator<Item = String>) -> Result<Report, String> {
    let begin = std::time::Instant::now();
    let mut report = Report { begin, json: None, only: String::new(), failures: 0 };
    while let Some(flag) = arguments.next() {
        match (flag.as_str(), arguments.next()) {
            ("--json", Some(path)) => {
                let file = std::fs::File::create(&path).map_err(|e| format!("{path}: {e}"))?;
                report.json = Some(file);
            }
            ("--only", Some(text)) => report.only = text,
            _ => return Err("usage: deltafront-gpu [--json FILE] [--only TEXT]".to_owned()),
        }
    }
    Ok(report)
}

fn run(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    let facts = gpu.facts().clone();
    report.row("device", &json!({
        "gpu": facts.name, "multiprocessors": facts.multiprocessors, "l2_MB": facts.l2_bytes >> 20,
        "shared_KB": facts.shared_bytes >> 10, "driver": facts.driver_version,
    }));
    let copy_bytes_per_ms = copy(gpu, report)?;
    check_decode(gpu, report)?;
    check_layers(gpu, report)?;
    prefill(gpu, report)?;
    decode(gpu, report, copy_bytes_per_ms)?;
    mixers(gpu, report, copy_bytes_per_ms)?;
    for r in gpu.resources().to_vec() {
        report.row(
            &format!("resources {}", r.kernel),
            &json!({ "registers": r.registers, "spill_bytes": r.spill_store_bytes }),
        );
    }
    Ok(())
}

fn median(mut samples: Vec<f64>) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    (at(0.5), at(0.9) - at(0.1))
}

/// The bandwidth of a plain copy, bytes read and written per millisecond.
fn copy(gpu: &mut Gpu, report: &mut Report) -> Result<f64, Error> {
    let bytes = 2 << 30;
    let ms = gpu.copy_ms(bytes)?;
    let rate = 2.0 * bytes as f64 / ms;
    report.row("copy", &json!({ "ms": ms, "GB_per_s": (rate / 1e6).round() }));
    Ok(rate)
}

fn errors(gpu: &mut Gpu, stack: &Stack, steps: usize) -> Result<f64, Error> {
    let mut decoder = Decoder::new(gpu, stack, &mut |name, count| weight(name, count))?;
    let mut definition = Definition::new(stack, &mut |name, count| weight(name, count));
    let mut worst: f64 = 0.0;
    for step in 0..steps {
        let token = (step * 37 % stack.vocabulary) as u32;
        let expected = definition.step(token);
        decoder.force(gpu, token)?;
        decoder.step(gpu)?;
        let logits = decoder.logits(gpu)?;
        let size = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
        let error = expected
            .iter()
            .zip(&logits)
            .map(|(e, l)| (e - f64::from(*l)).powi(2))
            .sum::<f64>()
            .sqrt()
            / size;
        worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
    }
    decoder.free(gpu)?;
    Ok(worst)
}

fn layer(mixer: Mixer, ffn: usize) -> Layer {
    Layer { mixer: Some(mixer), ffn: Some(ffn) }
}

fn check_decode(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    let stack = |d_model, layers: Vec<Layer>| Stack {
        d_model,
        vocabulary: 1001,
        tied: false,
        positions: 700,
        layers,
    };
    let delta =
        |gated, key_width, value_width| Mixer::Delta(Delta::new(4, key_width, value_width, gated));
    let attention = |heads, kv_heads, width, window, qk_norm| Mixer::Attention {
        heads,
        kv_heads,
        width,
        window,
        qk_norm,
    };
    if report.wants("small step") {
        let probe = stack(256, vec![layer(delta(false, 128, 128), 640); 2]);
        let mut decoder = Decoder::new(gpu, &probe, &mut weight)?;
        for _ in 0..3 {
            report.row("small step", &json!({ "ms": gpu.elapsed_ms(|gpu| decoder.step(gpu))? }));
        }
        decoder.free(gpu)?;
    }
    let cases = [
        ("decode DeltaNet", stack(256, vec![layer(delta(false, 128, 128), 640); 2]), 40, 1e-4),
        ("decode Gated DeltaNet", stack(260, vec![layer(delta(true, 64, 128), 100); 2]), 40, 1e-4),
        (
            "decode Gated DeltaNet, wide values",
            stack(256, vec![layer(delta(true, 128, 256), 100); 2]),
            40,
            1e-4,
        ),
        (
            "decode Mamba2",
            stack(
                256,
                vec![layer(Mixer::Mamba2 { heads: 8, head_width: 64, state_width: 128 }, 100); 2],
            ),
            40,
            1e-4,
        ),
        // keys and values are rounded to bf16, sometimes to the other side than in f64
        (
            "decode attention",
            stack(256, vec![layer(attention(8, 2, 128, None, true), 100)]),
            600,
            4e-3,
        ),
        (
            "decode attention, many heads",
            stack(256, vec![layer(attention(12, 1, 64, None, false), 100)]),
            300,
            4e-3,
        ),
        (
            "decode windowed attention",
            stack(256, vec![layer(attention(4, 4, 64, Some(100), false), 100)]),
            300,
            4e-3,
        ),
    ];
    for (name, stack, steps, limit) in cases {
        if !report.wants(&format!("check {name}")) {
            continue;
        }
        let error = errors(gpu, &stack, steps)?;
        report.check(name, error, limit);
    }
    Ok(())
}

/// How far a result in bf16 may lie from the definition, in errors of the definition that rounds to bf16 itself.
const BEYOND_PLAIN: f64 = 2.0;

/// Prompts of two sequences layer by layer, then two tokens of each, against the definition.
fn check_layers(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    let attention =
        |window| Mixer::Attention { heads: 8, kv_heads: 2, width: 64, window, qk_norm: true };
    let product = Delta { steps: 2, negative_eigenvalues: true, ..Delta::new(2, 64, 64, true) };
    let mamba2 = Mixer::Mamba2 { heads: 8, head_width: 64, state_width: 128 };
    let cases = [
        ("DeltaNet", Mixer::Delta(Delta::new(4, 128, 128, false))),
        ("Gated DeltaNet, wide values", Mixer::Delta(Delta::new(2, 128, 256, true))),
        ("DeltaProduct", Mixer::Delta(product)),
        ("Mamba2", mamba2),
        ("attention", attention(None)),
        ("windowed attention", attention(Some(70))),
    ];
    let (tokens, vocabulary) = (200, 1001);
    for (name, mixer) in cases {
        let layers = vec![layer(mixer, 640); 2];
        let stack = Stack { d_model: 256, vocabulary, tied: false, positions: tokens + 2, layers };
        let model = Model::new(gpu, &stack, 2, &mut weight)?;
        let mut definitions = [0, 1].map(|_| Definition::new(&stack, &mut weight));
        let mut plain = [0, 1].map(|_| Definition::new(&stack, &mut weight).in_bf16());
        let token = |sequence: usize, at: usize| ((at * 37 + sequence * 11) % vocabulary) as u32;
        let pass = model.prefill(gpu, tokens, Section::Whole)?;
        let prompt: Vec<u32> = (0..2 * tokens).map(|i| token(i / tokens, i % tokens)).collect();
        pass.set_tokens(gpu, &prompt)?;
        // recorded, it runs a second time: from an empty past again. Weights, activations and the residual stream are bf16.
        let graph = pass.record(gpu)?;
        gpu.replay(&graph)?;
        let after_prompt = |definitions: &mut [Definition; 2]| -> Vec<f64> {
            let last = |(i, definition): (usize, &mut Definition)| {
                (0..tokens).map(|at| definition.step(token(i, at))).last().unwrap_or_default()
            };
            definitions.iter_mut().enumerate().flat_map(last).collect()
        };
        let expected = after_prompt(&mut definitions);
        let limit = BEYOND_PLAIN * relative_error(&after_prompt(&mut plain), &expected);
        let got = pass.logits(gpu)?;
        report.check(&format!("prefill {name}"), relative_error(&got, &expected), limit);
        pass.free(gpu)?;
        let step = model.step(gpu, tokens + 2, Section::Whole)?;
        let (mut worst, mut limit): (f64, f64) = (0.0, 0.0);
        for at in tokens..tokens + 2 {
            model.seek(gpu, &[at as u32; 2])?;
            step.set_tokens(gpu, &[token(0, at), token(1, at)])?;
            step.run(gpu)?;
            let next = |definitions: &mut [Definition; 2]| -> Vec<f64> {
                let all = definitions.iter_mut().enumerate();
                all.flat_map(|(i, definition)| definition.step(token(i, at))).collect()
            };
            let expected = next(&mut definitions);
            limit = limit.max(BEYOND_PLAIN * relative_error(&next(&mut plain), &expected));
            worst = worst.max(relative_error(&step.logits(gpu)?, &expected));
        }
        report.check(&format!("decode of two, {name}"), worst, limit);
        step.free(gpu)?;
        model.free(gpu)?;
    }
    Ok(())
}

fn relative_error<T: Copy + Into<f64>>(got: &[T], expected: &[f64]) -> f64 {
    let size = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
    let difference = expected.iter().zip(got).map(|(e, g)| (e - (*g).into()).powi(2));
    let error = difference.sum::<f64>().sqrt() / size;
    if error.is_nan() || got.len() != expected.len() { f64::INFINITY } else { error }
}

/// Whole prompts through the 1B stack, and its products alone.
fn prefill(gpu: &mut Gpu, report: &mut Report) -> Result<(), Error> {
    let stack = nemotron_flash(131_072);
    let model = Model::pretended(gpu, &stack, 1)?;
    for tokens in [512, 2048, 8192] {
        let pass = model.prefill(gpu, tokens, Section::Whole)?;
        let graph = pass.record(gpu)?;
        let mut samples = Vec::new();
        for _ in 0..12 {
            samples.push(gpu.elapsed_ms(|gpu| gpu.replay(&graph))?);
        }
        let (ms, spread) = median(samples);
        report.row(
            &format!("prefill Nemotron-Flash-1B, {tokens} tokens"),
            &json!({
                "ms": ms, "spread_ms": spread, "launches": pass.len(),
                "TFLOP_per_s_of_its_products": (pass.product_flops() / ms / 1e9).round(),
                "tokens_per_s": (1e3 * tokens as f64 / ms).round(),
            }),
        );
        pass.free(gpu)?;
    }
    model.free(gpu)
}

/// The 1B stack of Nemotron-Flash (arXiv 2511.18890): d_model 2048, FFN 6144, 24 operators.
fn nemotron_flash(vocabulary: usize) -> Stack {
    let delta = Mixer::Delta(Delta::new(16, 128, 128, false));
    let mamba = Mixer::Mamba2 { heads: 64, head_width: 64, state_width: 128 };
    let attention =
        Mixer::Attention { heads: 16, kv_heads: 4, width: 128, window: None, qk_norm: false };
    let mixers = [
        delta, mamba, attention, mamba, delta, mamba, attention, mamba, delta, mamba, delta, mamba,
    ];
    Stack {
        d_model: 2048,
        vocabulary,
        tied: true,
        positions: 8200,
        layers: mixers.map(|mixer| layer(mixer, 6144)).to_vec(),
    }
}

fn decode(gpu: &mut Gpu, report: &mut Report, copy_bytes_per_ms: f64) -> Result<(), Error> {
    let name = "decode Nemotron-Flash-1B, 8k cached";
    if !report.wants(name) {
        return Ok(());
    }
    let stack = nemotron_flash(131_072);
    // One set of random values serves all tensors: generating a billion anew would take longer than the rest.
    let values = weight("values", 131_072 * 2048);
    let mut load = |name: &str, count: usize| {
        if name.ends_with("weight") && count > 1 << 20 {
            values[..count].iter().map(|x| x * 0.3).collect()
        } else {
            weight(name, count)
        }
    };
    let mut decoder = Decoder::new(gpu, &stack, &mut load)?;
    let past: Vec<u16> = values[..1 << 20].iter().map(|x| bf16_bits(x * 10.0)).collect();
    decoder.fill_caches(gpu, &past)?;
    time_decode(gpu, report, name, &mut decoder, 8000, copy_bytes_per_ms)?;
    decoder.reset(gpu)?;
    let mut definition = Definition::new(&stack, &mut load);
    let mut worst: f64 = 0.0;
    for token in [17, 130_001] {
        let expected = definition.step(token);
        decoder.force(gpu, token)?;
        decoder.step(gpu)?;
        let logits = decoder.logits(gpu)?;
        let size = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
        let error = expected
            .iter()
            .zip(&logits)
            .map(|(e, l)| (e - f64::from(*l)).powi(2))
            .sum::<f64>()
            .sqrt()
            / size;
        worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
    }
    report.check("decode Nemotron-Flash-1B", worst, 4e-3);
    drop(definition);
    decoder.free(gpu)
}

/// Each mixer alone: twelve layers of it at d_model 2048 without FFN, and a small head. Then as many products as twelve
/// layers of attention have phases, each of hardly any bytes: what a dependent phase costs however little it moves.
fn mixers(gpu: &mut Gpu, report: &mut Report, copy_bytes_per_ms: f64) -> Result<(), Error> {
    let attention =
        |window| Mixer::Attention { heads: 16, kv_heads: 4, width: 128, window, qk_norm: false };
    let mixer = |mixer| vec![Layer { mixer: Some(mixer), ffn: None }; 12];
    let cases = [
        ("12 x DeltaNet", mixer(Mixer::Delta(Delta::new(16, 128, 128, false)))),
        ("12 x Gated DeltaNet", mixer(Mixer::Delta(Delta::new(12, 128, 256, true)))),
        ("12 x Mamba2", mixer(Mixer::Mamba2 { heads: 64, head_width: 64, state_width: 128 })),
        ("12 x attention over 8k", mixer(attention(None))),
        ("12 x attention over 1k of 8k", mixer(attention(Some(1024)))),
        ("24 x FFN of 256", vec![Layer { mixer: None, ffn: Some(256) }; 24]),
    ];
    let values = weight("values", 1 << 25);
    for (name, layers) in cases {
        let name = format!("decode {name}");
        if !report.wants(&name) {
            continue;
        }
        let stack = Stack { d_model: 2048, vocabulary: 1024, tied: true, positions: 8200, layers };
        let mut decoder = Decoder::new(gpu, &stack, &mut |name, count| {
            if name.ends_with("weight") && count > 1 << 20 {
                values[..count].iter().map(|x| x * 0.3).collect()
            } else {
                weight(name, count)
            }
        })?;
        let past: Vec<u16> = values[..1 << 20].iter().map(|x| bf16_bits(x * 10.0)).collect();
        decoder.fill_caches(gpu, &past)?;
        time_decode(gpu, report, &name, &mut decoder, 8000, copy_bytes_per_ms)?;
        decoder.free(gpu)?;
    }
    Ok(())
}

fn time_decode(
    gpu: &mut Gpu,
    report: &mut Report,
    name: &str,
    decoder: &mut Decoder,
    position: usize,
    copy_bytes_per_ms: f64,
) -> Result<(), Error> {
    let bytes = decoder.bytes_per_step(position) as f64;
    decoder.seek(gpu, position, 1)?;
    let mut samples = Vec::new();
    for _ in 0..3 {
        decoder.seek(gpu, position, 1)?;
        decoder.step(gpu)?;
        for _ in 0..60 {
            samples.push(gpu.elapsed_ms(|gpu| decoder.step(gpu))?);
        }
    }
    let (ms, spread) = median(samples);
    // back to back, as tokens are generated: without the events' own time
    decoder.seek(gpu, position, 1)?;
    let together = gpu.elapsed_ms(|gpu| (0..100).try_for_each(|_| decoder.step(gpu)))? / 100.0;
    let floor = bytes / copy_bytes_per_ms;
    report.row(name, &json!({
        "ms": ms, "spread_ms": spread, "ms_back_to_back": together, "GB": bytes / 1e9, "floor_ms": floor,
        "times_floor": together / floor, "GB_per_s": (bytes / together / 1e6).round(),
    }));
    let trace = decoder.trace(gpu)?;
    // of a stack of like layers the first are enough
    let shown = if name.contains("Nemotron") { trace.phases.len() } else { 12 };
    for (i, phase) in trace.phases.iter().enumerate().take(shown) {
        let spans = trace.median_cycles(i).map(|c| c.map_or("-".to_owned(), |c| c.to_string()));
        let [words, input, stream, computed, end] = spans;
        let cycles = format!("{words:>8} {input:>8} {stream:>8} {computed:>8} {end:>8}");
        let values = json!({ "cycles to words, input, stream, computed, end": cycles });
        report.row(&format!("phase {phase}"), &values);
    }
    Ok(())
}
