//! Attention, SwiGLU, rotations and cross-entropy by the CPU kernels, against the same in torch operators.

use operators::ops::attention::{full, full_by_torch, windowed, windowed_by_torch};
use operators::ops::{cross_entropy, relu2, rope, swiglu};
use tch::{Kind, Reduction, Tensor};

use crate::support::{Random, error};

fn leaf(random: &mut Random, shape: &[i64]) -> Tensor {
    random.tensor(shape, 1.0).to_kind(Kind::Float).set_requires_grad(true)
}

/// The value of `f`, and the gradients of its sum weighted by `towards`.
fn value_and_gradients(
    f: impl Fn() -> Tensor,
    leaves: &[&Tensor],
    towards: &Tensor,
) -> Vec<Tensor> {
    let value = f();
    let gradients =
        Tensor::run_backward(&[(&value * towards).sum(Kind::Float)], leaves, false, false);
    [vec![value], gradients].into_iter().flatten().collect()
}

#[track_caller]
fn assert_agree(what: &str, got: &[Tensor], expected: &[Tensor]) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = error(got, expected);
        assert!(error < 2e-5, "{what}, result {index}: {error:e}");
    }
}

#[test]
fn attention_is_torchs_over_all_and_over_a_window_and_after_a_past() {
    let mut random = Random::new(61);
    for (tokens, past, heads, kv_heads, width, window) in [
        (63, 0, 2, 2, 8, None),
        (100, 0, 4, 2, 20, Some(9)),
        (65, 30, 3, 1, 16, None),
        (40, 7, 2, 2, 6, Some(8)),
        (300, 0, 1, 1, 64, Some(100)),
    ] {
        let (q, k, v) = (
            leaf(&mut random, &[2, tokens, heads, width]),
            leaf(&mut random, &[2, past + tokens, kv_heads, width]),
            leaf(&mut random, &[2, past + tokens, kv_heads, width]),
        );
        let towards = random.tensor(&[2, heads, tokens, width], 1.0).to_kind(Kind::Float);
        let of = |f: &dyn Fn(&Tensor, &Tensor, &Tensor) -> Tensor| {
            let attend = || f(&q.transpose(1, 2), &k.transpose(1, 2), &v.transpose(1, 2));
            value_and_gradients(attend, &[&q, &k, &v], &towards)
        };
        let (got, expected) = match window {
            None => (of(&full), of(&full_by_torch)),
            Some(w) => {
                (of(&|q, k, v| windowed(q, k, v, w)), of(&|q, k, v| windowed_by_torch(q, k, v, w)))
            }
        };
        assert_agree(&format!("{tokens} after {past}, window {window:?}"), &got, &expected);
    }
}

#[test]
fn swiglu_is_torchs() {
    let mut random = Random::new(62);
    let (gate, up) = (leaf(&mut random, &[3, 1000, 7]), leaf(&mut random, &[3, 1000, 7]));
    let towards = random.tensor(&[3, 1000, 7], 1.0).to_kind(Kind::Float);
    let of = |f: &dyn Fn() -> Tensor| value_and_gradients(f, &[&gate, &up], &towards);
    assert_agree("swiglu", &of(&|| swiglu::swiglu(&gate, &up)), &of(&|| gate.silu() * &up));
}

#[test]
fn squared_relu_is_torchs() {
    let mut random = Random::new(65);
    let x = leaf(&mut random, &[3, 1000, 7]);
    let towards = random.tensor(&[3, 1000, 7], 1.0).to_kind(Kind::Float);
    let of = |f: &dyn Fn() -> Tensor| value_and_gradients(f, &[&x], &towards);
    assert_agree("relu2", &of(&|| relu2::relu2(&x)), &of(&|| x.relu().square()));
}

#[test]
fn rotations_in_f32_are_those_in_f64() {
    let mut random = Random::new(63);
    let x = leaf(&mut random, &[2, 33, 3, 10]);
    let towards = random.tensor(&[2, 33, 3, 10], 1.0).to_kind(Kind::Float);
    for (turned, theta) in [(10, 1e4), (4, 1e4), (2, 100.0), (10, 1e7), (0, 1e4)] {
        let got = value_and_gradients(|| rope::rotate(&x, 5, turned, theta), &[&x], &towards);
        let wide = || rope::rotate(&x.to_kind(Kind::Double), 5, turned, theta).to_kind(Kind::Float);
        let expected = value_and_gradients(wide, &[&x], &towards);
        assert_agree(&format!("{turned} channels, θ {theta}"), &got, &expected);
    }
}

#[test]
fn cross_entropy_is_torchs() {
    let mut random = Random::new(64);
    let logits = leaf(&mut random, &[300, 37]);
    let targets: Vec<i64> = (0..300).map(|i| if i % 5 == 2 { -100 } else { i % 37 }).collect();
    let targets = Tensor::from_slice(&targets);
    let one = Tensor::ones([1_i64; 0], (Kind::Float, logits.device()));
    let torch = |reduction: Reduction| {
        logits.cross_entropy_loss::<Tensor>(&targets, None, reduction, -100, 0.0)
    };
    let got =
        value_and_gradients(|| cross_entropy::mean_loss(&logits, &targets, -100), &[&logits], &one);
    assert_agree("mean", &got, &value_and_gradients(|| torch(Reduction::Mean), &[&logits], &one));
    let each = random.tensor(&[300], 1.0).to_kind(Kind::Float);
    let got =
        value_and_gradients(|| cross_entropy::losses(&logits, &targets, -100), &[&logits], &each);
    assert_agree("rows", &got, &value_and_gradients(|| torch(Reduction::None), &[&logits], &each));
}
