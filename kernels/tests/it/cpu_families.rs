//! The CPU kernels of each family against its definition, at every level of this machine and at odd sizes.

use kernels::activation::cpu::{Sigmoid, Softplus};
use kernels::activation::softplus;
use kernels::cpu::{Level, Precision, run_at};
use kernels::norm::cpu::{Gate, L2Norm, RmsNorm};
use kernels::{attention, delta_rule, linear_attention, norm, rope, short_conv, swiglu};

use crate::random::{Random, assert_close, f32s, f64s, poisoned};

const WIDTHS: [(usize, usize); 6] = [(1, 1), (7, 5), (16, 16), (63, 100), (64, 128), (33, 65)];
const TOKENS: [usize; 6] = [1, 5, 63, 64, 65, 200];

/// Inputs of one head, exact in f32, with the f64 results.
struct Head {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    g: Vec<f32>,
    beta: Vec<f32>,
    state: Vec<f32>,
}

impl Head {
    fn new(
        seed: u64,
        tokens: usize,
        (key_width, value_width): (usize, usize),
        strongest: f64,
    ) -> Self {
        let mut random = Random::new(seed);
        let k = random.signed(tokens * key_width);
        Self {
            q: f32s(&random.signed(tokens * key_width)),
            k: f32s(
                &k.chunks_exact(key_width).flat_map(norm::l2_norm_definition).collect::<Vec<_>>(),
            ),
            v: f32s(&random.signed(tokens * value_width)),
            g: f32s(&random.uniform(tokens, strongest, 0.0)),
            beta: f32s(&random.uniform(tokens, 0.0, 1.0)),
            state: f32s(&random.signed(key_width * value_width)),
        }
    }

    fn delta_rule(&self) -> (Vec<f64>, Vec<f64>) {
        let mut state = f64s(&self.state);
        let (q, k, v) = (f64s(&self.q), f64s(&self.k), f64s(&self.v));
        (
            delta_rule::definition(&q, &k, &v, &f64s(&self.g), &f64s(&self.beta), 0.5, &mut state),
            state,
        )
    }

    fn linear_attention(&self) -> (Vec<f64>, Vec<f64>) {
        let mut state = f64s(&self.state);
        let (q, k) = (f64s(&self.q), f64s(&self.k));
        let width = self.v.len() / self.g.len();
        let v: Vec<f64> = self
            .v
            .iter()
            .enumerate()
            .map(|(i, v)| f64::from(*v) * f64::from(self.beta[i / width]))
            .collect();
        (linear_attention::definition(&q, &k, &v, &f64s(&self.g), 0.5, &mut state), state)
    }
}

fn cases() -> impl Iterator<Item = (Level, (usize, usize), usize, f64)> {
    Level::available().into_iter().flat_map(|level| {
        WIDTHS.into_iter().flat_map(move |widths| {
            TOKENS
                .into_iter()
                .flat_map(move |tokens| [-0.5, -50.0].map(|g| (level, widths, tokens, g)))
        })
    })
}

#[test]
fn delta_rule_steps_are_the_definition() {
    for (level, (key_width, value_width), tokens, strongest) in cases() {
        let head = Head::new(1, tokens, (key_width, value_width), strongest);
        let (expected, expected_state) = head.delta_rule();
        let (mut state, mut o) = (head.state.clone(), poisoned(tokens * value_width));
        for (t, o) in o.chunks_exact_mut(value_width).enumerate() {
            let (q, k) =
                (&head.q[t * key_width..][..key_width], &head.k[t * key_width..][..key_width]);
            let (v, g, beta) = (&head.v[t * value_width..][..value_width], head.g[t], head.beta[t]);
            run_at(
                level,
                delta_rule::cpu::Step { q, k, v, g, beta, scale: 0.5, state: &mut state, o },
            );
        }
        assert_close(&o, &expected, 1e-5, level.name());
        assert_close(&state, &expected_state, 1e-5, level.name());
    }
}

#[test]
fn linear_attention_steps_are_the_definition() {
    for (level, (key_width, value_width), tokens, strongest) in cases() {
        let head = Head::new(3, tokens, (key_width, value_width), strongest);
        let (expected, expected_state) = head.linear_attention();
        let (mut state, mut o) = (head.state.clone(), poisoned(tokens * value_width));
        for (t, o) in o.chunks_exact_mut(value_width).enumerate() {
            let (q, k) =
                (&head.q[t * key_width..][..key_width], &head.k[t * key_width..][..key_width]);
            let v = &head.v[t * value_width..][..value_width];
            run_at(
                level,
                linear_attention::cpu::Step {
                    q,
                    k,
                    v,
                    v_scale: head.beta[t],
                    g: head.g[t],
                    scale: 0.5,
                    state: &mut state,
                    o,
                },
            );
        }
        assert_close(&o, &expected, 1e-5, level.name());
        assert_close(&state, &expected_state, 1e-5, level.name());
    }
}

#[test]
fn attention_decode_is_the_last_row_of_the_definition_in_any_order() {
    for level in Level::available() {
        for cached in [1, 2, 63, 100] {
            let (key_width, value_width) = (20, 36);
            let head = Head::new(6, cached, (key_width, value_width), -1.0);
            let second = Head::new(7, cached, (key_width, value_width), -1.0);
            let last = |q: &[f32]| {
                let (q, k, v) = (f64s(q), f64s(&head.k), f64s(&head.v));
                attention::definition(&q, &k, &v, cached, None, 0.7)[(cached - 1) * value_width..]
                    .to_vec()
            };
            let expected = [last(&head.q), last(&second.q)].concat();
            let at = (cached - 1) * key_width;
            let q = [&head.q[at..], &second.q[at..]].concat();
            let turn = cached / 3;
            let (mut keys, mut values) = (head.k.clone(), head.v.clone());
            keys.rotate_left(turn * key_width);
            values.rotate_left(turn * value_width);
            let (mut o, mut scores) = (poisoned(2 * value_width), poisoned(cached));
            for precision in [Precision::F32, Precision::Bf16] {
                // What bf16 holds of the numbers above is all that it may change.
                let [keys, values] = [&keys, &values].map(|x| {
                    let mut cached = attention::cpu::Cached::new(precision);
                    assert!(cached.is_empty());
                    cached.resize(x.len());
                    cached.write(0, x);
                    let mut back = poisoned(x.len() - 1);
                    cached.read(1, &mut back);
                    let rounded = |x: &f32| match precision {
                        Precision::F32 => *x,
                        Precision::Bf16 => half::bf16::from_f32(*x).to_f32(),
                    };
                    assert!(back.iter().copied().eq(x[1..].iter().map(rounded)));
                    cached
                });
                let decode = attention::cpu::Decode {
                    q: &q,
                    keys: &keys,
                    values: &values,
                    key_width,
                    value_width,
                    scale: 0.7,
                    scores: &mut scores,
                    o: &mut o,
                };
                run_at(level, decode);
                let tolerance = if precision == Precision::F32 { 1e-5 } else { 1e-2 };
                assert_close(&o, &expected, tolerance, level.name());
                if precision == Precision::F32 {
                    continue;
                }
                let all = |cached: &attention::cpu::Cached, len: usize| {
                    let mut x = poisoned(len);
                    cached.read(0, &mut x);
                    f64s(&x)
                };
                let keys = all(&keys, cached * key_width);
                let values = all(&values, cached * value_width);
                let of_kept: Vec<f64> = q
                    .chunks_exact(key_width)
                    .flat_map(|q| attention::definition_of_row(&f64s(q), &keys, &values, 0.7))
                    .collect();
                assert_close(&o, &of_kept, 1e-5, level.name());
            }
        }
    }
}

#[test]
fn the_convolution_is_the_definition_with_silu() {
    let mut random = Random::new(8);
    for level in Level::available() {
        for channels in [1, 7, 16, 100] {
            for tokens in [1, 2, 63] {
                let x = f32s(&random.signed((tokens + 3) * channels));
                let weight = f32s(&random.signed(channels * 4));
                let bias = f32s(&random.signed(channels));
                for bias in [None, Some(&bias[..])] {
                    let mut state = f64s(&x[..3 * channels]);
                    let f64_bias = bias.map(f64s);
                    let y = short_conv::definition(
                        &f64s(&x[3 * channels..]),
                        &f64s(&weight),
                        f64_bias.as_deref(),
                        &mut state,
                    );
                    let expected: Vec<f64> = y.into_iter().map(kernels::activation::silu).collect();
                    let rows: Vec<&[f32]> = x.chunks_exact(channels).collect();
                    let weight = short_conv::cpu::transpose_weight(&weight);
                    let mut y = poisoned(tokens * channels);
                    run_at(
                        level,
                        short_conv::cpu::ConvolveSilu {
                            rows: &rows,
                            weight: &weight,
                            bias,
                            y: &mut y,
                        },
                    );
                    assert_close(&y, &expected, 1e-6, level.name());
                }
            }
        }
    }
}

#[test]
fn norms_and_gates_are_their_definitions() {
    let mut random = Random::new(9);
    for level in Level::available() {
        for width in [1, 16, 63, 128] {
            let (x, z) = (random.signed(3 * width), random.signed(3 * width));
            let weight = random.signed(width);
            let (x, z, w) = (f32s(&x), f32s(&z), f32s(&weight));
            let (x64, z64, w64) = (f64s(&x), f64s(&z), f64s(&w));
            let cases = [
                (Gate::None, norm::rms_norm_definition(&x64, &w64, 1e-5)),
                (Gate::After(&z), norm::norm_then_gate_definition(&x64, &z64, &w64, 1e-5)),
                (Gate::Before(&z), norm::gate_then_norm_definition(&x64, &z64, &w64, 1e-5)),
            ];
            for (gate, expected) in cases {
                let mut y = x.clone();
                run_at(level, RmsNorm { x: &mut y, weight: &w, gate });
                assert_close(&y, &expected, 2e-6, level.name());
            }
            let mut y = x.clone();
            run_at(level, L2Norm { x: &mut y, width });
            let expected: Vec<f64> =
                x64.chunks_exact(width).flat_map(norm::l2_norm_definition).collect();
            assert_close(&y, &expected, 1e-6, level.name());
            let mut y = poisoned(width);
            let (x, bias) = (&x[..width], &w[..]);
            for size in [1.0, 30.0, 200.0] {
                let x: Vec<f32> = x.iter().map(|x| x * size).collect();
                run_at(level, Softplus { x: &x, bias, y: &mut y });
                for ((y, x), bias) in y.iter().zip(&x).zip(bias) {
                    let expected = softplus(f64::from(x + bias));
                    let error = (f64::from(*y) - expected).abs();
                    assert!(error <= 1e-6 * expected + 1e-37, "softplus: {y} for {expected}");
                }
                run_at(level, Sigmoid { x: &x, factor: 2.0, y: &mut y });
                let expected: Vec<f64> =
                    x.iter().map(|x| 2.0 * kernels::activation::sigmoid(f64::from(*x))).collect();
                assert_close(&y, &expected, 1e-6, level.name());
            }
            let x = f32s(&x64);
            let mut y = poisoned(x.len());
            run_at(level, swiglu::cpu::SwiGlu { gate: &z, up: &x, out: &mut y });
            assert_close(&y, &swiglu::definition(&z64, &x64), 1e-6, level.name());
        }
    }
}

#[test]
fn the_rotation_table_is_the_definition() {
    let mut random = Random::new(10);
    let x = f32s(&random.signed(8));
    let mut table = rope::cpu::Table::new(8, 1e4);
    table.extend_to(3);
    table.extend_to(5001);
    for position in [0, 1, 63, 5000] {
        let (mut expected, mut got) = (f64s(&x), x.clone());
        rope::definition(&mut expected, 8, position, 1e4);
        table.rotate(&mut got, position);
        assert_close(&got, &expected, 1e-6, "rotation");
    }
}
