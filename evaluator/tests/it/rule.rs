//! The training rule: sizes at the start, how far each tensor moves, and what a checkpoint of another rule is worth.

use evaluator::learner::Learner;
use evaluator::rule::{BASE_RATE, factors};
use search::Architecture;
use search::config::{LearningRate, TrainingConfig};
use search::tensors::Role;
use tch::{Device, Kind, Tensor};

use crate::support::{MIXERS, architecture, training_config};

fn text() -> (Tensor, Tensor) {
    let tokens = Tensor::arange(3 * 34, (Kind::Int64, Device::Cpu)).remainder(97).view([3, 34]);
    (tokens.narrow(1, 0, 33), tokens.narrow(1, 1, 33))
}

#[test]
fn a_matrix_begins_as_large_as_its_number_of_inputs_asks() {
    let of = |text: &str| -> Architecture { text.parse().expect("the text is valid") };
    for (stack, branches) in [
        ("d=64,vocab=256,tied | 3*gdn(h=3,k=16,v=32)+ffn(192)", 6.0),
        ("d=192,vocab=256 | m2(h=6,p=64,n=32) | attn(h=6,kv=6,k=32)+ffn(576)", 3.0),
    ] {
        let stack = of(stack);
        let learner = Learner::new(&stack, &training_config(), 1).expect("it can be trained");
        let width = f64::from(stack.d_model());
        for variable in learner.model().variables() {
            let inputs = variable.spec.shape[variable.spec.shape.len() - 1] as f64;
            let expected = match variable.spec.role {
                Role::Reader | Role::Inner => 1.0 / inputs.sqrt(),
                Role::Writer => 0.25 / (inputs * branches).sqrt(),
                Role::Embedding | Role::Head => 1.0 / width.sqrt(),
                _ => continue,
            };
            let std = variable.tensor.std(false).double_value(&[]);
            // four standard errors of a standard deviation
            let error = 4.0 / (2.0 * variable.spec.elements() as f64).sqrt();
            assert!((std / expected - 1.0).abs() < error, "{}: {std}", variable.spec.name);
        }
    }
}

#[test]
fn a_first_step_moves_each_tensor_by_its_part_of_the_base_rate() {
    tch::set_num_threads(1);
    let stack = architecture(&MIXERS);
    let config = TrainingConfig {
        weight_decay: 0.0,
        warmup_fraction: 0.0,
        gradient_clip: 1e9,
        learning_rate: LearningRate::Base(1e-4),
        ..training_config()
    };
    let mut learner = Learner::new(&stack, &config, 1).expect("it can be trained");
    let values = |learner: &Learner| -> Vec<Tensor> {
        learner.model().variables().iter().map(|v| v.tensor.detach().copy()).collect()
    };
    let before = values(&learner);
    let (inputs, targets) = text();
    learner.step(&inputs, &targets).expect("one step does not diverge");
    let after = values(&learner);
    for ((before, after), variable) in before.iter().zip(&after).zip(learner.model().variables()) {
        let moved = after - before;
        let factors = factors(&variable.spec, &stack);
        if factors.orthogonal {
            // 0.2 √(larger side) of a matrix whose singular values are near 1
            let (rows, columns) = moved.size2().expect("it is a matrix");
            let size = 1e-4 * factors.rate * 0.2 * (rows.max(columns) as f64).sqrt();
            let expected = size * (rows.min(columns) as f64).sqrt();
            let ratio = moved.norm().double_value(&[]) / expected;
            assert!((0.6..1.25).contains(&ratio), "{}: {ratio}", variable.spec.name);
            continue;
        }
        // the first update of Adam is the sign of the gradient, less where ε counts
        let ratio = moved.abs().max().double_value(&[]) / (1e-4 * factors.rate);
        assert!((ratio - 1.0).abs() < 0.02, "{}: {ratio}", variable.spec.name);
    }
}

#[test]
fn auto_is_the_base_rate_that_was_found() {
    tch::set_num_threads(1);
    let losses = |learning_rate: LearningRate, batch: u32, steps: u64| -> Vec<u64> {
        let tokens = steps * u64::from(batch) * 32;
        let config = TrainingConfig {
            learning_rate,
            batch,
            sequence_length: 32,
            tokens,
            ..training_config()
        };
        let mut learner = Learner::new(&architecture(&MIXERS[..3]), &config, 5).unwrap();
        let (inputs, targets) = text();
        (0..4).map(|_| learner.step(&inputs, &targets).unwrap().to_bits()).collect()
    };
    // 2048 tokens a step, 1 M in all; then eight times and four times as many
    for (batch, steps, rate) in [(64, 512, BASE_RATE), (512, 256, 2.0 * BASE_RATE)] {
        let auto = losses(LearningRate::Auto, batch, steps);
        assert_eq!(auto, losses(LearningRate::Base(rate), batch, steps));
        assert_ne!(auto, losses(LearningRate::Base(1.5 * rate), batch, steps));
    }
}

#[test]
fn attentions_matrices_alone_move_by_muon() {
    let stack = architecture(&MIXERS);
    for spec in search::tensors::tensors(&stack) {
        let attention =
            ["layers.0.mixer.", "layers.1.mixer."].iter().any(|mixer| spec.name.starts_with(mixer));
        let matrix = matches!(spec.role, Role::Reader | Role::Writer | Role::Inner);
        assert_eq!(factors(&spec, &stack).orthogonal, attention && matrix, "{}", spec.name);
    }
}
