//! The engine: every mixer against the definitions, prefill against decode, batches, checkpoints.

use std::collections::HashMap;

use kernels::cpu::matrix::Storage;
use profiles::{Engine, ProfileError, Weights};
use safetensors::tensor::{Dtype, TensorView};
use search::Architecture;
use search::tensors::tensors;

use crate::reference;

/// One stack for each mixer, and one with everything; odd widths, tied and not.
const STACKS: [&str; 37] = [
    "d=24,vocab=37,tied | attn(h=4,kv=2,k=6)+ffn(20)",
    "d=24,vocab=37 | attn(h=2,kv=1,k=8,qknorm)",
    "d=24,vocab=37,tied | swa(h=3,kv=3,k=6,w=5)+ffn(7)",
    "d=24,vocab=37,tied | dn(h=3,k=5,v=7)+ffn(20)",
    "d=24,vocab=37,tied | gdn(h=3,k=5,v=7)+ffn(20)",
    "d=24,vocab=37 | m2(h=3,p=5,n=7)+ffn(20)",
    "d=24,vocab=37 | ffn(33)",
    "d=40,vocab=61,tied | 2*gdn(h=2,k=16,v=32)+ffn(48) | swa(h=4,kv=2,k=16,w=20)+ffn(48) | m2(h=4,p=16,n=32) | dn(h=2,k=16,v=16) | attn(h=4,kv=4,k=8)+ffn(48)",
    "d=24,vocab=37,tied | dn(h=2,k=5,v=7,gate,vg=3,neg)",
    "d=24,vocab=37,tied | gdn(h=2,k=5,v=3,nogate,vg=2,noconv)",
    "d=24,vocab=37,tied | dp(h=2,k=5,v=7,n=2,neg)",
    "d=24,vocab=37,tied | gdp(h=2,k=4,v=3,n=3,vg=2,neg)+ffn(20)",
    "d=24,vocab=37,tied | lgdn(h=2,k=4,v=7,l=15,vg=2,neg)+ffn(20)",
    "d=24,vocab=37,tied | lgdn(h=1,k=4,v=3,l=2,nogate,noconv) | lm2(h=2,p=5,n=3,l=4)",
    "d=24,vocab=37 | lm2(h=3,p=5,n=7,l=9)+ffn(20)",
    "d=24,vocab=37,tied | attn(h=4,kv=2,k=8,qknorm,gate,rot=25,theta=10000000)+ffn(20) | attn(h=2,kv=1,k=6,rot=0)",
    "d=24,vocab=37,tied,meta=3 | attn(h=4,kv=2,k=6,qknorm=whole) | swa(h=4,kv=2,k=8,w=5,qknorm=whole,gate,rot=50)",
    "d=24,vocab=37 | attn(h=4,kv=2,k=6,qknorm=whole,srope,gate) | swa(h=2,kv=2,k=4,w=9,gate)",
    "d=24,vocab=37,tied | attn(h=4,kv=2,k=6)+relu2(20) | relu2(7)",
    "d=24,vocab=37,tied,meta=3 | attn(h=4,kv=2,k=6,qknorm=whole,post)+ffn(20) | gdn(h=2,k=5,v=3)+ffn(20) | swa(h=2,kv=1,k=6,w=5,gate,post)+relu2(30) | attn(h=2,kv=2,k=4,post)",
    "d=40,vocab=61,tied,meta=3 | gdn(h=2,k=16,v=32)+relu2(50) | ffn(48) | attn(h=2,kv=1,k=8,rot=0) | relu2(80)",
    "d=24,vocab=37,tied | attn(h=4,kv=2,k=6,qknorm,srope) | swa(h=3,kv=3,k=4,w=5,srope)+ffn(7)",
    "d=24,vocab=37,tied,meta=5 | lgdn(h=2,k=4,v=6,l=6)+ffn(20) | swa(h=2,kv=1,k=4,w=9,srope) | lm2(h=3,p=4,n=5,l=8) | attn(h=2,kv=2,k=6) | dn(h=2,k=5,v=5)",
    "d=24,vocab=37,tied | dn(h=2,k=6,v=5,srope) | gdn(h=5,k=4,v=3,noconv,srope)",
    "d=24,vocab=37,tied | gdp(h=2,k=4,v=3,n=2,vg=2,neg,srope) | lgdn(h=3,k=4,v=3,l=8,srope)",
    "d=24,vocab=37,tied | attn(h=4,kv=2,k=6,srope,pgate,pbias,pfull,ptemp=learnt) | swa(h=5,kv=5,k=4,w=5,qknorm,srope,pfull,ptemp=rfa)+ffn(7)",
    "d=24,vocab=37,tied,meta=3 | gdn(h=3,k=4,v=5,neg,srope,pgate,pfull) | dp(h=2,k=6,v=3,n=2,srope,pbias,ptemp=ones)+ffn(20) | lgdn(h=2,k=4,v=3,l=8,srope,pgate,ptemp=learnt)",
    "d=24,vocab=37,tied | gsc(c=24,k=3)+ffn(20) | gsc(c=7,k=8) | gsc(c=150,k=2)",
    "d=24,vocab=37,tied | kda(h=3,k=5,v=7)+ffn(20) | kda(h=1,k=16,v=40)",
    "d=40,vocab=37,meta=3 | kda(h=2,k=20,v=100)+ffn(20) | attn(h=2,kv=1,k=8)",
    "d=24,vocab=37,meta=3 | gsc(c=24,k=4)+ffn(20) | attn(h=2,kv=1,k=8) | gsc(c=24,k=5)",
    "d=24,vocab=37,tied | par(h=4,kv=2,k=6,bh=3,bk=7,bv=5)+ffn(20) | par(h=2,kv=1,k=8,w=5,qknorm,gdn,bh=2,bk=5,bv=7)",
    "d=24,vocab=37,tied,meta=3 | par(h=4,kv=2,k=6,bh=3,bk=7,bv=5,nonorms)+ffn(20) | par(h=2,kv=1,k=8,w=5,gdn,bh=2,bk=5,bv=7,nonorms)",
    "d=24,vocab=37,tied,meta=3 | par(h=3,kv=3,k=8,rot=50,dn,bh=2,bk=5,bv=3) | gdn(h=2,k=5,v=3)+ffn(20)",
    "d=24,vocab=37 | moe(33,e=5,k=2)",
    "d=24,vocab=37,tied,meta=3 | gdn(h=2,k=5,v=3)+moe(20,e=3,k=1,s=2) | attn(h=4,kv=2,k=6,qknorm=whole,post)+moe(7,e=9,k=4,s=1)",
    "d=40,vocab=61,tied | moe(48,e=2,k=2) | m2(h=4,p=16,n=32)+moe(16,e=2,k=1)",
];

fn architecture(text: &str) -> Architecture {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn tokens(n: usize, vocab: u32) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i + 7 * i + 3) % vocab).collect()
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let size = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    let error = got
        .iter()
        .zip(expected)
        .map(|(a, b)| (f64::from(*a) - b).abs() / size)
        .fold(0.0, |m: f64, e| if e.is_nan() { f64::INFINITY } else { m.max(e) });
    assert!(error < 2e-5, "{what}: relative error {error:.1e}");
}

#[test]
fn logits_are_those_of_the_definitions() {
    for text in STACKS {
        let architecture = architecture(text);
        let weights = Weights::random(&architecture, 1);
        let engines = [1, 2].map(|threads| Engine::new(&architecture, &weights, threads));
        for length in [1, 2, 63, 100] {
            let tokens = tokens(length, architecture.vocab());
            let expected = reference::logits(&architecture, &weights, &tokens);
            for engine in &engines {
                let got = engine.logits(&mut engine.state(1), &tokens).unwrap();
                assert_close(&got, &expected, &format!("{text}, {length} tokens"));
            }
        }
    }
}

/// The largest difference of two sets of logits over the largest logit.
fn difference(got: &[f32], expected: &[f64]) -> f64 {
    let size = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    let pairs = got.iter().zip(expected);
    pairs
        .map(|(a, b)| (f64::from(*a) - b).abs() / size)
        .fold(0.0, |m: f64, e| if e.is_nan() { f64::INFINITY } else { m.max(e) })
}

#[test]
fn logits_of_lower_precisions_differ_by_their_rounding() {
    for (storage, bound) in [(Storage::Bf16, 0.05), (Storage::Int8, 0.1)] {
        for text in STACKS {
            let architecture = architecture(text);
            let weights = Weights::random(&architecture, 6);
            let engine = Engine::with_storage(&architecture, &weights, 2, storage);
            let full = Engine::new(&architecture, &weights, 1);
            assert!(engine.weight_bytes() < full.weight_bytes());
            let tokens = tokens(63, architecture.vocab());
            let expected = reference::logits(&architecture, &weights, &tokens);
            let got = engine.logits(&mut engine.state(1), &tokens).unwrap();
            let error = difference(&got, &expected);
            assert!(error < bound && error > 1e-5, "{text}, {storage:?}: {error:.1e}");
            // One token after the other: the same weights, other arithmetic.
            let mut state = engine.state(1);
            let vocab = architecture.vocab() as usize;
            for (token, expected) in tokens.iter().zip(expected.chunks_exact(vocab)) {
                let got = engine.decode(&mut state, &[*token]).unwrap();
                let error = difference(&got, expected);
                assert!(error < 2.0 * bound, "{text}, {storage:?}, decode: {error:.1e}");
            }
        }
    }
}

#[test]
fn prefill_then_decode_is_decode_alone_wherever_it_is_split() {
    for text in STACKS {
        let architecture = architecture(text);
        let weights = Weights::random(&architecture, 2);
        let engine = Engine::new(&architecture, &weights, 1);
        let tokens = tokens(70, architecture.vocab());
        let mut state = engine.state(1);
        let mut alone = Vec::new();
        for token in &tokens {
            alone = engine.decode(&mut state, &[*token]).unwrap();
        }
        let alone: Vec<f64> = alone.into_iter().map(f64::from).collect();
        let vocab = architecture.vocab() as usize;
        for (first, second) in [(69, 69), (1, 2), (3, 66), (40, 70), (70, 70)] {
            let mut state = engine.state(1);
            let mut last = engine.prefill(&mut state, &tokens[..first]).unwrap();
            if second > first {
                last = engine.prefill(&mut state, &tokens[first..second]).unwrap();
            }
            for token in &tokens[second..] {
                last = engine.decode(&mut state, &[*token]).unwrap();
            }
            assert_eq!((state.position(), last.len()), (70, vocab));
            assert_close(&last, &alone, &format!("{text}, split at {first} and {second}"));
        }
    }
}

#[test]
fn sequences_of_a_batch_do_not_see_each_other() {
    for text in STACKS {
        let architecture = architecture(text);
        let weights = Weights::random(&architecture, 3);
        let engine = Engine::new(&architecture, &weights, 2);
        let vocab = architecture.vocab();
        let prompts: Vec<Vec<u32>> =
            (0..3).map(|b| tokens(20, vocab).iter().map(|t| (t + b) % vocab).collect()).collect();
        let mut state = engine.state(3);
        engine.prefill(&mut state, &prompts.concat()).unwrap();
        let together = engine.decode(&mut state, &[5, 6, 7]).unwrap();
        for (b, prompt) in prompts.iter().enumerate() {
            let mut state = engine.state(1);
            engine.prefill(&mut state, prompt).unwrap();
            let alone = engine.decode(&mut state, &[5 + b as u32]).unwrap();
            let alone: Vec<f64> = alone.into_iter().map(f64::from).collect();
            assert_close(&together[b * vocab as usize..][..vocab as usize], &alone, text);
        }
    }
}

#[test]
fn tokens_that_do_not_fit_are_refused() {
    let architecture = architecture(STACKS[0]);
    let engine = Engine::new(&architecture, &Weights::random(&architecture, 4), 1);
    let mut state = engine.state(2);
    for (tokens, says) in
        [(&[][..], "at least one"), (&[1, 2, 3], "equally many"), (&[1, 37], "vocabulary of 37")]
    {
        let error = engine.prefill(&mut state, tokens).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(engine.decode(&mut state, &[1]).is_err());
    assert_eq!(state.position(), 0, "a refused prompt leaves no trace");
}

fn checkpoint(
    architecture: &Architecture,
    weights: &Weights,
    change: impl Fn(&str, &mut Vec<usize>),
) -> Vec<u8> {
    let held: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(architecture)
        .into_iter()
        .filter_map(|spec| {
            let mut shape: Vec<usize> = spec.shape.iter().map(|n| *n as usize).collect();
            change(&spec.name, &mut shape);
            let data = weights.get(&spec.name).iter().flat_map(|x| x.to_le_bytes()).collect();
            (!shape.is_empty()).then_some((spec.name, shape, data))
        })
        .collect();
    let views: HashMap<&str, TensorView<'_>> = held
        .iter()
        .map(|(name, shape, data)| {
            (
                name.as_str(),
                TensorView::new(Dtype::F32, shape.clone(), data).expect("the shape fits the data"),
            )
        })
        .collect();
    safetensors::serialize(views, None).expect("views are sound")
}

#[test]
fn a_checkpoint_is_loaded_by_name_and_shape() {
    let architecture = architecture(STACKS[7]);
    let weights = Weights::random(&architecture, 5);
    let folder = std::env::temp_dir().join(format!("deltafront-profiles-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("model.safetensors");

    std::fs::write(&path, checkpoint(&architecture, &weights, |_, _| ())).unwrap();
    let loaded = Weights::load(&path, &architecture).unwrap();
    for spec in tensors(&architecture) {
        assert_eq!(loaded.get(&spec.name), weights.get(&spec.name));
    }

    let lacking = checkpoint(&architecture, &weights, |name, shape| {
        if name == "layers.2.mixer.v.weight" {
            shape.clear();
        }
    });
    std::fs::write(&path, lacking).unwrap();
    let error = Weights::load(&path, &architecture).unwrap_err();
    assert!(
        matches!(&error, ProfileError::MissingTensor { name } if name == "layers.2.mixer.v.weight")
    );

    let transposed = checkpoint(&architecture, &weights, |name, shape| {
        if name == "layers.0.mixer.o.weight" {
            shape.reverse();
        }
    });
    std::fs::write(&path, transposed).unwrap();
    let error = Weights::load(&path, &architecture).unwrap_err().to_string();
    assert!(error.contains("layers.0.mixer.o.weight") && error.contains("[40, 64]"), "{error}");

    std::fs::write(&path, b"no tensors here").unwrap();
    let error = Weights::load(&path, &architecture).unwrap_err();
    assert!(matches!(error, ProfileError::Format { .. }), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(Weights::load(&path, &architecture), Err(ProfileError::Read { .. })));
}

#[test]
fn random_weights_depend_on_the_seed_alone() {
    let architecture = architecture(STACKS[5]);
    let [a, b, c] = [1, 1, 2].map(|seed| Weights::random(&architecture, seed));
    for spec in tensors(&architecture) {
        assert_eq!(a.get(&spec.name), b.get(&spec.name));
        assert!(a.get(&spec.name).iter().all(|x| x.is_finite()));
    }
    assert_ne!(a.get("embedding.weight"), c.get("embedding.weight"));
}
