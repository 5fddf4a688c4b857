//! What must hold of every mixer, whatever it computes.

use operators::mixer::MixerState;
use operators::ops::attention;
use operators::ops::delta_rule::DeltaRule;
use operators::ops::kda::Kda;
use operators::ops::linear_attention::LinearAttention;
use search::architecture::{Mixer as Gene, Temperature};
use tch::{Kind, Tensor};

use crate::support::{self, Built, D, Random, assert_close, error, genes};

const TOKENS: [i64; 7] = [1, 2, 63, 64, 65, 100, 130];

fn input(tokens: i64) -> Tensor {
    Random::new(tokens as u64).tensor(&[2, tokens, D.into()], 1.0)
}

/// The tensors of a state that two forms must leave alike.
fn parts(state: &MixerState) -> Vec<Tensor> {
    let (mut parts, phases) = match state {
        MixerState::Both(states) => return states.iter().flat_map(parts).collect(),
        MixerState::Window(inputs) => (vec![inputs.copy()], &None),
        MixerState::Cache(cache) => (vec![cache.k.copy(), cache.v.copy()], &cache.phases),
        MixerState::Recurrent(state) => {
            // after whole chunks the levels have moved less far: what counts is what they hold together
            let memory = match state.memory.dim() {
                5 => state.memory.sum_dim_intlist(2, false, Kind::Double),
                _ => state.memory.copy(),
            };
            (vec![memory, state.conv.copy()], &state.phases)
        }
    };
    parts.extend(phases.iter().flat_map(|phases| [phases.conv.copy(), phases.sum.copy()]));
    parts
}

fn assert_same_state(what: &str, got: &MixerState, expected: &MixerState) {
    for (got, expected) in parts(got).into_iter().zip(parts(expected)) {
        if expected.numel() > 0 && expected.abs().max().double_value(&[]) > 0.0 {
            assert_close(what, &got, &expected);
        } else {
            assert_eq!(got.size(), expected.size());
        }
    }
}

#[test]
fn chunked_is_recurrent() {
    for gene in genes() {
        let built = Built::new(gene, 2);
        for tokens in TOKENS {
            let x = input(tokens);
            let mut chunked_state = built.mixer.state(2);
            let chunked = built.mixer.forward(&x, Some(&mut chunked_state));
            let mut state = built.mixer.state(2);
            let steps: Vec<Tensor> =
                x.unbind(1).iter().map(|x| built.mixer.step(x, &mut state)).collect();
            let what = format!("{gene} over {tokens} positions");
            assert_close(&what, &chunked, &Tensor::stack(&steps, 1));
            assert_same_state(&format!("the state of {what}"), &chunked_state, &state);
        }
    }
}

#[test]
fn split_anywhere_and_carried_is_unsplit() {
    let tokens = 130;
    let x = input(tokens);
    for gene in genes() {
        let built = Built::new(gene, 3);
        let whole = built.mixer.forward(&x, None);
        for at in [1, 2, 7, 63, 64, 65, 100, 129] {
            let mut state = built.mixer.state(2);
            let first = built.mixer.forward(&x.narrow(1, 0, at), Some(&mut state));
            let second = built.mixer.forward(&x.narrow(1, at, tokens - at), Some(&mut state));
            assert_close(
                &format!("{gene} split at {at}"),
                &Tensor::cat(&[first, second], 1),
                &whole,
            );
        }
    }
}

#[test]
fn a_change_moves_nothing_before_it_and_something_after() {
    let x = input(100);
    for gene in genes() {
        let built = Built::new(gene, 4);
        let before = built.mixer.forward(&x, None);
        for at in [0, 1, 50, 64, 99] {
            let changed = x.copy();
            let _ = changed.select(1, at).fill_(3.0);
            let after = built.mixer.forward(&changed, None);
            let earlier = (&after - &before).narrow(1, 0, at).abs();
            assert!(
                at == 0 || earlier.max().double_value(&[]) < 1e-12,
                "{gene}: a change at {at} moved the past"
            );
            let here = (after - &before).select(1, at).abs().max().double_value(&[]);
            assert!(here > 1e-6, "{gene}: a change at {at} did not move its own position");
        }
    }
}

#[test]
fn rows_of_a_batch_are_independent() {
    let x = input(65);
    for gene in genes() {
        let built = Built::new(gene, 5);
        let both = built.mixer.forward(&x, None);
        for row in 0..2 {
            let alone = built.mixer.forward(&x.narrow(0, row, 1), None);
            assert_close(&format!("{gene}, row {row}"), &both.narrow(0, row, 1), &alone);
        }
    }
}

#[test]
fn f32_stays_near_f64() {
    let x = input(130);
    for gene in genes() {
        let built = Built::new(gene, 6);
        let double = built.mixer.forward(&x, None);
        for variable in &built.variables {
            variable.tensor.shallow_clone().set_data(&variable.tensor.to_kind(Kind::Float));
        }
        let single = built.mixer.forward(&x.to_kind(Kind::Float), None);
        assert_eq!(single.kind(), Kind::Float);
        let error = error(&single, &double);
        assert!(error < 2e-5, "{gene}: {error:e}");
    }
}

#[test]
fn a_window_as_long_as_the_text_is_full_attention() {
    let mut random = Random::new(7);
    for (tokens, past) in [(1, 0), (2, 0), (63, 0), (100, 0), (65, 20)] {
        let q = random.tensor(&[2, 4, tokens, 6], 1.0);
        let k = random.tensor(&[2, 2, past + tokens, 6], 1.0);
        let v = random.tensor(&[2, 2, past + tokens, 6], 1.0);
        let full = attention::full(&q, &k, &v);
        for window in [past + tokens, past + tokens + 1, 1000] {
            assert_close("swa", &attention::windowed(&q, &k, &v, window), &full);
        }
        if tokens > 2 {
            let shorter = attention::windowed(&q, &k, &v, past + tokens - 1);
            assert!(error(&shorter, &full) > 1e-6, "a shorter window must not be full attention");
        }
    }
}

/// The value of a tensor of a mixer, to be set.
fn tensor(built: &Built, name: &str) -> Tensor {
    let own = built.variables.iter().find(|v| v.spec.name == name);
    own.unwrap_or_else(|| panic!("{} has {name}", built.gene)).tensor.shallow_clone()
}

/// As many weights of another mixer as have their names.
fn with_weights_of(gene: &str, other: &Built) -> Built {
    let built = Built::new(support::gene(gene), 12);
    for variable in &other.variables {
        let own = built.variables.iter().find(|v| v.spec.name == variable.spec.name);
        if let Some(own) = own {
            tch::no_grad(|| own.tensor.shallow_clone().copy_(&variable.tensor));
        }
    }
    built
}

/// Where the input says nothing and e^b is 1 every position turns by τ, and only differences of positions count.
#[test]
fn selective_rope_with_nothing_but_its_bias_is_rotary_positions() {
    let x = input(100);
    for (selective, rotary) in [
        ("attn(h=4,kv=2,k=6,srope,pbias)", "attn(h=4,kv=2,k=6,theta=500000)"),
        ("attn(h=4,kv=2,k=6,srope,pbias,pfull,ptemp=learnt)", "attn(h=4,kv=2,k=6,theta=500000)"),
        ("swa(h=2,kv=2,k=8,w=9,srope,gate,pbias)", "swa(h=2,kv=2,k=8,w=9,gate,theta=500000)"),
    ] {
        let rotary = Built::new(support::gene(rotary), 11);
        let selective = with_weights_of(selective, &rotary);
        tch::no_grad(|| {
            let _ = tensor(&selective, "phi_conv.weight").zero_();
            let _ = tensor(&selective, "phi_bias").zero_();
            if selective.gene.phases().expect("it turns").forms.temperature == Temperature::Learnt {
                let first = Temperature::Learnt.values(3);
                tensor(&selective, "phi_temperature").copy_(&Tensor::from_slice(&first));
            }
        });
        let what = selective.gene.to_string();
        assert_close(&what, &selective.mixer.forward(&x, None), &rotary.mixer.forward(&x, None));
    }
}

/// A gate that is wide open, a bias far below, and temperatures as they begin change nothing; a closed gate turns nothing.
#[test]
fn the_parts_of_selective_rope_that_do_nothing_leave_the_plain_form() {
    let x = input(65);
    for mixer in ["attn(h=4,kv=2,k=6,qknorm,srope", "gdn(h=2,k=6,v=5,neg,srope"] {
        let plain = Built::new(support::gene(&format!("{mixer})")), 13);
        let whole = with_weights_of(&format!("{mixer},pgate,pbias,ptemp=learnt)"), &plain);
        tch::no_grad(|| {
            let _ = tensor(&whole, "phi_bias").fill_(-100.0);
            let _ = tensor(&whole, "phi_gate.weight").zero_();
            let _ = tensor(&whole, "phi_gate_bias").fill_(100.0);
            let first = Temperature::Learnt.values(3);
            tensor(&whole, "phi_temperature").copy_(&Tensor::from_slice(&first));
        });
        assert_close(mixer, &whole.mixer.forward(&x, None), &plain.mixer.forward(&x, None));
        let _ = tch::no_grad(|| tensor(&whole, "phi_gate_bias").fill_(-100.0));
        let still = mixer.replace(",srope", if mixer.starts_with("attn") { ",rot=0" } else { "" });
        let still = with_weights_of(&format!("{still})"), &plain);
        assert_close(mixer, &whole.mixer.forward(&x, None), &still.mixer.forward(&x, None));
    }
}

fn delta_rule(tokens: i64, decay: f64) -> DeltaRule {
    let mut random = Random::new(8);
    let mut tensor = |width: i64| random.tensor(&[2, tokens, 3, width], 1.0);
    let k = tensor(5);
    let k = &k / k.square().sum_dim_intlist(-1, true, Kind::Double).sqrt();
    DeltaRule {
        q: tensor(5),
        k,
        v: tensor(4),
        log_decay: Some(tensor(1).squeeze_dim(-1).abs() * -decay),
        beta: tensor(1).squeeze_dim(-1).sigmoid(),
        scale: 0.5,
        normalise: false,
    }
}

#[test]
fn gated_deltanet_without_decay_is_deltanet() {
    for tokens in TOKENS {
        let mut rule = delta_rule(tokens, 0.0);
        let (gated, gated_state) = rule.chunked(None);
        rule.log_decay = None;
        let (plain, plain_state) = rule.chunked(None);
        assert_close("output", &gated, &plain);
        assert_close("state", &gated_state, &plain_state);
    }
}

/// Decays as far apart as e^−100 per position, at which a quotient of products would overflow.
#[test]
fn strong_decays_do_not_overflow() {
    for tokens in [65, 130] {
        let rule = delta_rule(tokens, 100.0);
        for tensor in [&rule.q, &rule.k, &rule.v, rule.log_decay.as_ref().expect("a decay")] {
            let _ = tensor.set_requires_grad(true);
        }
        let (o, s) = rule.chunked(None);
        let (expected, expected_state) = rule.recurrent(None);
        assert_close("output", &o, &expected);
        assert_close("state", &s, &expected_state);
        (o.sum(Kind::Double) + s.sum(Kind::Double)).backward();
        for tensor in [&rule.q, &rule.k, &rule.v, rule.log_decay.as_ref().expect("a decay")] {
            assert!(bool::try_from(tensor.grad().isfinite().all()).expect("one value"));
        }
    }
}

fn kda(tokens: i64, decay: f64) -> Kda {
    let DeltaRule { q, k, v, beta, scale, .. } = delta_rule(tokens, decay);
    let log_decay = Random::new(10).tensor(&[2, tokens, 3, 5], 1.0).abs() * -decay;
    Kda { q, k, v, log_decay, beta, scale, normalise: false }
}

#[test]
fn kimi_delta_attention_with_equal_decays_is_gated_deltanet() {
    let state = Random::new(9).tensor(&[2, 3, 5, 4], 1.0);
    for tokens in TOKENS {
        let gated = delta_rule(tokens, 0.3);
        let one = gated.log_decay.as_ref().expect("a decay").unsqueeze(-1);
        let kimi = Kda { log_decay: one.expand([2, tokens, 3, 5], false), ..kda(tokens, 0.3) };
        for state in [None, Some(&state)] {
            let (o, s) = kimi.chunked(state);
            let (expected, expected_state) = gated.chunked(state);
            assert_close("output", &o, &expected);
            assert_close("state", &s, &expected_state);
        }
    }
}

/// Decays near 0 and near 1 beside each other, at which e^−G of a chunk would overflow even in f64.
#[test]
fn strong_decays_of_some_channels_do_not_overflow() {
    for tokens in [1, 15, 16, 17, 65, 130] {
        for decay in [0.01, 1.0, 100.0] {
            let rule = kda(tokens, decay);
            let inputs = [&rule.q, &rule.k, &rule.v, &rule.log_decay, &rule.beta];
            for tensor in inputs {
                let _ = tensor.set_requires_grad(true);
            }
            let (o, s) = rule.chunked(None);
            let (expected, expected_state) = rule.recurrent(None);
            assert_close("output", &o, &expected);
            assert_close("state", &s, &expected_state);
            let sum = |o: &Tensor, s: &Tensor| o.square().sum(Kind::Double) + s.sum(Kind::Double);
            let gradients = |loss: Tensor| Tensor::run_backward(&[loss], &inputs, false, false);
            let got = gradients(sum(&o, &s));
            for (got, expected) in got.iter().zip(gradients(sum(&expected, &expected_state))) {
                let size = expected.abs().max().double_value(&[]).max(1e-6);
                let error = (got - expected).abs().max().double_value(&[]);
                assert!(error <= 1e-9 * size, "{tokens}, {decay}: {error:e} of {size:e}");
            }
        }
    }
}

#[test]
fn an_initial_state_is_read_and_carried() {
    let state = Random::new(9).tensor(&[2, 3, 5, 4], 1.0);
    for tokens in TOKENS {
        let rule = delta_rule(tokens, 0.3);
        let (o, s) = rule.chunked(Some(&state));
        let (expected, expected_state) = rule.recurrent(Some(&state));
        assert_close("delta rule", &o, &expected);
        assert_close("delta rule's state", &s, &expected_state);
        let linear = LinearAttention {
            q: rule.q.select(2, 0),
            k: rule.k.select(2, 0),
            v: rule.v.shallow_clone(),
            log_decay: rule.log_decay.expect("a decay"),
            v_scale: None,
            skip: None,
        };
        let (o, s) = linear.chunked(Some(&state));
        let (expected, expected_state) = linear.recurrent(Some(&state));
        assert_close("linear attention", &o, &expected);
        assert_close("linear attention's state", &s, &expected_state);
    }
}

#[test]
fn every_gene_is_among_the_cases() {
    let kinds: std::collections::HashSet<_> = genes().iter().map(Gene::kind).collect();
    assert_eq!(kinds.len(), search::architecture::MixerKind::ALL.len());
}
