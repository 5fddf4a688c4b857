//! The flat AdamW against libtorch's, and what decays.

use evaluator::optimizer::Optimizer;
use evaluator::rule::Factors;
use operators::Model;
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
fn an_orthogonalised_matrix_has_singular_values_near_one() {
    tch::set_num_threads(1);
    for shape in [[1, 24, 24], [3, 40, 16], [2, 7, 33], [1, 1, 9]] {
        // Fixed: five steps do not bring up a singular value that happens to be next to nothing.
        let count: i64 = shape.iter().product();
        let x = (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 12.9898).sin() * 43_758.545_3;
        let x = (x.frac() * 2.0 - 1.0).to_kind(Kind::Float).view(shape);
        let y = operators::ops::optimizer::orthogonalised(&x);
        assert_eq!(y.size(), shape);
        // of y yᵀ or yᵀ y, whichever is smaller
        let y = if shape[1] > shape[2] { y.transpose(1, 2) } else { y };
        let squares = y.matmul(&y.transpose(1, 2)).linalg_eigvalsh("L");
        let (least, most) = (squares.min().double_value(&[]), squares.max().double_value(&[]));
        assert!(least.sqrt() > 0.3 && most.sqrt() < 1.3, "{shape:?}: {least} to {most}");
        // and it turns no vector away: x and y agree in every direction
        let x = if shape[1] > shape[2] { x.transpose(1, 2) } else { x };
        let agreement = (x * y).sum_dim_intlist([1_i64, 2].as_slice(), false, Kind::Float);
        assert!(agreement.min().double_value(&[]) > 0.0, "{shape:?}");
    }
}
