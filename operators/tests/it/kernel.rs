//! The CPU kernels as differentiable operations, against the same mathematics in torch operators.

use operators::ops::delta_rule::DeltaRule;
use operators::ops::gated_conv::{gated_conv, gated_conv_by_torch};
use operators::ops::kda::{Kda, log_decays, log_decays_by_torch};
use operators::ops::linear_attention::LinearAttention;
use operators::ops::log_linear::{self, LogLinear};
use operators::ops::norm::{
    Order, gated_rms_norm, gated_rms_norm_by_torch, rms_norm, rms_norm_by_torch,
};
use operators::ops::short_conv::{conv_silu, conv_silu_by_torch};
use tch::{Kind, Tensor};

use crate::support::Random;

fn leaf(x: &Tensor) -> Tensor {
    x.to_kind(Kind::Float).set_requires_grad(true)
}

#[test]
fn the_delta_rule_and_its_gradients_are_those_of_the_torch_form() {
    for (tokens, gated, with_state) in
        [(1, true, true), (63, true, false), (65, false, true), (200, true, true)]
    {
        let mut random = Random::new(tokens);
        let (b, t, h, k, v) = (2, tokens as i64, 3, 20, 17);
        let unit = |x: Tensor| {
            let norm =
                (x.square().sum_dim_intlist([-1_i64].as_slice(), true, Kind::Double) + 1e-6).sqrt();
            leaf(&(x / norm))
        };
        let (q, key) =
            (unit(random.tensor(&[b, t, h, k], 1.0)), unit(random.tensor(&[b, t, h, k], 1.0)));
        let value = leaf(&random.tensor(&[b, t, h, v], 1.0));
        let g = gated.then(|| leaf(&-random.tensor(&[b, t, h], 0.3).abs()));
        let beta = leaf(&random.tensor(&[b, t, h], 2.0).sigmoid());
        let state = with_state.then(|| leaf(&random.tensor(&[b, h, k, v], 1.0)));
        let towards = random.tensor(&[b, t, h, v], 1.0).to_kind(Kind::Float);
        let towards_state = random.tensor(&[b, h, k, v], 1.0).to_kind(Kind::Float);

        let mut leaves = vec![&q, &key, &value, &beta];
        leaves.extend(g.iter());
        leaves.extend(state.iter());
        let rule = || DeltaRule {
            q: q.shallow_clone(),
            k: key.shallow_clone(),
            v: value.shallow_clone(),
            log_decay: g.as_ref().map(Tensor::shallow_clone),
            beta: beta.shallow_clone(),
            scale: 0.3,
            normalise: false,
        };
        let results =
            [rule().forward(state.as_ref()), rule().chunked(state.as_ref())].map(|(o, after)| {
                let loss =
                    (&o * &towards).sum(Kind::Float) + (&after * &towards_state).sum(Kind::Float);
                let gradients = Tensor::run_backward(&[loss], &leaves, false, false);
                [vec![o, after], gradients].into_iter().flatten().collect::<Vec<_>>()
            });
        let [kernel, torch] = results;
        assert_eq!(kernel.len(), leaves.len() + 2);
        for (index, (a, b)) in kernel.iter().zip(&torch).enumerate() {
            let error = f64::try_from((a - b).abs().max() / b.abs().max()).expect("one number");
            assert!(error < 2e-5, "T = {tokens}, result {index}: {error}");
        }
    }
}

#[test]
fn an_operation_that_is_not_differentiated_records_nothing() {
    let mut random = Random::new(5);
    let mut of = |shape: &[i64]| random.tensor(shape, 0.5).to_kind(Kind::Float);
    let rule = DeltaRule {
        q: of(&[1, 9, 1, 4]),
        k: of(&[1, 9, 1, 4]),
        v: of(&[1, 9, 1, 4]),
        log_decay: None,
        beta: of(&[1, 9, 1]),
        scale: 1.0,
        normalise: false,
    };
    assert!(!rule.forward(None).0.requires_grad());
}

/// The outputs of two forms and the gradients of `leaves` through both agree.
#[track_caller]
fn assert_same(what: &str, leaves: &[&Tensor], forms: [Vec<Tensor>; 2], tolerance: f64) {
    let mut random = Random::new(77);
    let towards: Vec<Tensor> =
        forms[0].iter().map(|o| random.tensor(&o.size(), 1.0).to_kind(Kind::Float)).collect();
    let [kernel, torch] = forms.map(|outputs| {
        let products = outputs.iter().zip(&towards).map(|(o, d)| (o * d).sum(Kind::Float));
        let loss = products.reduce(|a, b| a + b).expect("an output");
        let gradients = Tensor::run_backward(&[loss], leaves, false, false);
        outputs.into_iter().chain(gradients).collect::<Vec<_>>()
    });
    assert_eq!(kernel.len(), torch.len());
    for (index, (a, b)) in kernel.iter().zip(&torch).enumerate() {
        assert_eq!((a.size(), a.kind()), (b.size(), b.kind()), "{what}, result {index}");
        let error = crate::support::error(a, b);
        assert!(error < tolerance, "{what}, result {index}: {error:e}");
    }
}

/// Columns 3.. of a wider tensor, which a kernel must read where they lie.
fn columns_of_a_wider_one(random: &mut Random, size: &[i64]) -> Tensor {
    let mut wider = size.to_vec();
    *wider.last_mut().expect("a dimension") += 5;
    leaf(&random.tensor(&wider, 1.0)).narrow(-1, 3, size[size.len() - 1])
}

#[test]
fn linear_attention_and_its_gradients_are_those_of_the_torch_form() {
    for (tokens, with_scale, with_state) in [(1, true, true), (63, true, false), (200, false, true)]
    {
        let mut random = Random::new(tokens);
        let (b, t, h, k, v) = (2, tokens as i64, 3, 20, 17);
        let q = columns_of_a_wider_one(&mut random, &[b, t, k]);
        let key = columns_of_a_wider_one(&mut random, &[b, t, k]);
        let value = columns_of_a_wider_one(&mut random, &[b, t, h * v]);
        let g = leaf(&-random.tensor(&[b, t, h], 0.3).abs());
        let scale = with_scale.then(|| leaf(&random.tensor(&[b, t, h], 1.0).abs()));
        let skip = with_scale.then(|| leaf(&random.tensor(&[h], 1.0)));
        let state = with_state.then(|| leaf(&random.tensor(&[b, h, k, v], 1.0)));
        let rule = || LinearAttention {
            q: q.shallow_clone(),
            k: key.shallow_clone(),
            v: value.reshape([b, t, h, v]),
            log_decay: g.shallow_clone(),
            v_scale: scale.as_ref().map(Tensor::shallow_clone),
            skip: skip.as_ref().map(Tensor::shallow_clone),
        };
        let mut leaves = vec![&q, &key, &value, &g];
        leaves.extend(scale.iter().chain(&skip).chain(&state));
        let forms = [rule().forward(state.as_ref()), rule().chunked(state.as_ref())];
        let forms = forms.map(|(o, after)| vec![o, after]);
        assert_same(&format!("T = {tokens}"), &leaves, forms, 2e-5);
    }
}

#[test]
fn the_convolution_and_the_norms_are_those_of_the_torch_forms() {
    for (tokens, channels) in [(1, 2), (2, 63), (63, 100), (300, 17), (3, 1000)] {
        let mut random = Random::new(tokens);
        let x = columns_of_a_wider_one(&mut random, &[2, tokens as i64, channels]);
        let weight = leaf(&random.tensor(&[channels, 4], 1.0));
        let bias = leaf(&random.tensor(&[channels], 1.0));
        let what = format!("convolution of {tokens} × {channels}");
        for (bias, state) in [(None, false), (Some(&bias), true)] {
            let before = state.then(|| leaf(&random.tensor(&[2, 3, channels], 1.0)));
            let mut leaves = vec![&x, &weight];
            leaves.extend(bias);
            leaves.extend(&before);
            let mut states = [(); 2].map(|()| before.as_ref().map(Tensor::shallow_clone));
            let [first, second] = &mut states;
            let forms = [
                vec![conv_silu(&x, &weight, bias, first.as_mut())],
                vec![conv_silu_by_torch(&x, &weight, bias, second.as_mut())],
            ];
            assert_same(&what, &leaves, forms, 1e-5);
            if let [Some(first), Some(second)] = states {
                assert!(first.equal(&second), "{what}: the state");
            }
        }
        let gate = columns_of_a_wider_one(&mut random, &[2, tokens as i64, channels]);
        let weight = leaf(&random.tensor(&[channels], 1.0));
        let forms = [vec![rms_norm(&x, &weight)], vec![rms_norm_by_torch(&x, &weight)]];
        assert_same("norm", &[&x, &weight], forms, 1e-5);
        let heads = leaf(&random.tensor(&[2, tokens as i64, 3, channels], 1.0));
        let leaves = [&x, &gate, &weight];
        for order in [Order::NormThenGate, Order::NormThenSigmoid, Order::GateThenNorm] {
            let forms = [
                vec![gated_rms_norm(&x, &gate, &weight, order)],
                vec![gated_rms_norm_by_torch(&x, &gate, &weight, order)],
            ];
            assert_same(&format!("{order:?}"), &leaves, forms, 1e-5);
            let gate = leaf(&random.tensor(&[2, tokens as i64, 3, channels], 1.0));
            let forms = [
                vec![gated_rms_norm(&heads, &gate, &weight, order)],
                vec![gated_rms_norm_by_torch(&heads, &gate, &weight, order)],
            ];
            assert_same(&format!("{order:?} of heads"), &[&heads, &gate, &weight], forms, 1e-5);
        }
    }
}

/// With the products before it and without, forward, the state after it, and every gradient.
#[test]
fn the_gated_convolution_and_its_gradients_are_those_of_the_torch_form() {
    for (tokens, channels, taps) in [(1, 5, 3), (2, 130, 8), (63, 7, 2), (100, 20, 4)] {
        let mut random = Random::new(tokens as u64);
        let rows = columns_of_a_wider_one(&mut random, &[2, tokens, 3 * channels]);
        let weight = leaf(&random.tensor(&[channels, taps], 1.0));
        let before = leaf(&random.tensor(&[2, taps - 1, channels], 1.0));
        let forms = [
            vec![gated_conv(&rows, &weight, None)],
            vec![gated_conv_by_torch(&rows, &weight, None)],
        ];
        assert_same("gated convolution", &[&rows, &weight], forms, 1e-5);
        let carried = |form: fn(&Tensor, &Tensor, Option<&mut Tensor>) -> Tensor| {
            let mut state = before.shallow_clone();
            let y = form(&rows, &weight, Some(&mut state));
            vec![y, state]
        };
        let forms = [carried(gated_conv), carried(gated_conv_by_torch)];
        assert_same("after others", &[&rows, &weight, &before], forms, 1e-5);
    }
}

#[test]
fn shared_key_heads_and_several_steps_are_those_of_the_torch_form() {
    for (tokens, n, key_heads, heads) in
        [(1, 2, 1, 3), (63, 1, 2, 4), (50, 3, 2, 2), (100, 2, 1, 2)]
    {
        let mut random = Random::new(tokens as u64);
        let (b, t, k, v) = (2, tokens, 20, 17);
        let q = columns_of_a_wider_one(&mut random, &[b, t, key_heads * k]);
        let key = leaf(&random.tensor(&[b, t * n, key_heads, k], 1.0));
        let value = leaf(&random.tensor(&[b, t * n, heads, v], 1.0));
        let g = leaf(&-random.tensor(&[b, t, heads], 0.3).abs());
        let beta = leaf(&random.tensor(&[b, t * n, heads], 1.0).sigmoid());
        let rule = || DeltaRule {
            q: q.reshape([b, t, key_heads, k]),
            k: key.shallow_clone(),
            v: value.shallow_clone(),
            log_decay: Some(g.shallow_clone()),
            beta: beta.shallow_clone(),
            scale: 0.3,
            normalise: true,
        };
        let state = leaf(&random.tensor(&[b, heads, k, v], 1.0));
        let forms = [rule().forward(Some(&state)), rule().chunked(Some(&state))];
        let forms = forms.map(|(o, after)| vec![o, after]);
        let what = format!("{tokens} positions of {n} steps, {key_heads} key heads");
        assert_same(&what, &[&q, &key, &value, &g, &beta, &state], forms, 2e-5);
    }
}

#[test]
fn kimi_delta_attention_and_its_gradients_are_those_of_the_torch_form() {
    for (tokens, normalise, strongest) in
        [(1, true, 0.3), (15, false, 30.0), (64, true, 0.3), (65, false, 0.3), (200, true, 90.0)]
    {
        let mut random = Random::new(tokens as u64);
        let (b, t, h, k, v) = (2, tokens, 3, 20, 17);
        let mut keys = || columns_of_a_wider_one(&mut random, &[b, t, h * k]);
        let (q, key) = (keys(), keys());
        let unit = |x: &Tensor| {
            let x = x.reshape([b, t, h, k]);
            if normalise { x } else { &x / x.norm_scalaropt_dim(2, [-1_i64].as_slice(), true) }
        };
        let value = columns_of_a_wider_one(&mut random, &[b, t, h * v]);
        let g = leaf(&-random.tensor(&[b, t, h, k], strongest).abs());
        let beta = leaf(&random.tensor(&[b, t, h], 1.0).sigmoid());
        let state = leaf(&random.tensor(&[b, h, k, v], 1.0));
        let rule = || Kda {
            q: unit(&q),
            k: unit(&key),
            v: value.reshape([b, t, h, v]),
            log_decay: g.shallow_clone(),
            beta: beta.shallow_clone(),
            scale: 0.3,
            normalise,
        };
        for state in [None, Some(&state)] {
            let forms = [rule().forward(state), rule().chunked(state)];
            let forms = forms.map(|(o, after)| vec![o, after]);
            // from nothing, the first position has nothing to decay
            let mut leaves = vec![&q, &key, &value, &beta];
            leaves.extend(Some(&g).filter(|_| t > 1 || state.is_some()));
            leaves.extend(state);
            assert_same(&format!("T = {tokens}"), &leaves, forms, 2e-5);
        }
    }
}

#[test]
fn the_decays_of_kimi_delta_attention_and_their_gradients_are_those_of_the_torch_form() {
    for (tokens, heads, width) in [(1, 1, 3), (65, 3, 20), (100, 2, 64)] {
        let mut random = Random::new(tokens as u64);
        let x = columns_of_a_wider_one(&mut random, &[2, tokens, heads * width]);
        let bias = leaf(&random.tensor(&[heads * width], 1.0));
        let a_log = leaf(&random.tensor(&[heads], 1.0));
        let forms = [log_decays(&x, &bias, &a_log), log_decays_by_torch(&x, &bias, &a_log)];
        let what = format!("{tokens} × {heads} × {width}");
        assert_same(&what, &[&x, &bias, &a_log], forms.map(|g| vec![g]), 1e-5);
    }
}

#[test]
fn log_linear_rules_and_their_gradients_are_those_of_the_torch_forms() {
    for (tokens, levels) in [(1, 3), (37, 8), (63, 5), (100, 8), (1000, 12)] {
        let mut random = Random::new(tokens as u64);
        let (b, t, key_heads, heads, k, v) = (2, tokens, 2, 4, 20, 17);
        let g = leaf(&-random.tensor(&[b, t, heads], 0.05).abs());
        let lambda = leaf(&random.tensor(&[b, t, heads, levels], 1.0).softplus());
        let value = columns_of_a_wider_one(&mut random, &[b, t, heads * v]);

        let q = columns_of_a_wider_one(&mut random, &[b, t, k]);
        let key = columns_of_a_wider_one(&mut random, &[b, t, k]);
        let scale = leaf(&random.tensor(&[b, t, heads], 1.0).abs());
        let skip = leaf(&random.tensor(&[heads], 1.0));
        let rule = LinearAttention {
            q: q.shallow_clone(),
            k: key.shallow_clone(),
            v: value.reshape([b, t, heads, v]),
            log_decay: g.shallow_clone(),
            v_scale: Some(scale.shallow_clone()),
            skip: Some(skip.shallow_clone()),
        };
        let forms = [
            vec![log_linear::linear_attention(&rule, &lambda, None)],
            vec![log_linear::linear_attention_by_torch(&rule, &lambda, None)],
        ];
        // with one position nothing is left of anything, and g gets nothing
        let of_g = Some(&g).filter(|_| t > 1);
        let mut leaves = vec![&q, &key, &value, &scale, &skip, &lambda];
        leaves.extend(of_g);
        assert_same(&format!("linear attention, T = {tokens}"), &leaves, forms, 1e-5);

        let q = columns_of_a_wider_one(&mut random, &[b, t, key_heads * k]);
        let key = leaf(&random.tensor(&[b, t, key_heads, k], 1.0));
        let beta = leaf(&random.tensor(&[b, t, heads], 1.0).sigmoid());
        let rule = DeltaRule {
            q: q.reshape([b, t, key_heads, k]),
            k: key.shallow_clone(),
            v: value.reshape([b, t, heads, v]),
            log_decay: Some(g.shallow_clone()),
            beta: beta.shallow_clone(),
            scale: 0.3,
            normalise: true,
        };
        let forms = [
            vec![log_linear::delta_rule(&rule, &lambda, None)],
            vec![LogLinear::of_delta_rule(&rule, &lambda).forward(None)],
        ];
        let mut leaves = vec![&q, &key, &value, &beta, &lambda];
        leaves.extend(of_g);
        assert_same(&format!("delta rule, T = {tokens}"), &leaves, forms, 1e-5);
    }
}

/// The gradient of a factor of all log-decays, as `exp(A_log)` is one: a sum over positions beside which nothing may be
/// left of what cancels inside a chunk.
#[test]
fn the_gradient_of_a_shared_decay_is_that_in_f64() {
    let (b, t, h, k, v) = (2, 100, 3, 8, 12);
    for seed in 0..4 {
        let mut random = Random::new(900 + seed);
        let mut numbers = |shape: &[i64]| random.tensor(shape, 1.0);
        let (q, key, value) =
            (numbers(&[b, t, h, k]), numbers(&[b, t, h, k]), numbers(&[b, t, h, v]));
        let (beta, u) = (numbers(&[b, t, h]).sigmoid(), numbers(&[b, t, h]).softplus());
        let (towards, of_channels) = (numbers(&[b, t, h, v]), numbers(&[k]).abs());
        let gradient = |kind: Kind, form: &str| {
            let of = |x: &Tensor| x.to_kind(Kind::Float).to_kind(kind); // the same numbers in both
            let factor = Tensor::ones([h], (kind, tch::Device::Cpu)).set_requires_grad(true);
            let log_decay = -of(&u) * &factor;
            let (q, k, v, beta) = (of(&q), of(&key), of(&value), of(&beta));
            let (scale, normalise) = (0.3, true);
            let o = match form {
                "the delta rule" => {
                    let log_decay = Some(log_decay);
                    DeltaRule { q, k, v, log_decay, beta, scale, normalise }.forward(None).0
                }
                "Kimi Delta Attention" => {
                    let log_decay = log_decay.unsqueeze(-1) * of(&of_channels);
                    Kda { q, k, v, log_decay, beta, scale, normalise }.forward(None).0
                }
                _ => {
                    let (q, k) = (q.select(2, 0), k.select(2, 0));
                    let (v_scale, skip) = (Some(beta), None);
                    LinearAttention { q, k, v, log_decay, v_scale, skip }.forward(None).0
                }
            };
            (o * of(&towards)).sum(kind).backward();
            factor.grad()
        };
        for form in ["the delta rule", "Kimi Delta Attention", "linear attention"] {
            let exact = gradient(Kind::Double, form);
            let error = crate::support::error(&gradient(Kind::Float, form), &exact);
            assert!(error < 6e-7, "seed {seed}, {form}: {error:e}");
        }
    }
}
