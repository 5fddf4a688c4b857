//! The linear maps of the CPU kernels against torch's, in both precisions.

use operators::ops::linear::{by_torch, linear, project};
use operators::precision::{self, Precision};
use tch::{Kind, Tensor};

use crate::support::{Random, error};

#[test]
fn maps_and_their_gradients_are_torchs() {
    let mut random = Random::new(31);
    for (batch, tokens, inputs, outputs) in
        [(2, 8, 5, vec![3]), (3, 33, 64, vec![32, 1, 70]), (1, 1000, 100, vec![63, 40])]
    {
        let mut leaf =
            |shape: &[i64]| random.tensor(shape, 1.0).to_kind(Kind::Float).set_requires_grad(true);
        let x = leaf(&[batch, inputs, tokens]);
        let weights: Vec<Tensor> = outputs.iter().map(|n| leaf(&[*n, inputs])).collect();
        let towards: Vec<Tensor> =
            outputs.iter().map(|n| leaf(&[batch, tokens, *n]).detach()).collect();
        let mut leaves = vec![&x];
        leaves.extend(&weights);
        let weights: Vec<&Tensor> = weights.iter().collect();
        // an input that does not lie together
        let results = |maps: fn(&Tensor, &[&Tensor]) -> Vec<Tensor>| {
            let ys = maps(&x.transpose(1, 2), &weights);
            let loss: Tensor =
                ys.iter().zip(&towards).map(|(y, to)| (y * to).sum(Kind::Float)).sum();
            let gradients = Tensor::run_backward(&[loss], &leaves, false, false);
            [ys, gradients].into_iter().flatten().collect::<Vec<Tensor>>()
        };
        let expected = results(by_torch);
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 1e-2)] {
            let got = precision::with(precision, || results(project));
            assert_eq!(got.len(), expected.len());
            for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let error = error(got, expected);
                assert!(error < tolerance, "{precision:?} result {index}: {error:e}");
                assert!(
                    precision == Precision::F32 || error > 1e-5,
                    "bf16 is rounder than f32: {error:e}"
                );
            }
        }
    }
}

#[test]
fn the_backward_pass_keeps_the_precision_of_the_forward_pass() {
    let mut random = Random::new(32);
    let x = random.tensor(&[40, 20], 1.0).to_kind(Kind::Float).set_requires_grad(true);
    let w = random.tensor(&[30, 20], 1.0).to_kind(Kind::Float);
    let gradient = |forward: Precision, backward: Precision| {
        let loss = precision::with(forward, || linear(&x, &w).sum(Kind::Float));
        precision::with(backward, || Tensor::run_backward(&[loss], &[&x], false, false).remove(0))
    };
    let narrow = gradient(Precision::Bf16, Precision::Bf16);
    assert_eq!(gradient(Precision::Bf16, Precision::F32), narrow);
    assert_ne!(gradient(Precision::F32, Precision::Bf16), narrow);
}
