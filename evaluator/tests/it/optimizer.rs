//! The flat AdamW against libtorch's, and what decays.

use evaluator::optimizer::Optimizer;
use evaluator::rule::Factors;
use operators::Model;
use operators::ops::optimizer::{Units, orthogonalised};
use search::config::TrainingConfig;
use search::tensors::Role;
use tch::nn::{OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor, nn};

use crate::support::{MIXERS, architecture, training_config};

fn model() -> (VarStore, Model) {
    tch::set_num_threads(1);
    let variables = VarStore::new(Device::Cpu);
    let model = Model::new(&variables.root(), &architecture(&MIXERS), 7)
        .expect("the architecture is valid");
    (variables, model)
}

fn loss(model: &Model, step: i64) -> Tensor {
    let tokens = (Tensor::arange(2 * 17, (Kind::Int64, Device::Cpu)) * (step + 3))
        .remainder(251)
        .view([2, 17]);
    model.forward(&tokens).view([-1, 256]).cross_entropy_for_logits(&tokens.view([-1]))
}

fn values(model: &Model) -> Vec<(String, Tensor)> {
    model.variables().iter().map(|v| (v.spec.name.clone(), v.tensor.detach().copy())).collect()
}

#[test]
fn equals_libtorchs_adamw() {
    for clip in [1e9, 0.1] {
        let config = TrainingConfig { weight_decay: 0.0, gradient_clip: clip, ..training_config() };
        let (_ours_store, ours) = model();
        let mut optimizer = Optimizer::new(&ours, &config, &|_| Factors::ONE).unwrap();
        let (theirs_store, theirs) = model();
        let reference = nn::AdamW {
            beta1: config.beta1,
            beta2: config.beta2,
            wd: 0.0,
            eps: 1e-8,
            amsgrad: false,
        };
        let mut reference = reference.build(&theirs_store, 1e-2).unwrap();
        for step in 0..5 {
            let rate = 1e-2 / (1 + step) as f64;
            optimizer.zero_gradients();
            loss(&ours, step).backward();
            reference.set_lr(rate);
            reference.zero_grad();
            loss(&theirs, step).backward();
            // One gradient for both: where an element is near 0, the rounding of two decides which way it steps.
            for (a, b) in ours.variables().iter().zip(theirs.variables()) {
                b.tensor.grad().copy_(&a.tensor.grad());
            }
            assert!(optimizer.step(rate).is_finite());
            reference.clip_grad_norm(clip);
            reference.step();
        }
        for ((name, a), (_, b)) in values(&ours).into_iter().zip(values(&theirs)) {
            let error = (&a - &b).norm().double_value(&[]) / b.norm().double_value(&[]);
            assert!(error < 1e-6, "clip {clip}: {name}: {error}");
        }
    }
}

#[test]
fn only_matrices_decay_and_embeddings_by_choice() {
    for decay_embeddings in [false, true] {
        let config = TrainingConfig { weight_decay: 0.5, decay_embeddings, ..training_config() };
        let (_store, model) = model();
        let mut optimizer = Optimizer::new(&model, &config, &|_| Factors::ONE).unwrap();
        let before = values(&model);
        // Without a gradient nothing but the decay moves a parameter.
        optimizer.zero_gradients();
        assert!(optimizer.step(0.1).abs() < 1e-12);
        for (variable, (name, before)) in model.variables().iter().zip(before) {
            let decays = match variable.spec.role {
                Role::Embedding | Role::MetaTokens => decay_embeddings,
                Role::Head | Role::Reader | Role::Writer | Role::Inner => true,
                _ => false,
            };
            let expected = before * if decays { 0.95 } else { 1.0 };
            assert!(variable.tensor.allclose(&expected, 1e-6, 0.0, false), "{name}");
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing() {
    let (_store, model) = model();
    let mut optimizer = Optimizer::new(&model, &training_config(), &|_| Factors::ONE).unwrap();
    let before = values(&model);
    optimizer.zero_gradients();
    (loss(&model, 0) * f64::NAN).backward();
    assert!(optimizer.step(0.1).is_nan());
    for ((name, a), (_, b)) in values(&model).into_iter().zip(before) {
        assert!(a.equal(&b), "{name}");
    }
}

#[test]
fn muons_directions_are_the_same_by_kernels_and_by_torch() {
    tch::set_num_threads(1);
    for shape in [[1, 24, 24], [3, 70, 16], [2, 7, 130], [1, 1, 9], [2, 129, 65]] {
        let count: i64 = shape.iter().product();
        let x = (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 12.9898).sin() * 43_758.545_3;
        let x = (x.frac() * 2.0 - 1.0).view(shape);
        for units in [Units::Rows, Units::Columns] {
            let by_torch = orthogonalised(&x, units);
            let by_kernel = orthogonalised(&x.to_kind(Kind::Float), units).to_kind(Kind::Double);
            assert_eq!(by_kernel.size(), shape);
            let error = (&by_kernel - &by_torch).norm() / by_torch.norm();
            assert!(error.double_value(&[]) < 1e-5, "{shape:?} {units:?}: {error}");
            // and it turns no vector away: x and y agree in every matrix
            let agreement =
                (&x * by_torch).sum_dim_intlist([1_i64, 2].as_slice(), false, Kind::Double);
            assert!(agreement.min().double_value(&[]) > 0.0, "{shape:?}");
        }
    }
}
