//! The decode step against its definition, run by the emulator.

use kernels::cuda::decode::{Storage, defines};
use kernels::cuda::emulator::{self, Emulator};
use kernels::cuda::weights::weight;
use kernels::cuda::{Extent, Machine, Source};
use profiles::cuda::Rehearsal;
use profiles::cuda::definition::Definition;
use profiles::cuda::layers::{Model, Section};
use profiles::cuda::stream::Decoder;
use search::Architecture;
use search::config::{CampaignFile, Preset};

/// Two multiprocessors with three computing warps and a ring of six slots: few enough for fibers, odd enough that
/// shares differ and the ring goes round.
const EXTENT: Extent = Extent { multiprocessors: 2, shared_bytes: 86_000, warps: 4, hopper: false };

/// Positions that the caches hold.
const POSITIONS: usize = 64;

/// A model of these layers with a vocabulary of 51.
fn stack(d_model: u32, layers: &str) -> Architecture {
    format!("d={d_model},vocab=51 | {layers}").parse().expect("an architecture")
}

fn machine(text: Option<&str>, seed: u64) -> Option<Emulator> {
    machine_with(text, seed, &defines(EXTENT).expect("it fits"))
}

fn machine_with(
    text: Option<&str>,
    seed: u64,
    defines: &[(&'static str, u32)],
) -> Option<Emulator> {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return None;
    }
    let text = text.unwrap_or(Source::Decode.text());
    Some(
        Emulator::start_text(Source::Decode, text, defines, EXTENT, seed)
            .expect("the emulator builds"),
    )
}

/// Largest error of the logits over `steps` tokens, relative to their size; an error of the emulator is infinite.
fn error_of(machine: &mut dyn Machine, stack: &Architecture, steps: usize) -> f64 {
    let [error] = errors_of(machine, stack, Storage::Bf16, [Storage::Bf16], steps);
    error
}

/// The same with matrices kept as `storage`, against definitions whose matrices are kept as `expected`.
fn errors_of<const N: usize>(
    machine: &mut dyn Machine,
    stack: &Architecture,
    storage: Storage,
    expected: [Storage; N],
    steps: usize,
) -> [f64; N] {
    let mut decoder = Decoder::with_storage(machine, stack, storage, POSITIONS, &mut weight)
        .expect("the stack is possible");
    let mut definitions = expected.map(|kept| Definition::with_storage(stack, kept, &mut weight));
    let mut worst = [0.0_f64; N];
    for step in 0..steps {
        let token = step as u32 * 37 % stack.vocab();
        decoder.force(machine, token).expect("the machine answers");
        if let Err(error) = decoder.step(machine) {
            eprintln!("{error}");
            return [f64::INFINITY; N];
        }
        let logits = decoder.logits(machine).expect("the machine answers");
        for (worst, definition) in worst.iter_mut().zip(&mut definitions) {
            let expected = definition.step(token);
            let size = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
            let error = expected
                .iter()
                .zip(&logits)
                .map(|(e, l)| (e - f64::from(*l)).powi(2))
                .sum::<f64>()
                .sqrt();
            let error = if error.is_nan() { f64::INFINITY } else { error / size };
            *worst = worst.max(error);
        }
    }
    worst
}

/// With what few programs have as far as this one has it.
fn machine_for(stack: &Architecture, storage: Storage) -> Option<Emulator> {
    let decoder = Decoder::pretended(&mut Rehearsal::of(EXTENT), stack, storage, POSITIONS);
    machine_with(None, 1, &decoder.expect("the stack is possible").launch().defines)
}

fn check(name: &str, stack: &Architecture, steps: usize, limit: f64) {
    let Some(mut machine) = machine_for(stack, Storage::Bf16) else { return };
    let error = error_of(&mut machine, stack, steps);
    eprintln!("{name}: relative error of the logits {error:.1e}");
    assert!(error < limit, "{name}: relative error of the logits {error:.1e}");
}

#[test]
fn delta_layers_decode_as_defined() {
    check("DeltaNet", &stack(100, "dn(h=2,k=64,v=64)"), 6, 1e-4);
    check("Gated DeltaNet", &stack(260, "gdn(h=2,k=128,v=32)+ffn(140)"), 5, 1e-4);
}

#[test]
fn the_options_of_the_delta_family_decode_as_defined() {
    let layers = "gdn(h=2,k=32,v=16,vg=2) | gdp(h=2,k=64,v=32,n=3,nogate,neg) \
                  | dn(h=2,k=32,v=64,gate,noconv)";
    check("delta family", &stack(64, layers), 5, 1e-4);
}

#[test]
fn layers_of_one_half_decode_as_defined() {
    check("FFN first", &stack(36, "ffn(52) | dn(h=2,k=64,v=16) | ffn(1100)"), 3, 1e-4);
}

#[test]
fn inputs_wider_than_the_scratch_memory_decode_as_defined() {
    let stack = stack(36, "ffn(6300) | gdn(h=2,k=32,v=256,vg=13)");
    check("FFN of 6300, values of 6656", &stack, 1, 1e-4);
}

#[test]
fn mamba2_layers_decode_as_defined() {
    check("Mamba2", &stack(60, "m2(h=3,p=20,n=64)+ffn(60) | m2(h=1,p=64,n=128)+ffn(60)"), 5, 1e-4);
}

#[test]
fn gated_convolutions_decode_as_defined() {
    let layers = "gsc(c=60,k=3)+ffn(60) | gsc(c=100,k=2) | gsc(c=44,k=8)";
    check("gated short convolution", &stack(60, layers), 12, 1e-4);
}

#[test]
fn attention_layers_decode_as_defined() {
    let layers = "attn(h=6,kv=2,k=64,qknorm) | swa(h=9,kv=1,k=64,w=18) | swa(h=1,kv=1,k=128,w=1) \
                  | attn(h=2,kv=1,k=128,qknorm,rot=0) | attn(h=2,kv=1,k=64,theta=500)";
    // keys and values are rounded to bf16, sometimes to the other side than in f64
    check("attention", &stack(64, layers), 20, 4e-3);
}

#[test]
fn the_parts_of_attention_decode_as_defined() {
    let layers = "attn(h=3,kv=1,k=64,gate,rot=50) | attn(h=2,kv=2,k=64,qknorm=whole,rot=25) \
                  | swa(h=2,kv=1,k=128,w=5,qknorm,gate,rot=0)";
    check("attention", &stack(64, layers), 12, 4e-3);
}

#[test]
fn norms_behind_attention_and_its_network_decode_as_defined() {
    let layers = "attn(h=2,kv=1,k=64,qknorm=whole,post)+ffn(60) | attn(h=1,kv=1,k=64,post)+relu2(100) \
                  | attn(h=1,kv=1,k=64)+ffn(60)";
    check("norms behind", &stack(68, layers), 5, 4e-3);
    // two slabs of columns, which go on from each other
    check("wide", &stack(36, "swa(h=1,kv=1,k=64,w=1,post)+ffn(6300)"), 1, 4e-3);
}

#[test]
fn networks_of_squared_relu_decode_as_defined() {
    check("relu²", &stack(36, "relu2(52) | dn(h=2,k=64,v=16)+relu2(1100)"), 3, 1e-4);
}

#[test]
fn kimi_delta_attention_decodes_as_defined() {
    let layers = "kda(h=3,k=64,v=16) | kda(h=1,k=128,v=32)+ffn(60) | kda(h=2,k=32,v=64)";
    check("KDA", &stack(60, layers), 5, 1e-4);
}

#[test]
fn parallel_heads_decode_as_defined() {
    let layers = "par(h=2,kv=1,k=64,qknorm,bh=2,bk=64,bv=20)+ffn(60) \
                  | par(h=2,kv=2,k=64,w=3,gdn,bh=1,bk=32,bv=32,nonorms)";
    check("parallel heads", &stack(64, layers), 5, 4e-3);
}

#[test]
fn log_linear_mixers_decode_as_defined() {
    let layers =
        "lgdn(h=2,k=64,v=16,l=15) | lm2(h=3,p=20,n=64,l=3)+ffn(60) | lgdn(h=1,k=32,v=32,l=4,vg=2)";
    check("log-linear", &stack(60, layers), 20, 1e-4);
}

#[test]
fn learnt_angles_decode_as_defined() {
    let layers = "gdn(h=2,k=64,v=16,srope,pgate,pbias) | attn(h=4,kv=2,k=64,qknorm,srope)+ffn(60) \
                  | gdp(h=1,k=32,v=32,n=2,srope,pfull,ptemp=ones) | lgdn(h=2,k=32,v=16,l=4,srope,pgate,pfull,ptemp=learnt)";
    check("Selective RoPE", &stack(64, layers), 8, 4e-3);
}

#[test]
fn mixtures_of_experts_decode_as_defined() {
    let layers = "dn(h=2,k=64,v=16)+moe(52,e=5,k=2,s=1) | moe(256,e=4,k=3) | moe(24,e=70,k=1)";
    check("mixtures", &stack(64, layers), 4, 1e-4);
    // rows in several pieces, norms behind
    let layers = "attn(h=1,kv=1,k=64,post)+moe(2100,e=3,k=2)";
    check("a wide mixture", &stack(68, layers), 2, 4e-3);
}

#[test]
fn a_hybrid_stack_with_rows_of_several_pieces_decodes_as_defined() {
    let tied =
        "d=520,vocab=51,tied | gdn(h=2,k=64,v=256) | m2(h=2,p=64,n=64) | attn(h=2,kv=2,k=64)";
    check("hybrid", &tied.parse().expect("an architecture"), 2, 4e-3);
}

/// As near to the definition with the same weights as bf16 is; how far those lie from what they are made of is told.
fn check_eight_bits(stack: &Architecture, steps: usize, limit: f64) {
    for (storage, most) in [(Storage::Int8, 0.05), (Storage::Fp8, 0.3)] {
        let Some(mut machine) = machine_for(stack, storage) else { return };
        let [own, bf16] = errors_of(&mut machine, stack, storage, [storage, Storage::Bf16], steps);
        eprintln!(
            "{storage:?}: relative error of the logits {own:.1e}, to those of bf16 {bf16:.1e}"
        );
        assert!(own < limit, "{storage:?}: relative error of the logits {own:.1e}");
        assert!(own < bf16 && bf16 < most, "{storage:?}: to those of bf16 {bf16:.1e}");
    }
}

#[test]
fn weights_of_eight_bits_decode_as_defined() {
    // rows of one piece; of several, in slabs of columns that share the factors of rows
    check_eight_bits(
        &stack(132, "gdn(h=2,k=32,v=16)+ffn(140) | m2(h=3,p=20,n=64)+ffn(60)"),
        2,
        1e-4,
    );
    let tied = "d=36,vocab=21,tied | ffn(6300) | gsc(c=12,k=3)";
    check_eight_bits(&tied.parse().expect("an architecture"), 1, 1e-4);
}

#[test]
fn attention_with_weights_of_eight_bits_decodes_as_defined() {
    check_eight_bits(
        &stack(64, "attn(h=3,kv=1,k=64,qknorm)+ffn(60) | swa(h=1,kv=1,k=128,w=3)"),
        5,
        4e-3,
    );
}

#[test]
fn later_genes_with_weights_of_eight_bits_decode_as_defined() {
    let layers = "moe(52,e=5,k=2,s=1) | kda(h=1,k=32,v=32)+relu2(100) | moe(256,e=4,k=3)";
    check_eight_bits(&stack(64, layers), 3, 1e-4);
}

#[test]
fn learnt_angles_with_weights_of_eight_bits_decode_as_defined() {
    let layers = "gdn(h=2,k=32,v=16,srope,pgate,pbias) | attn(h=2,kv=1,k=64,srope,pfull)";
    check_eight_bits(&stack(64, layers), 4, 4e-3);
}

#[test]
fn tokens_follow_each_other_without_the_host() {
    let Some(mut machine) = machine(None, 1) else { return };
    let stack = stack(64, "dn(h=2,k=64,v=16)");
    let mut decoder =
        Decoder::new(&mut machine, &stack, POSITIONS, &mut weight).expect("the stack is possible");
    let mut definition = Definition::new(&stack, &mut weight);
    let mut token = 5;
    decoder.force(&mut machine, token).expect("the machine answers");
    for _ in 0..5 {
        let logits = definition.step(token);
        let likeliest = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        token = likeliest.expect("the vocabulary is not empty") as u32;
        decoder.step(&mut machine).expect("the step ends");
        assert_eq!(decoder.next_token(&mut machine).expect("the machine answers"), token);
    }
}

#[test]
fn a_missing_barrier_is_found() {
    let text = Source::Decode.text();
    let faults = [
        (
            "no wait for the input vector",
            "    copies_wait<0>();\n    consumers_sync();\n    fetch_description(shared, args, phase + 2, thread);",
            "    copies_wait<0>();\n    fetch_description(shared, args, phase + 2, thread);",
        ),
        (
            "the next input before all have taken this one",
            "            consumers_sync(); // nobody reads the last phase's input or sums any more\n",
            "",
        ),
        (
            "no look at the words of other blocks",
            "                    here = here && is_of(words[s][half], step.tag) && is_of(gates[s][half], step.tag);",
            "                    here = here && is_of(gates[s][half], step.tag);",
        ),
        (
            "no wait for the copy",
            "    gate_wait(&shared.full[number % SLOTS], (number / SLOTS) & 1);\n",
            "",
        ),
        (
            "no wait for the reader",
            "            if (round > 0) gate_wait(&shared.empty[slot], (round - 1) & 1);\n",
            "",
        ),
    ];
    let stack = stack(64, "gdn(h=2,k=64,v=64)+ffn(60)");
    for (name, from, to) in faults {
        assert!(text.contains(from), "{name}: the source has changed");
        let Some(mut machine) = machine(Some(&text.replace(from, to)), 1) else { return };
        let error = error_of(&mut machine, &stack, 2);
        eprintln!("{name}: relative error {error:.1e}");
        assert!(error > 1e-4, "{name}: not found, relative error {error:.1e}");
    }
}

/// Where nothing is computed the same shapes are refused, in the same words.
#[test]
fn a_rehearsal_refuses_what_the_machine_refuses() {
    let Some(mut machine) = machine(None, 1) else { return };
    let mut rehearsal = Rehearsal::of(EXTENT);
    let mut refused = 0;
    for (d_model, layers) in [
        (64, "attn(h=2,kv=1,k=64)"),
        (64, "attn(h=2,kv=2,k=32)"),
        (64, "swa(h=1,kv=1,k=48,w=8)+ffn(96)"),
        (64, "gdn(h=2,k=32,v=64)+ffn(96)"),
        (64, "gdn(h=2,k=24,v=40)"),
        (64, "lgdn(h=2,k=32,v=32,l=8)"),
        (64, "kda(h=2,k=32,v=32)"),
        (64, "m2(h=4,p=32,n=16)"),
        (64, "m2(h=4,p=20,n=12)"),
        (64, "gsc(c=64,k=3)"),
        (66, "ffn(128)"),
        (64, "ffn(66)"),
    ] {
        let stack = stack(d_model, layers);
        let on = |machine: &mut dyn Machine| {
            let decoder = Decoder::pretended(machine, &stack, Storage::Bf16, POSITIONS);
            decoder.map(|_| ()).map_err(|error| error.to_string())
        };
        let (here, there) = (on(&mut rehearsal), on(&mut machine));
        assert_eq!(here, there, "d={d_model} {layers}");
        refused += usize::from(here.is_err());
    }
    assert!(refused >= 5, "{refused} were refused");
}

/// As large as an H200, the whole preset can be timed.
#[test]
fn the_preset_for_a_gpu_has_what_its_kernels_take() {
    let extent = Extent { multiprocessors: 132, shared_bytes: 232_448, warps: 9, hopper: false };
    let file = CampaignFile::parse(Preset::Gpu.text()).expect("a preset");
    let probes = file.space().expect("a space").probes();
    assert!(probes.len() > 20, "{} models", probes.len());
    for probe in probes {
        let machine = &mut Rehearsal::of(extent);
        for storage in [Storage::Bf16, Storage::Int8, Storage::Fp8] {
            let positions = file.latency.decode_context as usize + 9;
            Decoder::pretended(machine, &probe, storage, positions)
                .unwrap_or_else(|error| panic!("{probe} in {storage:?}: {error}"));
        }
        let tokens = file.latency.prefill_tokens as usize;
        let model = Model::pretended(machine, &probe, (1, tokens)).expect("it is put there");
        model
            .prefill(machine, tokens, Section::Whole)
            .unwrap_or_else(|error| panic!("{probe}: {error}"));
    }
}
