//! Log-linear attention: its two forms, its definition, and the plain rules that it becomes when every λ is 1.

use kernels::log_linear;
use operators::ops::delta_rule::DeltaRule;
use operators::ops::linear_attention::LinearAttention;
use operators::ops::log_linear::{Levels, LogLinear, level_scales};
use tch::{Device, Kind, Tensor};

use crate::support::{Random, assert_close, numbers};

const TOKENS: [i64; 8] = [1, 2, 63, 64, 65, 100, 130, 300];
const B: i64 = 2;
const H: i64 = 3;
const K: i64 = 5;
const V: i64 = 4;

fn rule(tokens: i64, levels: i64, delta: bool) -> LogLinear {
    let mut random = Random::new(41);
    let mut tensor = |width: i64| random.tensor(&[B, tokens, H, width], 1.0);
    let k = tensor(K);
    let k = &k / k.square().sum_dim_intlist(-1, true, Kind::Double).sqrt();
    LogLinear {
        q: tensor(K),
        k,
        v: tensor(V),
        log_decay: -tensor(1).squeeze_dim(-1).abs() * 0.2,
        beta: delta.then(|| tensor(1).squeeze_dim(-1).sigmoid() * 2.0),
        lambda: tensor(levels).softplus(),
        scale: 0.5,
    }
}

fn empty(levels: i64) -> Levels {
    Levels { memory: Tensor::zeros([B, H, levels, K, V], (Kind::Double, Device::Cpu)), position: 0 }
}

fn cases() -> impl Iterator<Item = (i64, bool)> {
    [1, 2, 5, 8, 12].into_iter().flat_map(|levels| [(levels, false), (levels, true)])
}

#[test]
fn the_parallel_form_is_the_definition() {
    for (levels, delta) in cases() {
        for tokens in [1, 2, 63, 65, 100, 200] {
            let rule = rule(tokens, levels, delta);
            let got = rule.forward(None);
            let mut heads = Vec::new();
            for (b, h) in (0..B).flat_map(|b| (0..H).map(move |h| (b, h))) {
                let one = |x: &Tensor| numbers(&x.get(b).select(1, h));
                let (q, k, v, g) = (one(&rule.q), one(&rule.k), one(&rule.v), one(&rule.log_decay));
                let lambda = one(&rule.lambda);
                heads.extend(match &rule.beta {
                    Some(beta) => log_linear::delta_rule_definition(
                        &q,
                        &k,
                        &v,
                        &g,
                        &one(beta),
                        &lambda,
                        rule.scale,
                    ),
                    None => {
                        log_linear::linear_attention_definition(&q, &k, &v, &g, &lambda, rule.scale)
                    }
                });
            }
            let expected = Tensor::from_slice(&heads).reshape([B, H, tokens, V]).transpose(1, 2);
            assert_close(
                &format!("{levels} levels, {tokens} positions, delta {delta}"),
                &got,
                &expected,
            );
        }
    }
}

#[test]
fn the_parallel_form_is_the_recurrence_split_anywhere() {
    for (levels, delta) in cases() {
        for tokens in TOKENS {
            let rule = rule(tokens, levels, delta);
            let parallel = rule.forward(None);
            let mut state = empty(levels);
            let recurrent = rule.recurrent(&mut state);
            assert_close("recurrent", &recurrent, &parallel);
            assert_eq!(state.position, tokens);

            let mut carried = empty(levels);
            let with_state = rule.forward(Some(&mut carried));
            assert_close("with a state", &with_state, &parallel);
            assert_close("the sum of the states", &sum(&carried), &sum(&state));
        }
        let whole = rule(300, levels, delta);
        let expected = whole.forward(None);
        for at in [1, 63, 64, 100, 192, 299] {
            let mut state = empty(levels);
            let cut = |x: &Tensor, from: i64, to: i64| x.narrow(1, from, to - from);
            let part = |from, to| LogLinear {
                q: cut(&whole.q, from, to),
                k: cut(&whole.k, from, to),
                v: cut(&whole.v, from, to),
                log_decay: cut(&whole.log_decay, from, to),
                beta: whole.beta.as_ref().map(|beta| cut(beta, from, to)),
                lambda: cut(&whole.lambda, from, to),
                scale: whole.scale,
            };
            let first = part(0, at).forward(Some(&mut state));
            let second = part(at, 300).forward(Some(&mut state));
            assert_close(&format!("split at {at}"), &Tensor::cat(&[first, second], 1), &expected);
        }
    }
}

fn sum(state: &Levels) -> Tensor {
    state.memory.sum_dim_intlist(2, false, Kind::Double)
}

/// What the definition holds of each level for the position after the last, `[L, K, V]`: a query that is a unit vector
/// reads a row, a scale that is one reads a level, and the position itself writes, erases and forgets nothing.
fn defined_state(rule: &LogLinear, b: i64, h: i64) -> Tensor {
    let levels = rule.lambda.size()[3];
    let then = |x: &Tensor, width: i64, at: Option<i64>| {
        let mut all = numbers(&x.get(b).select(1, h));
        all.extend((0..width).map(|i| f64::from(u8::from(Some(i) == at))));
        all
    };
    let (k, v) = (then(&rule.k, K, None), then(&rule.v, V, None));
    let g = then(&rule.log_decay, 1, None);
    let beta = rule.beta.as_ref().map(|beta| then(beta, 1, None));
    let mut state = Vec::new();
    for (level, row) in (0..levels).flat_map(|level| (0..K).map(move |row| (level, row))) {
        let (q, lambda) = (then(&rule.q, K, Some(row)), then(&rule.lambda, levels, Some(level)));
        let o = match &beta {
            Some(beta) => log_linear::delta_rule_definition(&q, &k, &v, &g, beta, &lambda, 1.0),
            None => log_linear::linear_attention_definition(&q, &k, &v, &g, &lambda, 1.0),
        };
        state.extend_from_slice(&o[o.len() - V as usize..]);
    }
    Tensor::from_slice(&state).reshape([levels, K, V])
}

/// The states `[L, K, V]` as the position after the last sees them.
fn seen_next(state: &Levels, b: i64, h: i64) -> Tensor {
    let mut memory = state.memory.get(b).get(h).unbind(0);
    if let Some((upto, into)) = log_linear::merge(state.position as usize, memory.len()) {
        let zero = memory[0].zeros_like();
        let kept = if into > upto { memory[into].shallow_clone() } else { zero.shallow_clone() };
        let moved = memory[..=upto].iter().fold(kept, |sum, s| sum + s);
        memory[..=upto].fill_with(|| zero.shallow_clone());
        memory[into] = moved;
    }
    Tensor::stack(&memory, 0)
}

#[test]
fn the_states_are_what_the_definition_holds_at_each_level() {
    for (levels, delta) in cases() {
        for tokens in [1, 2, 63, 64, 100, 129] {
            let rule = rule(tokens, levels, delta);
            let (mut parallel, mut stepped) = (empty(levels), empty(levels));
            let _ = rule.forward(Some(&mut parallel));
            let _ = rule.recurrent(&mut stepped);
            let (b, h) = (1, 2);
            let expected = defined_state(&rule, b, h);
            assert!(expected.abs().max().double_value(&[]) > 0.1);
            for (form, state) in [("parallel", &parallel), ("step by step", &stepped)] {
                let what = format!("{form}: {levels} levels after {tokens}, delta {delta}");
                assert_close(&what, &seen_next(state, b, h), &expected);
            }
        }
    }
}

#[test]
fn with_every_scale_1_it_is_the_plain_rule() {
    for tokens in TOKENS {
        let mut delta = rule(tokens, 9, true);
        delta.lambda = delta.lambda.ones_like();
        let plain = DeltaRule {
            q: delta.q.shallow_clone(),
            k: delta.k.shallow_clone(),
            v: delta.v.shallow_clone(),
            log_decay: Some(delta.log_decay.shallow_clone()),
            beta: delta.beta.as_ref().expect("a delta rule").shallow_clone(),
            scale: delta.scale,
            normalise: false,
        };
        assert_close("delta rule", &delta.forward(None), &plain.chunked(None).0);

        let mut linear = rule(tokens, 9, false);
        let shared = |x: &Tensor| x.narrow(2, 0, 1).expand([B, tokens, H, K], false);
        (linear.q, linear.k) = (shared(&linear.q), shared(&linear.k));
        linear.lambda = linear.lambda.ones_like();
        let plain = LinearAttention {
            q: linear.q.select(2, 0) * linear.scale,
            k: linear.k.select(2, 0),
            v: linear.v.shallow_clone(),
            log_decay: linear.log_decay.shallow_clone(),
            v_scale: None,
            skip: None,
        };
        assert_close("linear attention", &linear.forward(None), &plain.chunked(None).0);
    }
}

#[test]
fn gradients_are_finite_differences() {
    for delta in [false, true] {
        let rule = rule(100, 5, delta);
        let inputs: Vec<&Tensor> = [&rule.q, &rule.k, &rule.v, &rule.log_decay, &rule.lambda]
            .into_iter()
            .chain(&rule.beta)
            .collect();
        for input in &inputs {
            let _ = input.set_requires_grad(true);
        }
        let towards = Random::new(43).tensor(&[B, 100, H, V], 1.0);
        let loss = || (rule.forward(None) * &towards).sum(Kind::Double);
        loss().backward();
        for (index, input) in inputs.iter().enumerate() {
            let direction = Random::new(44 + index as u64).tensor(&input.size(), 1.0);
            let got = (input.grad() * &direction).sum(Kind::Double).double_value(&[]);
            let expected = crate::gradients::difference(input, &direction, loss);
            assert!(
                (got - expected).abs() < 1e-6 * expected.abs().max(1.0),
                "{index}: {got}, {expected}"
            );
        }
    }
}

#[test]
fn level_scales_belong_to_their_head_and_level() {
    let raw = Random::new(45).tensor(&[2, 3, 6], 2.0);
    let scales = Random::new(46).tensor(&[2, 3], 1.0);
    let lambda = level_scales(&raw, &scales);
    assert_eq!(lambda.size(), [2, 3, 2, 3]);
    let (head, level) = (1, 2);
    let x = raw.double_value(&[1, 2, head * 3 + level]) * scales.double_value(&[head, level]);
    let got = lambda.double_value(&[1, 2, head, level]);
    assert!((got - kernels::activation::softplus(x)).abs() < 1e-12);
}
