//! The CPU kernels as differentiable operations, against the same mathematics in torch operators.

use operators::ops::delta_rule::DeltaRule;
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
    };
    assert!(!rule.forward(None).0.requires_grad());
}
