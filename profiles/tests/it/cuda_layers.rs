//! Whole stacks layer by layer against their definition in f64: kernels by the emulator, products on the host.

use kernels::cuda::Extent;
use kernels::cuda::emulator::{self, Emulators};
use kernels::cuda::weights::weight;
use profiles::cuda::definition::Definition;
use profiles::cuda::layers::{self, Model};
use search::Architecture;

const EXTENT: Extent =
    Extent { multiprocessors: 2, shared_bytes: 200_000, warps: 4, hopper: false };

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
fn check(layers: &str, tokens: usize) {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return;
    }
    let text = format!("d=64,vocab=43 | {layers}");
    let stack: Architecture = text.parse().expect("an architecture");
    let mut machine = Emulators::start(EXTENT, 5).expect("it starts");
    let model = Model::new(&mut machine, &stack, (2, tokens + 3), &mut weight).expect("it fits");
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

#[test]
fn recurrent_stacks_prefill_and_go_on_as_defined() {
    let layers = "gdn(h=2,k=32,v=32) | ffn(72) | m2(h=2,p=32,n=32) \
                  | gdp(h=1,k=32,v=32,n=2,vg=2,neg,noconv) | dn(h=2,k=32,v=32)";
    check(layers, 70);
}

#[test]
fn attention_stacks_prefill_and_go_on_as_defined() {
    check("attn(h=2,kv=1,k=32,qknorm) | swa(h=2,kv=1,k=32,w=9)+ffn(72)", 37);
    check("attn(h=2,kv=1,k=32,qknorm,rot=0) | attn(h=2,kv=2,k=32,theta=500)", 37);
}

#[test]
fn gated_convolutions_prefill_and_go_on_as_defined() {
    for tokens in [1, 2, 37] {
        check("gsc(c=64,k=3)+ffn(72) | gsc(c=40,k=6) | gsc(c=136,k=2)", tokens);
    }
}

#[test]
fn the_parts_of_attention_prefill_and_go_on_as_defined() {
    check("attn(h=2,kv=1,k=32,gate,rot=50) | swa(h=2,kv=1,k=32,w=9,qknorm,gate,rot=25)", 37);
    check(
        "attn(h=2,kv=1,k=32,qknorm=whole,rot=50,post)+ffn(72) | attn(h=2,kv=2,k=32,post)+ffn(72)",
        37,
    );
}

#[test]
fn networks_of_squared_relu_go_on_as_defined() {
    check("relu2(72) | dn(h=2,k=32,v=32)+relu2(136)", 5);
}

#[test]
fn kimi_delta_attention_prefills_and_goes_on_as_defined() {
    check("2*kda(h=2,k=32,v=32)+ffn(72)", 70);
}

#[test]
fn parallel_heads_prefill_and_go_on_as_defined() {
    check("par(h=2,kv=1,k=32,qknorm,bh=2,bk=32,bv=32)+ffn(72)", 37);
    check(
        "par(h=2,kv=2,k=32,gdn,bh=1,bk=32,bv=32,nonorms) | par(h=2,kv=1,k=32,w=9,rot=0,dn,bh=2,bk=32,bv=32)",
        37,
    );
}

#[test]
fn log_linear_mixers_prefill_and_go_on_as_defined() {
    check("lgdn(h=2,k=32,v=32,l=9) | lm2(h=2,p=32,n=32,l=9)+ffn(72)", 6);
    check("lgdn(h=2,k=32,v=32,l=10) | lm2(h=2,p=32,n=32,l=3)", 196);
}

#[test]
fn learnt_angles_prefill_and_go_on_as_defined() {
    check("attn(h=2,kv=1,k=32,qknorm,srope) | gdn(h=2,k=32,v=32,srope,pgate,pbias)", 70);
    check(
        "gdp(h=2,k=32,v=32,n=2,srope,pfull,ptemp=ones) | swa(h=2,kv=2,k=32,w=9,srope,pgate,pfull,ptemp=learnt)",
        37,
    );
}

#[test]
fn mixtures_of_experts_go_on_as_defined() {
    check("dn(h=2,k=32,v=32)+moe(72,e=5,k=2,s=1) | moe(40,e=3,k=1)", 37);
    check("attn(h=2,kv=2,k=32,post)+moe(72,e=40,k=3,s=1)", 3);
}

#[test]
fn what_no_kernel_covers_is_refused_by_name() {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return;
    }
    let mut machine = Emulators::start(EXTENT, 5).expect("it starts");
    let mut refused = |text: &str| {
        let text = format!("d=64,vocab=43,tied | {text}");
        let stack: Architecture = text.parse().expect("an architecture");
        match Model::new(&mut machine, &stack, (1, 20), &mut weight) {
            Err(error) => error.to_string(),
            Ok(model) => model
                .prefill(&mut machine, 10, layers::Section::Whole)
                .err()
                .map_or(String::new(), |error| error.to_string()),
        }
    };
    assert!(refused("gdn(h=2,k=48,v=32)").contains("key width"));
    assert!(refused("attn(h=2,kv=2,k=16)").contains("width of attention's heads"));
    assert!(refused("m2(h=2,p=24,n=32)").contains("width of the values"));
    assert!(refused("gsc(c=12,k=3)").contains("a multiple of 8"));
    assert!(refused("moe(8,e=40,k=33)").contains("more than 32 experts"));
}
