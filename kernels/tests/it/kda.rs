//! Kimi Delta Attention: its definition against that of the gated delta rule, its kernels against it at every level of
//! this machine.

use kernels::cpu::{Level, run_at};
use kernels::kda::cpu::{Decays, Step};
use kernels::{activation, delta_rule, kda, norm};

use crate::random::{Random, assert_close, f32s, f64s, poisoned};

#[test]
fn with_equal_decays_it_is_the_gated_delta_rule() {
    let mut random = Random::new(71);
    let (tokens, k, v) = (20, 5, 7);
    let [q, key] = [0, 1].map(|_| random.signed(tokens * k));
    let value = random.signed(tokens * v);
    let (g, beta) = (random.uniform(tokens, -2.0, 0.0), random.uniform(tokens, 0.0, 1.0));
    let start = random.signed(k * v);
    let each: Vec<f64> = g.iter().flat_map(|g| vec![*g; k]).collect();
    let (mut one, mut other) = (start.clone(), start);
    let expected = delta_rule::definition(&q, &key, &value, &g, &beta, 0.5, &mut one);
    assert_eq!(kda::definition(&q, &key, &value, &each, &beta, 0.5, &mut other), expected);
    assert_eq!(one, other);
}

#[test]
fn steps_follow_each_other_as_defined() {
    for level in Level::available() {
        for (k, v) in [(1, 1), (7, 5), (16, 16), (63, 100), (64, 128), (33, 65)] {
            let mut random = Random::new(72);
            let tokens = 9;
            let unit = |x: Vec<f64>| -> Vec<f32> {
                f32s(&x.chunks_exact(k).flat_map(norm::l2_norm_definition).collect::<Vec<_>>())
            };
            let (q, key) = (unit(random.signed(tokens * k)), unit(random.signed(tokens * k)));
            let value = f32s(&random.signed(tokens * v));
            let beta = f32s(&random.uniform(tokens, 0.0, 1.0));
            // some channels forget at once, some never
            let raw = f32s(&random.uniform(tokens * k, -30.0, 10.0));
            let bias = f32s(&random.signed(k));
            let rate = -1.5_f32;
            let g: Vec<f64> = raw
                .iter()
                .enumerate()
                .map(|(i, x)| {
                    f64::from(rate) * activation::softplus(f64::from(*x) + f64::from(bias[i % k]))
                })
                .collect();
            let mut expected_state = random.signed(k * v);
            let mut state = f32s(&expected_state);
            expected_state = f64s(&state);
            let (q64, key64, value64) = (f64s(&q), f64s(&key), f64s(&value));
            let expected =
                kda::definition(&q64, &key64, &value64, &g, &f64s(&beta), 0.5, &mut expected_state);
            let mut got = poisoned(tokens * v);
            for (t, o) in got.chunks_exact_mut(v).enumerate() {
                let mut decay = poisoned(k);
                let x = &raw[t * k..][..k];
                run_at(level, Decays { x, bias: &bias, rate, y: &mut decay });
                run_at(
                    level,
                    Step {
                        q: &q[t * k..][..k],
                        k: &key[t * k..][..k],
                        v: &value[t * v..][..v],
                        decay: &decay,
                        beta: beta[t],
                        scale: 0.5,
                        state: &mut state,
                        o,
                    },
                );
            }
            assert_close(&got, &expected, 3e-6, &format!("{level:?} {k}×{v}"));
            assert_close(&state, &expected_state, 3e-6, &format!("{level:?} {k}×{v} state"));
        }
    }
}
