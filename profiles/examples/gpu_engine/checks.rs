//! Each mixer against its definition.

use kernels::cuda::decode::Storage;
use kernels::cuda::gpu::Gpu;
use kernels::cuda::weights::weight;
use profiles::ProfileError;
use profiles::cuda::definition::Definition;
use profiles::cuda::layers::{Model, Section};
use profiles::cuda::stream::Decoder;
use serde_json::json;

use crate::report::Report;
use crate::{parsed, relative_error};

/// The name of a part that came later than the first kernels; `--only gene` takes these alone.
macro_rules! gene {
    ($name:literal) => {
        concat!("gene ", $name)
    };
}
pub(crate) use gene;

/// Mixers one token at a time: d_model, layers, tokens and the largest error.
const ONE_TOKEN: [(&str, u32, &str, usize, f64); 20] = [
    ("DeltaNet", 256, "2*dn(h=4,k=128,v=128)+ffn(640)", 40, 1e-4),
    ("Gated DeltaNet", 260, "2*gdn(h=4,k=64,v=128)+ffn(100)", 40, 1e-4),
    ("Gated DeltaNet, wide values", 256, "2*gdn(h=4,k=128,v=256)+ffn(100)", 40, 1e-4),
    ("Mamba2", 256, "2*m2(h=8,p=64,n=128)+ffn(100)", 40, 1e-4),
    ("gated short convolution", 260, "gsc(c=260,k=3)+ffn(100) | gsc(c=1000,k=8)", 40, 1e-4),
    // keys and values are rounded to bf16, sometimes to the other side than in f64
    ("attention", 256, "attn(h=8,kv=2,k=128,qknorm)+ffn(100)", 600, 4e-3),
    ("attention, many heads", 256, "attn(h=12,kv=1,k=64)+ffn(100)", 300, 4e-3),
    ("windowed attention", 256, "swa(h=4,kv=4,k=64,w=100)+ffn(100)", 300, 4e-3),
    (gene!("relu² FFN"), 260, "2*dn(h=2,k=64,v=64)+relu2(1100)", 40, 1e-4),
    (
        gene!("gated attention, partly turned"),
        256,
        "2*attn(h=8,kv=2,k=64,qknorm,gate,rot=25)",
        100,
        4e-3,
    ),
    (gene!("norms over all heads"), 256, "2*attn(h=8,kv=2,k=128,qknorm=whole)+ffn(100)", 100, 4e-3),
    (gene!("norms behind"), 256, "2*attn(h=4,kv=4,k=64,qknorm=whole,post)+ffn(100)", 100, 4e-3),
    (gene!("KDA"), 256, "kda(h=4,k=128,v=128)+ffn(100) | kda(h=3,k=64,v=64)", 100, 1e-4),
    (gene!("parallel heads"), 256, "par(h=4,kv=2,k=64,bh=8,bk=64,bv=64)+ffn(100)", 100, 4e-3),
    (
        gene!("parallel heads, no norms"),
        256,
        "2*par(h=4,kv=2,k=64,gdn,bh=3,bk=64,bv=128,nonorms)",
        100,
        4e-3,
    ),
    // the worst of more steps than the others', of reads that sum up to nine states: 1.05e-4 on an H200
    (gene!("log-linear Gated DeltaNet"), 256, "2*lgdn(h=4,k=128,v=128,l=15)+ffn(100)", 150, 3e-4),
    (
        gene!("log-linear Mamba2"),
        256,
        "lm2(h=8,p=64,n=128,l=15)+ffn(100) | lm2(h=4,p=64,n=64,l=4)",
        150,
        1e-4,
    ),
    (
        gene!("Selective RoPE"),
        256,
        "attn(h=8,kv=2,k=64,srope,pgate,pbias) | gdn(h=2,k=128,v=128,srope,pfull,ptemp=ones)",
        100,
        4e-3,
    ),
    (
        gene!("mixture of experts"),
        256,
        "moe(256,e=16,k=4,s=1) | dn(h=2,k=64,v=64)+moe(100,e=64,k=6)",
        60,
        1e-4,
    ),
    (gene!("mixture of single experts"), 256, "2*moe(520,e=8,k=1)", 60, 1e-4),
];

/// Positions that the caches of those hold.
const POSITIONS: usize = 700;

/// Mixers layer by layer.
const LAYERS: [(&str, &str); 19] = [
    ("DeltaNet", "dn(h=4,k=128,v=128)"),
    ("Gated DeltaNet, wide values", "gdn(h=2,k=128,v=256)"),
    ("DeltaProduct", "gdp(h=2,k=64,v=64,n=2,neg)"),
    ("Mamba2", "m2(h=8,p=64,n=128)"),
    ("gated short convolution", "gsc(c=256,k=3)"),
    ("attention", "attn(h=8,kv=2,k=64,qknorm)"),
    ("windowed attention", "swa(h=8,kv=2,k=64,w=70,qknorm)"),
    (gene!("relu² FFN"), "dn(h=4,k=64,v=64)+relu2(640)"),
    (gene!("gated attention, partly turned"), "attn(h=8,kv=2,k=64,qknorm,gate,rot=25)"),
    (gene!("norms over all heads"), "attn(h=8,kv=2,k=64,qknorm=whole)"),
    (gene!("norms behind"), "attn(h=8,kv=2,k=64,qknorm=whole,post)"),
    (gene!("KDA"), "kda(h=2,k=128,v=128)"),
    (gene!("parallel heads"), "par(h=4,kv=2,k=64,bh=8,bk=64,bv=64)"),
    (gene!("parallel heads, no norms"), "par(h=4,kv=2,k=64,gdn,bh=3,bk=64,bv=128,nonorms)"),
    (gene!("log-linear Gated DeltaNet"), "lgdn(h=2,k=128,v=128,l=15)"),
    (gene!("log-linear Mamba2"), "lm2(h=8,p=64,n=128,l=15)"),
    (gene!("Selective RoPE, attention"), "attn(h=8,kv=2,k=64,srope,pgate,pbias)"),
    (gene!("Selective RoPE, delta"), "gdp(h=2,k=64,v=64,n=2,srope,pfull,ptemp=ones)"),
    (gene!("mixture of experts"), "dn(h=2,k=64,v=64)+moe(256,e=16,k=4,s=1)"),
];

/// How far a result in bf16 may lie from the definition, in errors of the definition that rounds to bf16 itself.
const BEYOND_PLAIN: f64 = 2.0;

pub(crate) fn one_token(gpu: &mut Gpu, report: &mut Report) -> Result<(), ProfileError> {
    if report.wants("small step") {
        let probe = parsed("d=256,vocab=1001 | 2*dn(h=4,k=128,v=128)+ffn(640)");
        let mut decoder = Decoder::new(gpu, &probe, POSITIONS, &mut weight)?;
        for _ in 0..3 {
            report.row("small step", &json!({ "ms": gpu.elapsed_ms(|gpu| decoder.step(gpu))? }));
        }
        decoder.free(gpu)?;
    }
    for (name, d_model, layers, steps, limit) in ONE_TOKEN {
        let name = format!("decode {name}");
        if !report.wants(&format!("check {name}")) {
            continue;
        }
        let architecture = parsed(&format!("d={d_model},vocab=1001 | {layers}"));
        let mut decoder = Decoder::new(gpu, &architecture, POSITIONS, &mut weight)?;
        let mut definition = Definition::new(&architecture, &mut weight);
        let tokens = (0..steps as u32).map(|step| step * 37 % architecture.vocab());
        let worst = worst_error(gpu, &mut decoder, &mut definition, tokens)?;
        decoder.free(gpu)?;
        report.check(&name, worst, limit);
    }
    Ok(())
}

/// Stacks with matrices in 8 bits: d_model, layers, tokens and the largest error.
const EIGHT_BITS: [(&str, u32, &str, usize, f64); 5] = [
    ("Gated DeltaNet", 260, "2*gdn(h=4,k=64,v=128)+ffn(100)", 40, 1e-4),
    ("Mamba2", 256, "2*m2(h=8,p=64,n=128)+ffn(1100)", 40, 1e-4),
    ("attention", 256, "attn(h=8,kv=2,k=128,qknorm)+ffn(100)", 300, 4e-3),
    (
        "mixture of experts",
        256,
        "moe(256,e=16,k=4,s=1) | dn(h=2,k=64,v=64)+moe(100,e=64,k=6)",
        40,
        1e-4,
    ),
    ("wide Gated DeltaNet", 2048, "2*gdn(h=12,k=128,v=256)+ffn(6144)", 3, 1e-4),
];

/// Matrices in 8 bits against the definition with the same weights; beside that how far they lie from those in bf16.
pub(crate) fn eight_bits(gpu: &mut Gpu, report: &mut Report) -> Result<(), ProfileError> {
    for (name, d_model, layers, steps, limit) in EIGHT_BITS {
        let architecture = parsed(&format!("d={d_model},vocab=1001 | {layers}"));
        for storage in [Storage::Int8, Storage::Fp8] {
            let name = format!("eight-bit {storage:?} {name}");
            if !report.wants(&format!("check decode {name}")) {
                continue;
            }
            let mut decoder =
                Decoder::with_storage(gpu, &architecture, storage, POSITIONS, &mut weight)?;
            let of = |storage| Definition::with_storage(&architecture, storage, &mut weight);
            let [mut own, mut bf16] = [storage, Storage::Bf16].map(of);
            let (mut worst, mut apart): (f64, f64) = (0.0, 0.0);
            for token in (0..steps as u32).map(|step| step * 37 % architecture.vocab()) {
                decoder.force(gpu, token)?;
                decoder.step(gpu)?;
                let logits = decoder.logits(gpu)?;
                worst = worst.max(relative_error(&logits, &own.step(token)));
                apart = apart.max(relative_error(&logits, &bf16.step(token)));
            }
            decoder.free(gpu)?;
            report.check(&format!("decode {name}"), worst, limit);
            report.row(
                &format!("decode {name}, from bf16"),
                &json!({ "relative_error": format!("{apart:.2e}") }),
            );
        }
    }
    Ok(())
}

/// The largest error of the logits over some tokens.
pub(crate) fn worst_error(
    gpu: &mut Gpu,
    decoder: &mut Decoder,
    definition: &mut Definition,
    tokens: impl IntoIterator<Item = u32>,
) -> Result<f64, ProfileError> {
    let mut worst: f64 = 0.0;
    for token in tokens {
        let expected = definition.step(token);
        decoder.force(gpu, token)?;
        decoder.step(gpu)?;
        worst = worst.max(relative_error(&decoder.logits(gpu)?, &expected));
    }
    Ok(worst)
}

/// Prompts of two sequences layer by layer, then two tokens of each, against the definition.
pub(crate) fn layers(gpu: &mut Gpu, report: &mut Report) -> Result<(), ProfileError> {
    let (tokens, vocabulary) = (200, 1001);
    for (name, mixer) in LAYERS {
        if !report.wants(&format!("check prefill {name}")) {
            continue;
        }
        let ffn = if mixer.contains('+') { "" } else { "+ffn(640)" };
        let architecture = parsed(&format!("d=256,vocab={vocabulary} | 2*{mixer}{ffn}"));
        let model = Model::new(gpu, &architecture, (2, tokens + 2), &mut weight)?;
        let mut definitions = [0, 1].map(|_| Definition::new(&architecture, &mut weight));
        let mut plain = [0, 1].map(|_| Definition::new(&architecture, &mut weight).in_bf16());
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
