//! Every CUDA source compiles for every architecture, without spills. `--no-capture` shows what each kernel takes of a
//! multiprocessor: registers of a thread, shared memory of a block.

use kernels::cuda::attention::{self, Attention};
use kernels::cuda::chunked::kda::decays::LogDecays;
use kernels::cuda::chunked::{self, Chunked, Part, Shape, kda};
use kernels::cuda::compiler::{available, compile};
use kernels::cuda::decode::Storage;
use kernels::cuda::experts::Experts;
use kernels::cuda::gated_conv::GatedConv;
use kernels::cuda::norm::{Gate, Norm};
use kernels::cuda::phases::Phases;
use kernels::cuda::rope::Rope;
use kernels::cuda::rows;
use kernels::cuda::short_conv::ShortConv;
use kernels::cuda::step::{ConvStep, RecurrentStep, Rule};
use kernels::cuda::values::Values;
use kernels::cuda::{Error, Extent, Source, decode};

/// A100, H100 and H200; and PTX for what came later.
const ARCHITECTURES: [(&str, Extent); 5] = [
    ("sm_80", Extent { multiprocessors: 108, shared_bytes: 163 << 10, warps: 9, hopper: false }),
    ("sm_90", Extent { multiprocessors: 132, shared_bytes: 227 << 10, warps: 9, hopper: false }),
    ("sm_90a", Extent { multiprocessors: 132, shared_bytes: 227 << 10, warps: 9, hopper: true }),
    (
        "compute_100",
        Extent { multiprocessors: 148, shared_bytes: 227 << 10, warps: 9, hopper: false },
    ),
    (
        "compute_120",
        Extent { multiprocessors: 170, shared_bytes: 99 << 10, warps: 9, hopper: false },
    ),
];

#[test]
fn every_source_compiles_for_every_architecture_without_spills() {
    let others =
        Source::ALL.into_iter().filter(|of| !matches!(of, Source::Decode | Source::Chunked));
    compiles(others);
}

#[test]
fn kernels_of_whole_sequences_compile_for_every_architecture_without_spills() {
    compiles([Source::Chunked]);
}

/// What few stacks have takes as long as all else: it is compiled for two of the architectures, by the test below.
#[test]
fn the_one_token_kernel_compiles_for_every_architecture_without_spills() {
    compiles([Source::Decode]);
}

#[test]
fn the_one_token_kernel_compiles_with_what_few_stacks_have() {
    if is_skipped() {
        return;
    }
    let chosen = ARCHITECTURES.iter().filter(|(name, _)| ["sm_80", "sm_90"].contains(name));
    for (architecture, extent) in chosen {
        for genes in decode::GENES {
            check(Source::Decode, &of_genes(genes, Storage::Bf16, *extent), architecture);
        }
    }
}

#[test]
fn the_one_token_kernel_compiles_for_weights_of_eight_bits() {
    if is_skipped() {
        return;
    }
    let chosen = ["sm_80", "sm_90", "sm_90a", "compute_120"];
    for (architecture, extent) in ARCHITECTURES.iter().filter(|(name, _)| chosen.contains(name)) {
        for storage in [Storage::Int8, Storage::Fp8] {
            check(Source::Decode, &of_genes(0, storage, *extent), architecture);
        }
    }
}

fn is_skipped() -> bool {
    if let Err(error @ Error::Missing { .. }) = available() {
        eprintln!("SKIPPED: {error}");
        return true;
    }
    false
}

fn compiles(sources: impl IntoIterator<Item = Source>) {
    if is_skipped() {
        return;
    }
    for source in sources {
        for (architecture, extent) in ARCHITECTURES {
            if source.for_hopper() != extent.hopper {
                continue;
            }
            for variant in variants(source, extent) {
                check(source, &variant, architecture);
            }
        }
    }
}

/// The one-token kernel with these of what few stacks have, for matrices kept so.
fn of_genes(genes: u32, storage: Storage, extent: Extent) -> Variant {
    let layout = decode::Layout::of(extent, storage).expect("the step fits");
    let layout = decode::Layout { genes, ..layout };
    (layout.defines(), layout.shared_bytes() as usize)
}

/// The constants that a source is compiled with, and the most bytes of shared memory that a block of its kernels asks for.
type Variant = (Vec<(&'static str, u32)>, usize);

fn variants(source: Source, extent: Extent) -> Vec<Variant> {
    match source {
        Source::Decode => vec![of_genes(0, Storage::Bf16, extent)],
        Source::Chunked => {
            let variants = |rule, heads, key_heads, key_width, value_width, wide| {
                let (batch, tokens) = (4, 4096);
                let shape = Shape { batch, tokens, heads, key_heads, key_width, value_width, wide };
                match Chunked::new(rule, shape, 1.0, extent) {
                    Ok(chunked) => Part::ALL
                        .map(|part| (chunked.part_defines(part), chunked.part_shared_bytes(part)))
                        .to_vec(),
                    // Blocks of 99 KiB, as consumer GPUs have them, do not hold the widest of these shapes, nor those
                    // of an A100 the delta rule in fp32.
                    Err(error) => {
                        let enough = if wide { 200 << 10 } else { 160 << 10 };
                        assert!(extent.shared_bytes < enough, "{error}");
                        Vec::new()
                    }
                }
            };
            let of_kda = |key_width, value_width, parts: &[kda::Part], wide| {
                let (batch, tokens, heads) = (1, 4096, 16);
                let shape = kda::Shape { batch, tokens, heads, key_width, value_width, wide };
                let trains = parts == kda::Part::TRAINING;
                let kda = if trains { kda::Kda::training } else { kda::Kda::prefill };
                match kda(shape, 1.0, extent) {
                    Ok(kda) => parts
                        .iter()
                        .map(|part| (kda.part_defines(*part), kda.part_shared_bytes(*part)))
                        .collect(),
                    Err(error) => {
                        let enough = if wide { 200 << 10 } else { 160 << 10 };
                        assert!(extent.shared_bytes < enough, "{error}");
                        Vec::new()
                    }
                }
            };
            let (prefill, training) = (kda::Part::PREFILL, kda::Part::TRAINING);
            [
                of_kda(128, 128, prefill, false),
                of_kda(64, 64, prefill, false),
                of_kda(128, 256, training, false),
                of_kda(64, 64, training, false),
                of_kda(128, 256, training, true),
                of_kda(64, 64, training, true),
                [false, true]
                    .map(|wide| {
                        let (positions, heads, key_width) = (9, 16, 64);
                        (LogDecays { positions, heads, key_width, wide }.defines(), 0)
                    })
                    .to_vec(),
                variants(chunked::Rule::Delta, 12, 12, 128, 256, false),
                variants(chunked::Rule::Delta, 8, 8, 128, 128, false),
                variants(chunked::Rule::LinearAttention, 64, 1, 128, 64, false),
                variants(chunked::Rule::Delta, 12, 12, 128, 256, true),
                variants(chunked::Rule::Delta, 8, 8, 64, 64, true),
                variants(chunked::Rule::LinearAttention, 64, 1, 128, 64, true),
            ]
            .concat()
        }
        Source::Attention => [(64, 512), (128, 512), (128, 8192)]
            .into_iter()
            .flat_map(|(width, tokens)| {
                let shape = attention::Shape {
                    batch: 1,
                    tokens,
                    heads: 16,
                    kv_heads: 4,
                    width,
                    window: None,
                };
                let attention = Attention::new(shape, extent).expect("a block fits");
                attention::Part::ALL
                    .map(|part| (attention.part_defines(part), attention.part_shared_bytes(part)))
            })
            .collect(),
        Source::WideAttention => [64, 96, 128]
            .into_iter()
            .map(|width| {
                let (batch, tokens, heads, kv_heads, window) = (1, 512, 16, 4, None);
                let shape = attention::Shape { batch, tokens, heads, kv_heads, width, window };
                let attention = Attention::new(shape, extent).expect("a block fits");
                attention.wide().expect("these widths have the kernel")
            })
            .collect(),
        Source::Norm => {
            let norm = |width, gate| {
                let norm = Norm {
                    outer: 9,
                    inner: 1,
                    width,
                    wide: false,
                    gate,
                    factor: 1.0,
                    epsilon: 1e-5,
                };
                (norm.defines(), norm.shared_bytes())
            };
            vec![norm(256, Gate::AfterNorm), norm(4096, Gate::BeforeNorm), norm(2048, Gate::None)]
        }
        Source::Values => {
            vec![(Values { positions: 9, heads: 3, width: 64, wide: false }.defines(), 0)]
        }
        Source::Rope => [false, true]
            .map(|wide| (Rope { batch: 1, tokens: 9, heads: 1, width: 64, wide }.defines(), 0))
            .to_vec(),
        Source::Phases => vec![(Phases::defines(), 0)],
        Source::Experts => {
            [false, true].map(|gated| (Experts::defines(gated), Experts::shared_bytes())).to_vec()
        }
        Source::Rows => vec![(rows::defines(false), 0)],
        Source::Step => {
            let recurrent = |rule, value_width| {
                let step = RecurrentStep {
                    rule,
                    batch: 32,
                    heads: 16,
                    key_heads: if rule == Rule::Kda { 16 } else { 1 },
                    key_width: 128,
                    value_width,
                };
                (step.defines(), step.shared_bytes())
            };
            vec![
                recurrent(Rule::Delta(1), 256),
                recurrent(Rule::Mamba2, 64),
                recurrent(Rule::Kda, 128),
                (ConvStep { batch: 32, channels: 6144 }.defines(), 0),
            ]
        }
        Source::GatedConv => [(2, false), (3, true), (8, false), (8, true)]
            .map(|(taps, wide)| {
                (GatedConv { batch: 1, tokens: 9, channels: 8, taps, wide }.defines(), 0)
            })
            .to_vec(),
        Source::ShortConv => [false, true]
            .map(|wide| (ShortConv { batch: 1, tokens: 9, channels: 8, wide }.defines(), 0))
            .to_vec(),
    }
}

fn check(source: Source, (defines, shared_bytes): &Variant, architecture: &str) {
    let compiled = compile(source, defines, architecture).unwrap_or_else(|error| panic!("{error}"));
    assert!(!compiled.image.is_empty());
    for kernel in &compiled.resources {
        eprintln!(
            "{architecture:<12} {:<18} {:>3} registers  {shared_bytes:>6} bytes shared  {} spilled  {defines:?}",
            kernel.kernel, kernel.registers, kernel.spill_store_bytes
        );
        assert!(
            kernel.registers > 0,
            "{architecture} {}: the assembler's report was not understood",
            kernel.kernel
        );
        // What few programs have may cost the one-token kernel some registers on the way into a phase, which are put aside once.
        let most = if defines.iter().any(|(name, _)| *name == "GENES") { 64 } else { 0 };
        assert!(
            kernel.spill_store_bytes <= most,
            "{architecture} {}: {} bytes of registers are spilled",
            kernel.kernel,
            kernel.spill_store_bytes
        );
    }
    assert_eq!(
        compiled.resources.is_empty(),
        architecture.starts_with("compute"),
        "{architecture}: no report"
    );
}
