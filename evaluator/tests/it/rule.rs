//! The training rule: sizes at the start, how far each tensor moves, and what a checkpoint of another rule is worth.

use evaluator::learner::Learner;
use evaluator::rule::factors;
use evaluator::schedule::BASE_RATE;
use operators::ops::optimizer::Units;
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
        ("d=64,vocab=256,tied | gdn(h=3,k=16,v=32)+moe(96,e=6,k=2,s=1)", 2.0),
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

/// A learner after its first step at a base rate of 1e-4 without decay, and its tensors before and after.
fn a_first_step(stack: &Architecture) -> (Learner, Vec<Tensor>, Vec<Tensor>) {
    tch::set_num_threads(1);
    let config = TrainingConfig {
        weight_decay: 0.0,
        warmup_fraction: 0.0,
        tokens: 3 * 33,
        gradient_clip: 1e9,
        learning_rate: LearningRate::Base(1e-4),
        ..training_config()
    };
    let mut learner = Learner::new(stack, &config, 1).expect("it can be trained");
    let values = |learner: &Learner| -> Vec<Tensor> {
        learner.model().variables().iter().map(|v| v.tensor.detach().copy()).collect()
    };
    let before = values(&learner);
    let (inputs, targets) = text();
    learner.step(&inputs, &targets).expect("one step does not diverge");
    let after = values(&learner);
    (learner, before, after)
}

#[test]
fn a_first_step_moves_each_tensor_by_its_part_of_the_base_rate() {
    let stack = architecture(&MIXERS);
    let (learner, before, after) = a_first_step(&stack);
    for ((before, after), variable) in before.iter().zip(&after).zip(learner.model().variables()) {
        let moved = after - before;
        let factors = factors(&variable.spec, &stack);
        if factors.orthogonal.is_some() {
            // a root mean square of 0.2 where the singular values are near 1; some are too small for three steps
            let rms = (moved.square().mean(Kind::Float)).sqrt().double_value(&[]);
            let ratio = rms / (1e-4 * factors.rate * 0.2);
            assert!((0.3..1.25).contains(&ratio), "{}: {ratio}", variable.spec.name);
            continue;
        }
        // the first update of Adam is the sign of the gradient, less where ε counts
        let ratio = moved.abs().max().double_value(&[]) / (1e-4 * factors.rate);
        assert!((ratio - 1.0).abs() < 0.02, "{}: {ratio}", variable.spec.name);
    }
}

#[test]
fn every_expert_moves_as_a_matrix_of_its_own() {
    let stack: Architecture = "d=24,vocab=256,tied | moe(10,e=3,k=2,s=1)".parse().expect("a stack");
    let (learner, before, after) = a_first_step(&stack);
    for ((before, after), variable) in before.iter().zip(&after).zip(learner.model().variables()) {
        if variable.spec.shape.len() != 3 {
            continue;
        }
        let factors = factors(&variable.spec, &stack);
        for expert in 0..3 {
            // all rows of an expert, or all columns, are one block: orthonormal steps, of a root mean square of 1
            let step = (after.get(expert) - before.get(expert)) / (1e-4 * factors.rate * 0.2);
            let [rows, columns] = [0, 1].map(|dim| step.size()[dim] as f64);
            let singular = step.svd(true, true).1 / rows.max(columns).sqrt();
            let (least, most) =
                (singular.min().double_value(&[]), singular.max().double_value(&[]));
            let name = &variable.spec.name;
            assert!(most < 1.3 && most > 0.6, "{name}, {expert}: {least} to {most}");
        }
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
fn matrices_move_by_muon_and_those_that_write_by_columns() {
    let stack = architecture(&MIXERS);
    for spec in search::tensors::tensors(&stack) {
        let units = match spec.role {
            Role::Reader | Role::Inner => Some(Units::Rows),
            Role::Writer => Some(Units::Columns),
            _ => None,
        };
        assert_eq!(factors(&spec, &stack).orthogonal, units, "{}", spec.name);
    }
}

#[test]
fn everything_moves_less_the_wider_and_deeper_the_stack() {
    let rate = |text: &str, role: Role| {
        let stack: Architecture = text.parse().expect("the text is valid");
        let specs = search::tensors::tensors(&stack);
        let spec = specs.into_iter().find(|spec| spec.role == role).expect("it is there");
        factors(&spec, &stack).rate
    };
    let reference = "d=256,vocab=256,tied | 6*attn(h=4,kv=4,k=64)+ffn(768)";
    let wide = "d=1024,vocab=256,tied | 6*attn(h=4,kv=4,k=64)+ffn(768)";
    let deep = "d=256,vocab=256,tied | 24*attn(h=4,kv=4,k=64)+ffn(768)";
    for (role, at_reference, of_width) in
        [(Role::Reader, 1.0, 0.25), (Role::Embedding, 1.0, 0.25), (Role::NormWeight, 0.5, 0.5)]
    {
        let expected = [at_reference, at_reference * of_width, at_reference * 0.5];
        for (text, expected) in [reference, wide, deep].iter().zip(expected) {
            let rate = rate(text, role);
            assert!((rate / expected - 1.0).abs() < 1e-12, "{role:?} of {text}: {rate}");
        }
    }
}
