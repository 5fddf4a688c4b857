//! SwiGLU, rotations, cross-entropy and AdamW for training, against their definitions and finite differences of them.

use kernels::adamw::{self, Group, Update};
use kernels::cpu::serial;
use kernels::{cross_entropy, relu2, rope, swiglu};

use crate::random::{Random, assert_close, f32s, f64s, poisoned};

/// Central difference of `f` for each element of x.
fn differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let value = x[i];
            x[i] = value + step;
            let above = f(&x);
            x[i] = value - step;
            let below = f(&x);
            x[i] = value;
            (above - below) / (2.0 * step)
        })
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn swiglu_and_its_gradients() {
    let mut random = Random::new(51);
    for n in [0, 1, 63, 100, 1000, 20_001] {
        let mut numbers = || random.uniform(n, -4.0, 4.0);
        let (gate, up, d_out) = (numbers(), numbers(), numbers());
        let [g, u, d] = [&gate, &up, &d_out].map(|x| f32s(x));
        let mut out = poisoned(n);
        swiglu::train::forward(&g, &u, &mut out, &serial);
        assert_close(&out, &swiglu::definition(&gate, &up), 1e-6, "out");
        let (mut d_gate, mut d_up) = (poisoned(n), poisoned(n));
        swiglu::train::backward(&g, &u, &d, &mut d_gate, &mut d_up, &serial);
        let each = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            let step = 1e-5;
            (0..n).map(|i| (f(i, step) - f(i, -step)) / (2.0 * step) * d_out[i]).collect()
        };
        let at = |gate: f64, up: f64| swiglu::definition(&[gate], &[up])[0];
        assert_close(&d_gate, &each(&|i, by| at(gate[i] + by, up[i])), 1e-6, "d gate");
        assert_close(&d_up, &each(&|i, by| at(gate[i], up[i] + by)), 1e-6, "d up");
    }
}

#[test]
fn squared_relu_and_its_gradient() {
    let mut random = Random::new(56);
    for n in [0, 1, 63, 100, 1000, 20_001] {
        let (x, d_out) = (random.uniform(n, -4.0, 4.0), random.uniform(n, -4.0, 4.0));
        let [narrow_x, narrow_d] = [&x, &d_out].map(|x| f32s(x));
        let (mut out, mut d_x) = (poisoned(n), poisoned(n));
        relu2::train::forward(&narrow_x, &mut out, &serial);
        assert_close(&out, &relu2::definition(&x), 1e-6, "out");
        relu2::train::backward(&narrow_x, &narrow_d, &mut d_x, &serial);
        let at = |x: f64| relu2::definition(&[x])[0];
        let step = 1e-6;
        let slopes = x.iter().map(|x| (at(x + step) - at(x - step)) / (2.0 * step));
        let expected: Vec<f64> = slopes.zip(&d_out).map(|(slope, d)| slope * d).collect();
        assert_close(&d_x, &expected, 1e-6, "d x");
    }
}

#[test]
fn rotations_and_back() {
    let mut random = Random::new(52);
    for [batch, tokens, heads, width, turned] in [
        [1, 1, 1, 2, 2],
        [2, 63, 3, 6, 6],
        [1, 100, 2, 64, 64],
        [2, 5, 1, 40, 40],
        [2, 63, 3, 40, 10],
        [1, 5, 2, 64, 62],
        [1, 5, 2, 7, 0],
    ] {
        let half = turned / 2;
        let x = random.signed(batch * tokens * heads * width);
        let angle = |i: usize| (i / half) as f64 * 1e4_f64.powf(-((i % half) as f64) / half as f64);
        let table = |f: fn(f64) -> f64| {
            (0..tokens * half).map(|i| f(angle(i)) as f32).collect::<Vec<f32>>()
        };
        let (cos, sin) = (table(f64::cos), table(f64::sin));
        let shape = rope::train::Shape { tokens, heads, width, turned };
        let (mut out, mut back) = (poisoned(x.len()), poisoned(x.len()));
        rope::train::rotate(shape, &f32s(&x), [&cos, &sin], false, &mut out, &serial);
        let mut expected = x.clone();
        for (row, x) in expected.chunks_mut(width).enumerate() {
            rope::partial_definition(x, width, turned, row / heads % tokens, 1e4);
        }
        assert_close(&out, &expected, 1e-6, "rotated");
        rope::train::rotate(shape, &out, [&cos, &sin], true, &mut back, &serial);
        assert_close(&back, &x, 1e-6, "and back, as its gradient goes");
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    let mut random = Random::new(53);
    for (rows, vocab) in [(1, 1), (3, 63), (100, 17), (7, 1000)] {
        let z = random.uniform(rows * vocab, -30.0, 30.0);
        let targets: Vec<i64> =
            (0..rows).map(|i| if i % 3 == 1 { -100 } else { (i * 7 % vocab) as i64 }).collect();
        let d_losses = random.signed(rows);
        let losses = |z: &[f64]| -> Vec<f64> {
            let row = |(z, target): (&[f64], &i64)| {
                usize::try_from(*target).map_or(0.0, |t| cross_entropy::definition(z, t))
            };
            z.chunks(vocab).zip(&targets).map(row).collect()
        };
        let (mut got, mut log_sums) = (poisoned(rows), poisoned(rows));
        let single = f32s(&z);
        cross_entropy::forward(&single, &targets, -100, &mut got, &mut log_sums, &serial);
        assert_close(&got, &losses(&f64s(&single)), 1e-6, "losses");
        let mut d_z = poisoned(z.len());
        let d = f32s(&d_losses);
        cross_entropy::backward(&single, &targets, -100, &log_sums, &d, &mut d_z, &serial);
        let expected = differences(&z, |z| dot(&losses(z), &d_losses));
        assert_close(&d_z, &expected, 1e-5, "d logits");
    }
}

#[test]
#[should_panic(expected = "target 5 of a vocabulary of 5")]
fn a_target_beyond_the_vocabulary_is_refused() {
    cross_entropy::forward(&[0.0; 5], &[5], -100, &mut [0.0], &mut [0.0], &serial);
}

#[test]
fn adamw_follows_its_definition() {
    let mut random = Random::new(54);
    for n in [0, 1, 63, 1000, 40_000] {
        let mut theta = random.signed(n);
        let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
        let [mut theta32, mut m32, mut v32] = [&theta, &m, &v].map(|x| f32s(x));
        let groups = [
            Group { elements: n / 3, rate: 1.0, decay: 0.1 },
            Group { elements: n / 2, rate: 0.25, decay: 0.4 },
            Group { elements: n - n / 3 - n / 2, rate: 3.0, decay: 0.0 },
        ];
        for number in 1..=5 {
            let gradient = random.signed(n);
            let update = Update {
                rate: 0.01 * number as f64,
                betas: (0.9, 0.95),
                epsilon: 1e-8,
                gradient_factor: 0.5,
                number,
            };
            adamw::definition(&update, &groups, &mut theta, &gradient, &mut m, &mut v);
            let g = f32s(&gradient);
            adamw::update(&update, &groups, &mut theta32, &g, &mut m32, &mut v32, &serial);
            assert_close(&theta32, &theta, 2e-6, "θ");
            assert_close(&m32, &m, 1e-6, "m");
            assert_close(&v32, &v, 2e-6, "v");
            let squares = adamw::sum_of_squares(&g, &serial);
            let expected = dot(&gradient, &gradient);
            assert!((squares - expected).abs() <= 1e-6 * expected, "{squares} for {expected}");
        }
    }
}
