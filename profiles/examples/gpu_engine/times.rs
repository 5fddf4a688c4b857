//! How long the 1B stack of Nemotron-Flash takes, whole and by its mixers, beside what memory allows.

use kernels::cuda::bf16_bits;
use kernels::cuda::decode::Storage;
use kernels::cuda::gpu::Gpu;
use kernels::cuda::weights::weight;
use profiles::ProfileError;
use profiles::cuda::definition::Definition;
use profiles::cuda::layers::{Model, Section};
use profiles::cuda::stream::Decoder;
use search::Architecture;
use serde_json::json;

use crate::checks::{gene, worst_error};
use crate::parsed;
use crate::report::Report;

/// The 1B stack of Nemotron-Flash (arXiv 2511.18890): d_model 2048, FFN 6144, 24 operators.
const NEMOTRON_FLASH: &str = "d=2048,vocab=131072,tied \
    | dn(h=16,k=128,v=128)+ffn(6144) | m2(h=64,p=64,n=128)+ffn(6144) \
    | attn(h=16,kv=4,k=128)+ffn(6144) | m2(h=64,p=64,n=128)+ffn(6144) \
    | dn(h=16,k=128,v=128)+ffn(6144) | m2(h=64,p=64,n=128)+ffn(6144) \
    | attn(h=16,kv=4,k=128)+ffn(6144) | m2(h=64,p=64,n=128)+ffn(6144) \
    | dn(h=16,k=128,v=128)+ffn(6144) | m2(h=64,p=64,n=128)+ffn(6144) \
    | dn(h=16,k=128,v=128)+ffn(6144) | m2(h=64,p=64,n=128)+ffn(6144)";

/// Each mixer alone: twelve layers of it at d_model 2048 without FFN, and a small head. Then as many products as twelve
/// layers of attention have phases, each of hardly any bytes: what a dependent phase costs however little it moves.
const MIXERS: [(&str, &str); 16] = [
    ("12 x DeltaNet", "12*dn(h=16,k=128,v=128)"),
    ("12 x Gated DeltaNet", "12*gdn(h=12,k=128,v=256)"),
    ("12 x Mamba2", "12*m2(h=64,p=64,n=128)"),
    ("12 x gated short convolution", "12*gsc(c=2048,k=3)"),
    ("12 x attention over 8k", "12*attn(h=16,kv=4,k=128)"),
    ("12 x attention over 1k of 8k", "12*swa(h=16,kv=4,k=128,w=1024)"),
    ("24 x FFN of 256", "24*ffn(256)"),
    (gene!("12 x KDA"), "12*kda(h=16,k=128,v=128)"),
    (gene!("12 x gated attention over 8k"), "12*attn(h=16,kv=4,k=128,gate,rot=25)"),
    (gene!("12 x whole norms behind, over 8k"), "12*attn(h=16,kv=4,k=128,qknorm=whole,post)"),
    (gene!("12 x attention beside Mamba2"), "12*par(h=16,kv=4,k=128,w=1024,bh=32,bk=128,bv=64)"),
    (gene!("12 x log-linear Gated DeltaNet"), "12*lgdn(h=12,k=128,v=256,l=15)"),
    (gene!("12 x log-linear Mamba2"), "12*lm2(h=64,p=64,n=128,l=15)"),
    (gene!("12 x relu² FFN of 6144"), "12*relu2(6144)"),
    (gene!("12 x attention with Selective RoPE"), "12*attn(h=16,kv=4,k=128,srope,pgate)"),
    (gene!("12 x mixture, 4 of 16 of 1024"), "12*moe(1024,e=16,k=4,s=1)"),
];

/// Mixers whose prompts are timed, six layers of each at d_model 2048.
const PROMPTS: [(&str, &str); 8] = [
    ("6 x Gated DeltaNet", "6*gdn(h=12,k=128,v=256)"),
    (gene!("6 x KDA"), "6*kda(h=16,k=128,v=128)"),
    (gene!("6 x gated attention"), "6*attn(h=16,kv=4,k=128,gate,rot=25)"),
    (gene!("6 x attention beside Mamba2"), "6*par(h=16,kv=4,k=128,w=1024,bh=32,bk=128,bv=64)"),
    (gene!("6 x log-linear Gated DeltaNet"), "6*lgdn(h=12,k=128,v=256,l=15)"),
    (gene!("6 x log-linear Mamba2"), "6*lm2(h=64,p=64,n=128,l=15)"),
    (gene!("6 x attention with Selective RoPE"), "6*attn(h=16,kv=4,k=128,srope,pgate)"),
    (gene!("6 x mixture, 4 of 16 of 1024"), "6*moe(1024,e=16,k=4,s=1)"),
];

/// Stacks whose steps are timed with matrices in bf16 and in 8 bits.
const EIGHT_BITS: [(&str, &str); 3] = [
    ("12 x Gated DeltaNet and FFN", "d=2048,vocab=1024,tied | 12*gdn(h=12,k=128,v=256)+ffn(6144)"),
    ("12 x attention over 8k", "d=2048,vocab=1024,tied | 12*attn(h=16,kv=4,k=128)"),
    ("Nemotron-Flash-1B, 8k cached", NEMOTRON_FLASH),
];

/// Positions that caches hold.
const POSITIONS: usize = 8200;

fn median(mut samples: Vec<f64>) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    (at(0.5), at(0.9) - at(0.1))
}

/// The bandwidth of a plain copy, bytes read and written per millisecond.
pub(crate) fn copy(gpu: &mut Gpu, report: &mut Report) -> Result<f64, ProfileError> {
    let bytes = 2 << 30;
    let ms = gpu.copy_ms(bytes)?;
    let rate = 2.0 * bytes as f64 / ms;
    report.row("copy", &json!({ "ms": ms, "GB_per_s": (rate / 1e6).round() }));
    Ok(rate)
}

/// Whole prompts through stacks of one mixer and the 1B stack.
pub(crate) fn prefill(gpu: &mut Gpu, report: &mut Report) -> Result<(), ProfileError> {
    for (name, layers) in PROMPTS {
        let name = format!("prefill {name}");
        if report.wants(&name) {
            let stack = parsed(&format!("d=2048,vocab=1024,tied | {layers}"));
            prompts(gpu, report, &name, &stack, &[2048, 8192])?;
        }
    }
    let name = "prefill Nemotron-Flash-1B";
    if report.wants(name) {
        prompts(gpu, report, name, &parsed(NEMOTRON_FLASH), &[512, 2048, 8192])?;
    }
    Ok(())
}

fn prompts(
    gpu: &mut Gpu,
    report: &mut Report,
    name: &str,
    stack: &Architecture,
    lengths: &[usize],
) -> Result<(), ProfileError> {
    let model = Model::pretended(gpu, stack, (1, POSITIONS))?;
    for &tokens in lengths {
        let pass = model.prefill(gpu, tokens, Section::Whole)?;
        let graph = pass.record(gpu)?;
        let mut samples = Vec::new();
        for _ in 0..12 {
            samples.push(gpu.elapsed_ms(|gpu| gpu.replay(&graph))?);
        }
        let (ms, spread) = median(samples);
        report.row(
            &format!("{name}, {tokens} tokens"),
            &json!({
                "ms": ms, "spread_ms": spread, "launches": pass.len(),
                "TFLOP_per_s_of_its_products": (pass.product_flops() / ms / 1e9).round(),
                "tokens_per_s": (1e3 * tokens as f64 / ms).round(),
            }),
        );
        pass.free(gpu)?;
    }
    Ok(model.free(gpu)?)
}

pub(crate) fn decode(
    gpu: &mut Gpu,
    report: &mut Report,
    copy_bytes_per_ms: f64,
) -> Result<(), ProfileError> {
    let name = "decode Nemotron-Flash-1B, 8k cached";
    if !report.wants(name) {
        return Ok(());
    }
    let stack = parsed(NEMOTRON_FLASH);
    // One set of random values serves all tensors: generating a billion anew would take longer than the rest.
    let values = weight("values", 131_072 * 2048);
    let mut load = |name: &str, count: usize| {
        if name.ends_with("weight") && count > 1 << 20 {
            values[..count].iter().map(|x| x * 0.3).collect()
        } else {
            weight(name, count)
        }
    };
    let mut decoder = Decoder::new(gpu, &stack, POSITIONS, &mut load)?;
    let past: Vec<u16> = values[..1 << 20].iter().map(|x| bf16_bits(x * 10.0)).collect();
    decoder.fill_caches(gpu, &past)?;
    time_decode(gpu, report, name, &mut decoder, 8000, copy_bytes_per_ms)?;
    decoder.reset(gpu)?;
    let mut definition = Definition::new(&stack, &mut load);
    let worst = worst_error(gpu, &mut decoder, &mut definition, [17, 130_001])?;
    report.check("decode Nemotron-Flash-1B", worst, 4e-3);
    drop(definition);
    Ok(decoder.free(gpu)?)
}

pub(crate) fn mixers(
    gpu: &mut Gpu,
    report: &mut Report,
    copy_bytes_per_ms: f64,
) -> Result<(), ProfileError> {
    let values = weight("values", 1 << 25);
    for (name, layers) in MIXERS {
        let name = format!("decode {name}");
        if !report.wants(&name) {
            continue;
        }
        let stack = parsed(&format!("d=2048,vocab=1024,tied | {layers}"));
        let mut decoder = Decoder::new(gpu, &stack, POSITIONS, &mut |name, count| {
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

/// Steps with matrices in 8 bits, beside the same in bf16.
pub(crate) fn eight_bits(
    gpu: &mut Gpu,
    report: &mut Report,
    copy_bytes_per_ms: f64,
) -> Result<(), ProfileError> {
    for (name, stack) in EIGHT_BITS {
        let stack = parsed(stack);
        for storage in [Storage::Bf16, Storage::Int8, Storage::Fp8] {
            let name = format!("decode eight-bit {name}: {storage:?}");
            if report.wants(&name) {
                let mut decoder = Decoder::pretended(gpu, &stack, storage, POSITIONS)?;
                time_decode(gpu, report, &name, &mut decoder, 8000, copy_bytes_per_ms)?;
                decoder.free(gpu)?;
            }
        }
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
) -> Result<(), ProfileError> {
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
