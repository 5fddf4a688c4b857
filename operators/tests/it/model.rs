//! The whole model: its two forms agree, and its weights follow from the seed.

use operators::Model;
use search::Architecture;
use search::tensors::Role;
use tch::{Device, Kind, Tensor, nn};

use crate::support::{Random, assert_close, numbers, randomise};

const HYBRID: &str = "d=12,vocab=17,tied | gdn(h=2,k=4,v=6)+ffn(20) | swa(h=2,kv=1,k=4,w=9) | ffn(9) | \
                      m2(h=3,p=4,n=5)+relu2(20) | moe(7,e=5,k=2,s=1) | gdn(h=1,k=4,v=3)+moe(9,e=4,k=1) | attn(h=2,kv=2,k=6,qknorm=whole,gate,post)+ffn(8) | dn(h=2,k=5,v=5)";

fn tokens(batch: i64, length: i64) -> Tensor {
    let mut random = Random::new(31);
    let tokens: Vec<i64> = (0..batch * length).map(|_| random.below(17).cast_signed()).collect();
    Tensor::from_slice(&tokens).reshape([batch, length])
}

fn hybrid() -> Architecture {
    HYBRID.parse().expect("the text is canonical")
}

/// With meta tokens, and every way in which a layer can keep them.
fn with_meta() -> Architecture {
    "d=12,vocab=17,tied,meta=5 | lgdn(h=2,k=4,v=6,l=6)+ffn(20) | swa(h=2,kv=1,k=4,w=9,srope) | \
     lm2(h=3,p=4,n=5,l=8) | attn(h=2,kv=2,k=6) | dn(h=2,k=6,v=5,srope)"
        .parse()
        .expect("the text is canonical")
}

#[test]
fn step_by_step_logits_are_those_of_the_parallel_form() {
    for architecture in [hybrid(), with_meta()] {
        step_by_step(&architecture);
    }
}

#[test]
fn meta_tokens_are_learnt_and_the_text_begins_after_them() {
    let store = nn::VarStore::new(Device::Cpu);
    let model = Model::new(&store.root(), &with_meta(), 1).expect("it builds");
    let tokens = tokens(2, 9);
    let before = model.forward(&tokens);
    before.sum(Kind::Float).backward();
    let meta = &model.variables_where(|role| role == Role::MetaTokens)[0];
    assert_eq!(meta.size(), [5, 12]);
    let gradients = meta.grad().square().sum_dim_intlist(1, false, Kind::Float);
    assert!(numbers(&gradients).iter().all(|g| *g > 0.0), "every one of them is learnt");
    let _ = tch::no_grad(|| meta.shallow_clone().g_mul_scalar_(-3.0));
    let after = model.forward(&tokens);
    assert!(crate::support::error(&after, &before) > 1e-4, "the first position sees them");
}

fn step_by_step(architecture: &Architecture) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let model = Model::new(&store.root(), architecture, 1).expect("it builds");
    store.double();
    randomise(model.variables(), 32);
    let tokens = tokens(2, 100);
    let parallel = model.forward(&tokens);
    assert_eq!(parallel.size(), [2, 100, 17]);

    let mut state = model.state(2);
    let steps: Vec<Tensor> =
        tokens.unbind(1).iter().map(|tokens| model.step(tokens, &mut state)).collect();
    assert_close("steps", &Tensor::stack(&steps, 1), &parallel);

    let mut state = model.state(2);
    let prompt = model.extend(&tokens.narrow(1, 0, 70), &mut state);
    let rest: Vec<Tensor> = tokens
        .narrow(1, 70, 30)
        .unbind(1)
        .iter()
        .map(|tokens| model.step(tokens, &mut state))
        .collect();
    let both = Tensor::cat(&[prompt, Tensor::stack(&rest, 1)], 1);
    assert_close("a prompt, then steps", &both, &parallel);
}

#[test]
fn the_seed_and_nothing_else_gives_the_weights() {
    let build = |seed| {
        let store = nn::VarStore::new(Device::Cpu);
        let model = Model::new(&store.root(), &hybrid(), seed).expect("it builds");
        model.variables().iter().flat_map(|v| numbers(&v.tensor)).collect::<Vec<f64>>()
    };
    tch::manual_seed(1);
    let first = build(7);
    tch::manual_seed(2);
    assert_eq!(first, build(7));
    assert_ne!(first, build(8));
    assert!(first.iter().all(|x| x.is_finite()));
}

#[test]
fn initial_weights_are_those_of_the_reference_layers() {
    let text = "d=256,vocab=64 | gdn(h=64,k=16,v=16)+ffn(256) | lm2(h=64,p=8,n=16,l=5) | \
                attn(h=64,kv=64,k=8,srope,pgate,pbias,pfull,ptemp=learnt)";
    let store = nn::VarStore::new(Device::Cpu);
    let model = Model::new(&store.root(), &text.parse().expect("canonical"), 3).expect("it builds");
    for variable in model.variables() {
        let values = numbers(&variable.tensor);
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        let within = |low: f64, high: f64| values.iter().all(|x| (low..=high).contains(x));
        let name = &variable.spec.name;
        match variable.spec.role {
            Role::NormWeight | Role::SkipD | Role::LevelScale | Role::PhaseScale => {
                assert!(within(1.0, 1.0), "{name}");
            }
            Role::Bias => assert!(within(0.0, 0.0), "{name}"),
            Role::Temperature => {
                let expected = |i: usize| 5e5_f64.powf(-(i as f64) / n);
                assert!(values.iter().enumerate().all(|(i, x)| (x - expected(i)).abs() < 1e-7));
            }
            Role::ConvWeight | Role::ConvBias => assert!(within(-0.5, 0.5) && std > 0.2, "{name}"),
            Role::ALog => assert!(
                within(if name.contains("layers.1") { 0.0 } else { -4.2 }, 16.0_f64.ln()),
                "{name}"
            ),
            Role::DtBias => {
                let dt = values.iter().map(|x| kernels::activation::softplus(*x));
                assert!(dt.clone().all(|dt| (0.99e-3..=0.101).contains(&dt)), "{name}");
            }
            _ => assert!(
                (std - 0.02).abs() < 0.002 && mean.abs() < 0.001,
                "{name}: mean {mean}, std {std}"
            ),
        }
    }
}

#[test]
fn an_untrained_model_is_nearly_uniform_and_learns() {
    let store = nn::VarStore::new(Device::Cpu);
    let model = Model::new(&store.root(), &hybrid(), 5).expect("it builds");
    let tokens = tokens(2, 65);
    let loss = || {
        let logits = model.forward(&tokens.narrow(1, 0, 64)).reshape([-1, 17]);
        logits.cross_entropy_for_logits(&tokens.narrow(1, 1, 64).reshape([-1]))
    };
    let before = loss();
    assert!((before.double_value(&[]) - 17.0_f64.ln()).abs() < 0.1);
    for _ in 0..20 {
        loss().backward();
        tch::no_grad(|| {
            for variable in model.variables() {
                let mut tensor = variable.tensor.shallow_clone();
                let mut gradient = tensor.grad();
                let _ = tensor.g_sub_(&(&gradient * 0.5));
                let _ = gradient.zero_();
            }
        });
    }
    let after = loss();
    assert_eq!(after.kind(), Kind::Float);
    assert!(after.double_value(&[]) < before.double_value(&[]) - 0.05, "{before:?} to {after:?}");
}

#[test]
fn normalised_readers_have_unit_rows_and_writers_unit_columns() {
    let store = nn::VarStore::new(Device::Cpu);
    let mut model = Model::new(&store.root(), &hybrid(), 6).expect("it builds");
    let before: Vec<Vec<f64>> = model.variables().iter().map(|v| numbers(&v.tensor)).collect();
    model.normalise_weights();
    for (variable, before) in model.variables().iter().zip(before) {
        let name = &variable.spec.name;
        let dim = match variable.spec.role {
            Role::Reader => -1,
            Role::Writer => -2,
            _ => {
                assert_eq!(numbers(&variable.tensor), before, "{name}");
                continue;
            }
        };
        let norms = numbers(&variable.tensor.square().sum_dim_intlist(dim, false, Kind::Float));
        assert!(norms.iter().all(|n| (n - 1.0).abs() < 1e-5), "{name}: {norms:?}");
        assert!(variable.tensor.requires_grad(), "{name}");
    }

    let tokens = tokens(1, 9);
    let plain = model.forward(&tokens);
    model.divide_by_head_norms(true);
    let head = &model.variables().last().expect("tensors").spec.name;
    assert_eq!(head, "final_norm.weight", "the embedding is the head");
    let rows = model.variables_where(|role| role == Role::Embedding)[0].square();
    let norms = rows.sum_dim_intlist(1, false, Kind::Float).sqrt();
    assert!(crate::support::error(&model.forward(&tokens), &(plain / norms)) < 1e-5);
}
