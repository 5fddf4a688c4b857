//! The decode step against its definition, run by the emulator.

use kernels::cuda::decode::definition::Definition;
use kernels::cuda::decode::{Decoder, Delta, Layer, Mixer, Stack, defines};
use kernels::cuda::emulator::{self, Emulator};
use kernels::cuda::{Extent, Machine, Source};

use kernels::cuda::weights::weight;

/// Two multiprocessors with three computing warps and a ring of six slots: few enough for fibers, odd enough that
/// shares differ and the ring goes round.
const EXTENT: Extent = Extent { multiprocessors: 2, shared_bytes: 86_000, warps: 4 };

fn stack(d_model: usize, layers: Vec<Layer>) -> Stack {
    Stack { d_model, vocabulary: 51, tied: false, positions: 64, layers }
}

fn machine(text: Option<&str>, seed: u64) -> Option<Emulator> {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return None;
    }
    let text = text.unwrap_or(Source::Decode.text());
    Some(
        Emulator::start_text(
            Source::Decode,
            text,
            &defines(EXTENT).expect("it fits"),
            EXTENT,
            seed,
        )
        .expect("the emulator builds"),
    )
}

/// Largest error of the logits over `steps` tokens, relative to their size; an error of the emulator is infinite.
fn error_of(machine: &mut dyn Machine, stack: &Stack, steps: usize) -> f64 {
    let mut decoder = Decoder::new(machine, stack, &mut weight).expect("the stack is possible");
    let mut definition = Definition::new(stack, &mut weight);
    let mut worst: f64 = 0.0;
    for step in 0..steps {
        let token = (step * 37 % stack.vocabulary) as u32;
        let expected = definition.step(token);
        decoder.force(machine, token).expect("the machine answers");
        if let Err(error) = decoder.step(machine) {
            eprintln!("{error}");
            return f64::INFINITY;
        }
        let logits = decoder.logits(machine).expect("the machine answers");
        let size = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
        let error = expected
            .iter()
            .zip(&logits)
            .map(|(e, l)| (e - f64::from(*l)).powi(2))
            .sum::<f64>()
            .sqrt();
        let error = if error.is_nan() { f64::INFINITY } else { error / size };
        worst = worst.max(error);
    }
    worst
}

fn check(name: &str, stack: &Stack, steps: usize, limit: f64) {
    let Some(mut machine) = machine(None, 1) else { return };
    let error = error_of(&mut machine, stack, steps);
    eprintln!("{name}: relative error of the logits {error:.1e}");
    assert!(error < limit, "{name}: relative error of the logits {error:.1e}");
}

fn delta(gated: bool, key_width: usize, value_width: usize) -> Mixer {
    Mixer::Delta(Delta::new(2, key_width, value_width, gated))
}

#[test]
fn delta_layers_decode_as_defined() {
    let plain = Layer { mixer: Some(delta(false, 64, 64)), ffn: None };
    check("DeltaNet", &stack(100, vec![plain]), 6, 1e-4);
    let gated = Layer { mixer: Some(delta(true, 128, 32)), ffn: Some(140) };
    check("Gated DeltaNet", &stack(260, vec![gated]), 5, 1e-4);
}

#[test]
fn the_options_of_the_delta_family_decode_as_defined() {
    let grouped = Delta { heads: 4, ..Delta::new(2, 32, 16, true) };
    let product =
        Delta { steps: 3, decay: true, negative_eigenvalues: true, ..Delta::new(2, 64, 32, false) };
    let plain = Delta { short_conv: false, output_gate: true, ..Delta::new(2, 32, 64, false) };
    let layers = [grouped, product, plain]
        .map(|shape| Layer { mixer: Some(Mixer::Delta(shape)), ffn: None });
    check("delta family", &stack(64, layers.to_vec()), 5, 1e-4);
}

#[test]
fn layers_of_one_half_decode_as_defined() {
    let layers = [
        Layer { mixer: None, ffn: Some(52) },
        Layer { mixer: Some(delta(false, 64, 16)), ffn: None },
        Layer { mixer: None, ffn: Some(1100) },
    ];
    check("FFN first", &stack(36, layers.to_vec()), 3, 1e-4);
}

#[test]
fn inputs_wider_than_the_scratch_memory_decode_as_defined() {
    let ffn = Layer { mixer: None, ffn: Some(6300) };
    let heads = Delta { heads: 26, ..Delta::new(2, 32, 256, true) };
    let mixer = Layer { mixer: Some(Mixer::Delta(heads)), ffn: None };
    check("FFN of 6300, values of 6656", &stack(36, vec![ffn, mixer]), 1, 1e-4);
}

#[test]
fn mamba2_layers_decode_as_defined() {
    let wide = Mixer::Mamba2 { heads: 3, head_width: 20, state_width: 64 };
    let narrow = Mixer::Mamba2 { heads: 1, head_width: 64, state_width: 128 };
    let layers = [wide, narrow].map(|mixer| Layer { mixer: Some(mixer), ffn: Some(60) });
    check("Mamba2", &stack(60, layers.to_vec()), 5, 1e-4);
}

#[test]
fn attention_layers_decode_as_defined() {
    let grouped =
        Mixer::Attention { heads: 6, kv_heads: 2, width: 64, window: None, qk_norm: true };
    let windowed =
        Mixer::Attention { heads: 9, kv_heads: 1, width: 64, window: Some(18), qk_norm: false };
    let single =
        Mixer::Attention { heads: 1, kv_heads: 1, width: 128, window: Some(1), qk_norm: false };
    let wide = Mixer::Attention { heads: 2, kv_heads: 1, width: 128, window: None, qk_norm: true };
    let layers =
        [grouped, windowed, single, wide].map(|mixer| Layer { mixer: Some(mixer), ffn: None });
    // keys and values are rounded to bf16, sometimes to the other side than in f64
    check("attention", &stack(64, layers.to_vec()), 20, 4e-3);
}

#[test]
fn a_hybrid_stack_with_rows_of_several_pieces_decodes_as_defined() {
    let mixers = [
        delta(true, 64, 256),
        Mixer::Mamba2 { heads: 2, head_width: 64, state_width: 64 },
        Mixer::Attention { heads: 2, kv_heads: 2, width: 64, window: None, qk_norm: false },
    ];
    let layers = mixers.map(|mixer| Layer { mixer: Some(mixer), ffn: None });
    let tied = Stack { tied: true, ..stack(520, layers.to_vec()) };
    check("hybrid", &tied, 2, 4e-3);
}

#[test]
fn tokens_follow_each_other_without_the_host() {
    let Some(mut machine) = machine(None, 1) else { return };
    let stack = stack(64, vec![Layer { mixer: Some(delta(false, 64, 16)), ffn: None }]);
    let mut decoder =
        Decoder::new(&mut machine, &stack, &mut weight).expect("the stack is possible");
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
    let gated = Layer { mixer: Some(delta(true, 64, 64)), ffn: Some(60) };
    let stack = stack(64, vec![gated]);
    for (name, from, to) in faults {
        assert!(text.contains(from), "{name}: the source has changed");
        let Some(mut machine) = machine(Some(&text.replace(from, to)), 1) else { return };
        let error = error_of(&mut machine, &stack, 2);
        eprintln!("{name}: relative error {error:.1e}");
        assert!(error > 1e-4, "{name}: not found, relative error {error:.1e}");
    }
}
