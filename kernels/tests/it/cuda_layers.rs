//! Whole stacks layer by layer against their definition in f64: kernels by the emulator, products on the host.

use kernels::cuda::Extent;
use kernels::cuda::decode::definition::Definition;
use kernels::cuda::decode::{Delta, Layer, Mixer, Stack};
use kernels::cuda::emulator::{self, Emulators};
use kernels::cuda::layers::{self, Model};
use kernels::cuda::weights::weight;

const EXTENT: Extent = Extent { multiprocessors: 2, shared_bytes: 200_000, warps: 4 };

fn relative<T: Copy + Into<f64>>(got: &[T], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let size = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
    let difference = got.iter().zip(expected).map(|(g, e)| ((*g).into() - e).powi(2));
    let error = difference.sum::<f64>().sqrt() / size;
    if error.is_nan() { f64::INFINITY } else { error }
}

/// How far a result in bf16 may lie from the definition, in errors of the definition that rounds to bf16 itself.
const BEYOND_PLAIN: f64 = 2.0;

/// Prompts of `tokens` for two sequences, then two tokens of each.
#[track_caller]
fn check(layers: Vec<Layer>, tokens: usize) {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return;
    }
    let stack = Stack { d_model: 64, vocabulary: 43, tied: false, positions: tokens + 3, layers };
    let mut machine = Emulators::start(EXTENT, 5).expect("it starts");
    let model = Model::new(&mut machine, &stack, 2, &mut weight).expect("it fits");
    let prompts = [0, 1].map(|s| (0..tokens).map(|t| ((t * 7 + s * 11 + 3) % 43) as u32).collect());
    let mut definitions = [0, 1].map(|_| Definition::new(&stack, &mut weight));
    let mut plain = [0, 1].map(|_| Definition::new(&stack, &mut weight).in_bf16());
    let after_prompt = |definitions: &mut [Definition; 2]| -> Vec<f64> {
        let last = |(definition, prompt): (&mut Definition, &Vec<u32>)| {
            prompt.iter().map(|token| definition.step(*token)).last().expect("a token")
        };
        definitions.iter_mut().zip(&prompts).flat_map(last).collect()
    };
    let expected = after_prompt(&mut definitions);
    let limit = BEYOND_PLAIN * relative(&after_prompt(&mut plain), &expected);
    let prefill = model.prefill(&mut machine, tokens, layers::Section::Whole).expect("covered");
    prefill.set_tokens(&mut machine, &prompts.concat()).expect("it answers");
    prefill.run(&mut machine).expect("it ends");
    let error = relative(&prefill.logits(&mut machine).expect("it answers"), &expected);
    eprintln!("prefill: {error:.1e}, limit {limit:.1e}");
    assert!(error < limit, "prefill: {error:.1e}, limit {limit:.1e}");
    let step = model.step(&mut machine, tokens + 2, layers::Section::Whole).expect("covered");
    for (i, pair) in [[5, 40], [0, 7]].iter().enumerate() {
        let next = |definitions: &mut [Definition; 2]| -> Vec<f64> {
            definitions.iter_mut().zip(pair).flat_map(|(d, token)| d.step(*token)).collect()
        };
        let expected = next(&mut definitions);
        let limit = BEYOND_PLAIN * relative(&next(&mut plain), &expected);
        let at = (tokens + i) as u32;
        model.seek(&mut machine, &[at, at]).expect("it answers");
        step.set_tokens(&mut machine, pair).expect("it answers");
        step.run(&mut machine).expect("it ends");
        let error = relative(&step.logits(&mut machine).expect("it answers"), &expected);
        eprintln!("step {i}: {error:.1e}, limit {limit:.1e}");
        assert!(error < limit, "step {i}: {error:.1e}, limit {limit:.1e}");
    }
}

fn layer(mixer: Mixer) -> Layer {
    Layer { mixer: Some(mixer), ffn: None }
}

#[test]
fn recurrent_stacks_prefill_and_go_on_as_defined() {
    let product = Delta {
        steps: 2,
        key_heads: 1,
        negative_eigenvalues: true,
        short_conv: false,
        ..Delta::new(2, 32, 32, true)
    };
    let mamba2 = Mixer::Mamba2 { heads: 2, head_width: 32, state_width: 32 };
    check(
        vec![
            layer(Mixer::Delta(Delta::new(2, 32, 32, true))),
            Layer { mixer: None, ffn: Some(72) },
            layer(mamba2),
            layer(Mixer::Delta(product)),
            layer(Mixer::Delta(Delta::new(2, 32, 32, false))),
        ],
        70,
    );
}

#[test]
fn attention_stacks_prefill_and_go_on_as_defined() {
    let attention =
        |window, qk_norm| Mixer::Attention { heads: 2, kv_heads: 1, width: 32, window, qk_norm };
    check(
        vec![
            layer(attention(None, true)),
            Layer { mixer: Some(attention(Some(9), false)), ffn: Some(72) },
        ],
        37,
    );
}

#[test]
fn what_no_kernel_covers_is_refused_by_name() {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return;
    }
    let mut machine = Emulators::start(EXTENT, 5).expect("it starts");
    let mut refused = |mixer: Mixer| {
        let layers = vec![layer(mixer)];
        let stack = Stack { d_model: 64, vocabulary: 43, tied: true, positions: 20, layers };
        let model = Model::new(&mut machine, &stack, 1, &mut weight).expect("it fits");
        model
            .prefill(&mut machine, 10, layers::Section::Whole)
            .err()
            .map_or(String::new(), |error| error.to_string())
    };
    assert!(refused(Mixer::Delta(Delta::new(2, 48, 32, true))).contains("key width"));
    let narrow =
        Mixer::Attention { heads: 2, kv_heads: 2, width: 16, window: None, qk_norm: false };
    assert!(refused(narrow).contains("width of attention's heads"));
    let odd = Mixer::Mamba2 { heads: 2, head_width: 24, state_width: 32 };
    assert!(refused(odd).contains("width of the values"));
}
