//! What is timed is what is trained: a checkpoint of the torch model, loaded by the inference engine, gives the same
//! logits in prefill and in decode.

use evaluator::{Corpus, Training};
use profiles::{Engine, Weights};
use search::Architecture;
use search::config::{LearningRate, TrainingConfig};
use tch::Tensor;

use crate::support::{Folder, MIXERS, architecture, open, periodic, training_config};

/// fp32 rounding through a few layers.
const TOLERANCE: f64 = 1e-4;

const BATCH: usize = 2;

/// ‖a − b‖ / ‖b‖, which is NaN if anything is.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut b.iter().map(|&b| f64::from(b)))
}

fn check(what: &str, a: &[f32], b: &[f32]) {
    let error = relative_error(a, b);
    assert!(error <= TOLERANCE, "{what}: relative error {error}");
}

/// Trains a little, so that no tensor has its first value, saves, loads in the engine and compares.
fn compare(architecture: &Architecture, corpus: &Corpus, length: usize) {
    compare_trained(architecture, corpus, length, training_config());
}

fn compare_trained(
    architecture: &Architecture,
    corpus: &Corpus,
    length: usize,
    mut config: TrainingConfig,
) {
    let folder = Folder::new();
    config.learning_rate = LearningRate::Base(3e-2);
    let mut training =
        Training::new(architecture.clone(), corpus, &config, 6).expect("it can be trained");
    for _ in 0..4 {
        training.step().expect("a few steps do not diverge");
    }
    let path = folder.path().join("c.safetensors");
    training.save(&path).expect("the folder is writable");
    let weights = Weights::load(&path, architecture).expect("the checkpoint has every tensor");
    let engine = Engine::new(architecture, &weights, 1);

    let vocab = architecture.vocab() as usize;
    let tokens: Vec<u32> =
        (0..BATCH * length).map(|i| ((i * i * 31 + i * 7) % vocab) as u32).collect();
    let wide: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
    let input = Tensor::from_slice(&wide).view([BATCH as i64, length as i64]);
    let logits = tch::no_grad(|| training.model().forward(&input)); // [B, T, vocab]
    let expected: Vec<f32> = logits.view([-1]).try_into().expect("fp32");
    let at = |position: usize| -> Vec<f32> {
        let row = |b: usize| &expected[(b * length + position) * vocab..][..vocab];
        (0..BATCH).flat_map(|b| row(b).to_vec()).collect()
    };
    let columns = |range: std::ops::Range<usize>| -> Vec<u32> {
        (0..BATCH).flat_map(|b| tokens[b * length..][range.clone()].to_vec()).collect()
    };

    let all = engine.logits(&mut engine.state(BATCH), &tokens).expect("the tokens are good");
    check(&format!("{architecture}, every position of {length}"), &all, &expected);

    // A prompt of a third, then token by token.
    let prompt = (length / 3).max(1);
    let mut state = engine.state(BATCH);
    let last = engine.prefill(&mut state, &columns(0..prompt)).expect("the tokens are good");
    check(&format!("{architecture}, prefill of {prompt}"), &last, &at(prompt - 1));
    for position in prompt..length {
        let step = engine
            .decode(&mut state, &columns(position..position + 1))
            .expect("the tokens are good");
        check(&format!("{architecture}, decode at {position}"), &step, &at(position));
    }
}

fn corpus() -> Corpus {
    tch::set_num_threads(1);
    let folder = Folder::new();
    open(folder.file("a.txt", periodic(5000))).expect("the text is good")
}

/// Options of the delta family, each away from its default.
const VARIANTS: [&str; 4] = [
    "dn(h=2,k=5,v=7,gate,vg=2,neg)",
    "gdn(h=2,k=7,v=5,nogate,vg=3)",
    "gdn(h=1,k=8,v=8,neg,noconv)",
    "dp(h=2,k=5,v=6,n=2,nogate,neg,noconv)",
];

#[test]
fn options_of_the_delta_family_agree_with_the_inference_engine() {
    let corpus = corpus();
    for mixer in VARIANTS {
        for length in [5, 65] {
            compare(&architecture(&[mixer]), &corpus, length);
        }
    }
}

#[test]
fn normalised_weights_and_divided_logits_agree_with_the_inference_engine() {
    let corpus = corpus();
    for tied in [",tied", ""] {
        let text = format!("d=20,vocab=256{tied} | gdn(h=2,k=7,v=9)+ffn(17) | m2(h=2,p=5,n=7)");
        let config = TrainingConfig { weight_normalisation: true, ..training_config() };
        compare_trained(&text.parse().expect("the text is valid"), &corpus, 33, config);
    }
}

#[test]
fn log_linear_mixers_selective_rope_and_meta_tokens_agree_with_the_inference_engine() {
    let corpus = corpus();
    let text = "d=20,vocab=256,tied,meta=3 | lgdn(h=2,k=6,v=9,l=9)+ffn(17) | lm2(h=2,p=5,n=7,l=9) | \
                attn(h=2,kv=1,k=6,srope) | swa(h=2,kv=2,k=6,w=7,srope) | gdp(h=2,k=4,v=3,n=2,srope)";
    for length in [5, 100] {
        compare(&text.parse().expect("the text is valid"), &corpus, length);
    }
}

#[test]
fn forms_of_selective_rope_agree_with_the_inference_engine() {
    let corpus = corpus();
    let text = "d=20,vocab=256,tied,meta=3 | attn(h=4,kv=2,k=6,srope,pgate,pbias,pfull,ptemp=learnt) | \
                swa(h=3,kv=3,k=4,w=7,srope,pfull,ptemp=rfa)+ffn(17) | gdn(h=2,k=4,v=5,srope,pgate,pfull) | \
                dp(h=2,k=6,v=3,n=2,srope,pbias,ptemp=ones)";
    for length in [5, 100] {
        compare(&text.parse().expect("the text is valid"), &corpus, length);
    }
}

#[test]
fn forms_of_attention_and_of_ffns_agree_with_the_inference_engine() {
    let corpus = corpus();
    let text = "d=20,vocab=256,tied,meta=3 | attn(h=2,kv=1,k=8,qknorm,gate,rot=25,theta=1000000)+relu2(17) | \
                attn(h=2,kv=2,k=6,qknorm=whole,rot=0,post)+ffn(17) | relu2(23) | swa(h=2,kv=1,k=8,w=7,gate,rot=50,post) | \
                moe(11,e=5,k=2,s=1) | gdn(h=2,k=7,v=9)+moe(9,e=4,k=1)";
    for length in [5, 100] {
        compare(&text.parse().expect("the text is valid"), &corpus, length);
    }
}

#[test]
fn every_mixer_agrees_with_the_inference_engine() {
    let corpus = corpus();
    for mixer in MIXERS {
        // One chunk, several, and none whole; decode begins inside a short convolution's reach.
        for length in [1, 5, 64, 100] {
            compare(&architecture(&[mixer]), &corpus, length);
        }
    }
}

#[test]
fn a_hybrid_stack_agrees_with_the_inference_engine() {
    let corpus = corpus();
    let tied = architecture(&MIXERS);
    compare(&tied, &corpus, 63);
    let free = format!("{} | ffn(17) | {}", "d=20,vocab=300", MIXERS.join(" | "));
    compare(&free.parse().expect("the text is valid"), &corpus, 63);
}
