//! The choice of experts, and identities of its definition.

use kernels::moe::cpu::route;
use kernels::moe::{Chosen, Mixture, balance_definition, definition, route_definition};
use kernels::swiglu;

use crate::random::{Random, f32s};

#[test]
fn the_chosen_experts_and_their_weights_are_those_of_the_definition() {
    let mut random = Random::new(1);
    for experts in [2, 5, 8, 64] {
        for per_token in [1, 2, 3, 5, 8].into_iter().filter(|k| *k <= experts) {
            for round in 0..20 {
                // every fourth with ties, of which the first wins
                let coarse = |x: f64| if round % 4 == 0 { (2.0 * x).round() } else { x };
                let logits: Vec<f64> =
                    random.signed(experts).into_iter().map(|x| coarse(4.0 * x)).collect();
                let logits = f32s(&logits);
                let mut chosen = vec![Chosen { expert: 99, weight: f32::NAN }; per_token];
                route(&logits, &mut chosen);
                let wide: Vec<f64> = logits.iter().map(|x| f64::from(*x)).collect();
                for (got, expected) in chosen.iter().zip(route_definition(&wide, per_token)) {
                    assert_eq!(got.expert, expected.expert, "{logits:?}, {per_token}");
                    assert!((f64::from(got.weight) - expected.weight).abs() < 1e-6);
                }
            }
        }
    }
}

#[test]
fn equal_experts_are_one_network_and_one_expert_weighs_its_probability() {
    let mut random = Random::new(2);
    let (d, f, experts, tokens) = (5, 7, 4, 9);
    let x = random.signed(tokens * d);
    let router = random.signed(experts * d);
    let one = [(); 3].map(|()| random.signed(f * d));
    let [gate, up, down] = one.each_ref().map(|matrix| matrix.repeat(experts));
    let times = |x: &[f64], matrix: &[f64], inputs: usize| -> Vec<f64> {
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        x.chunks_exact(inputs)
            .flat_map(|x| matrix.chunks_exact(inputs).map(move |w| dot(x, w)))
            .collect()
    };
    let hidden = swiglu::definition(&times(&x, &one[0], d), &times(&x, &one[1], d));
    let network = times(&hidden, &one[2], f);
    for per_token in 1..=experts {
        let mixture = Mixture { per_token, router: &router, gate: &gate, up: &up, down: &down };
        let y = definition(&x, d, &mixture);
        for (token, (y, plain)) in y.chunks_exact(d).zip(network.chunks_exact(d)).enumerate() {
            let logits = times(&x[token * d..][..d], &router, d);
            let weight = if per_token == 1 {
                let all = route_definition(&logits, experts);
                all[0].weight
            } else {
                1.0
            };
            for (y, plain) in y.iter().zip(plain) {
                assert!((y - weight * plain).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn the_balance_is_one_where_all_are_used_alike_and_as_many_as_experts_where_one_is() {
    let turns: Vec<f64> =
        (0..8).flat_map(|t| (0..4).map(move |i| if i == t % 4 { 30.0 } else { 0.0 })).collect();
    assert!((balance_definition(&turns, 4, 1) - 1.0).abs() < 1e-9);
    let first = [30.0, 0.0, 0.0, 0.0].repeat(8);
    assert!((balance_definition(&first, 4, 1) - 4.0).abs() < 1e-9);
    assert!((balance_definition(&first, 4, 4) - 1.0).abs() < 1e-9);
}
