//! The training: it repeats itself, it learns, and it says when it fails.

use evaluator::evaluation::{KEPT_EVERY, Proxies, evaluate};
use evaluator::{Corpus, Error, Training};
use search::config::{LearningRate, Precision, TrainingConfig};
use search::tensors::{Role, TensorSpec, tensors};
use search::wire::{Evaluate, Evaluation, Memory, Progress};
use tch::Kind;

use crate::support::{Folder, MIXERS, architecture, open, periodic, training_config};

fn corpus() -> Corpus {
    let folder = Folder::new();
    open(folder.file("a.txt", periodic(5000))).expect("the text is good")
}

fn losses(corpus: &Corpus, config: &TrainingConfig, seed: u64, steps: u64) -> Vec<f32> {
    tch::set_num_threads(1);
    let mut training =
        Training::new(architecture(&MIXERS), corpus, config, seed).expect("it can be trained");
    for _ in 0..steps {
        training.step().expect("a few steps do not diverge");
    }
    training.losses().to_vec()
}

#[test]
fn the_same_seed_gives_the_same_curve() {
    let (corpus, config) = (corpus(), training_config());
    let first = losses(&corpus, &config, 3, 6);
    assert_eq!(first.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), {
        // Whatever else draws from torch's generator.
        tch::manual_seed(99);
        losses(&corpus, &config, 3, 6).iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    });
    assert_ne!(first, losses(&corpus, &config, 4, 6));
}

#[test]
fn products_in_bf16_give_nearly_the_same_curve() {
    let corpus = corpus();
    let config = TrainingConfig { learning_rate: LearningRate::Base(1e-4), ..training_config() };
    let narrow = TrainingConfig { precision: Precision::Bf16, ..config.clone() };
    let (wide, narrow) = (losses(&corpus, &config, 3, 8), losses(&corpus, &narrow, 3, 8));
    assert_ne!(wide, narrow);
    for (wide, narrow) in wide.iter().zip(&narrow) {
        assert!((wide - narrow).abs() < 0.02 * wide, "{wide} {narrow}");
    }
}

#[test]
fn every_mixer_learns_a_period() {
    tch::set_num_threads(1);
    let corpus = corpus();
    let steps = 120;
    let config = TrainingConfig { tokens: steps * 3 * 33, ..training_config() };
    for mixer in MIXERS {
        let mut training = Training::new(architecture(&[mixer]), &corpus, &config, 1).unwrap();
        let first = training.step().unwrap();
        assert!(
            (5.0..7.0).contains(&first),
            "{mixer}: near ln 256 = 5.5 at the start, got {first}"
        );
        for _ in 1..steps {
            training.step().unwrap();
        }
        let validation = training.validate(&|| false).unwrap();
        assert!(validation.loss < 0.5, "{mixer}: {}", validation.loss);
        assert!(validation.standard_error.unwrap() < 0.5, "{mixer}");
        assert_eq!(validation.tokens, 5 * 33);
    }
}

#[test]
fn normalised_weights_stay_on_their_sphere_and_learn() {
    tch::set_num_threads(1);
    let corpus = corpus();
    let steps = 60;
    let config = TrainingConfig {
        tokens: steps * 3 * 33,
        weight_normalisation: true,
        weight_decay: 0.5,
        ..training_config()
    };
    let mut training = Training::new(architecture(&MIXERS), &corpus, &config, 1).unwrap();
    let first = training.step().unwrap();
    for _ in 1..steps {
        training.step().unwrap();
    }
    assert!(training.validate(&|| false).unwrap().loss < 0.8 * first);
    for variable in training.model().variables() {
        let dim = match variable.spec.role {
            Role::Reader => 1,
            Role::Writer => 0,
            _ => continue,
        };
        let squares = variable.tensor.square().sum_dim_intlist(dim, false, Kind::Float) - 1.0;
        assert!(squares.abs().max().double_value(&[]) < 1e-5, "{}", variable.spec.name);
    }
}

#[test]
fn an_absurd_learning_rate_is_a_failure_with_a_reason() {
    tch::set_num_threads(1);
    let corpus = corpus();
    for learning_rate in [1e4, 1e30] {
        let config = TrainingConfig {
            learning_rate: LearningRate::Base(learning_rate),
            tokens: 100 * 3 * 33,
            ..training_config()
        };
        let mut training =
            Training::new(architecture(&["gdn(h=2,k=7,v=9)"]), &corpus, &config, 1).unwrap();
        let error = (0..100).find_map(|_| training.step().err()).expect("it diverges");
        assert!(matches!(error, Error::NotFinite { .. } | Error::Diverged { .. }), "{error}");
        assert!(
            !error.is_infeasible() && error.to_string().contains("training.learning_rate"),
            "{error}"
        );
    }
}

#[test]
fn impossible_settings_are_named() {
    let corpus = corpus();
    let good = training_config();
    let cases = [
        ("batch", TrainingConfig { batch: 0, ..good.clone() }),
        ("sequence_length", TrainingConfig { sequence_length: 0, ..good.clone() }),
        (
            "learning_rate",
            TrainingConfig { learning_rate: LearningRate::Base(f64::NAN), ..good.clone() },
        ),
        ("gradient_clip", TrainingConfig { gradient_clip: 0.0, ..good.clone() }),
        ("weight_decay", TrainingConfig { weight_decay: -1.0, ..good.clone() }),
        ("warmup_fraction", TrainingConfig { warmup_fraction: 1.5, ..good.clone() }),
        ("beta2", TrainingConfig { beta2: 1.0, ..good }),
    ];
    for (name, config) in cases {
        let error = Training::new(architecture(&["dn(h=1,k=4,v=4)"]), &corpus, &config, 0)
            .expect_err("it is bad");
        assert!(
            error.is_infeasible() && error.to_string().contains(&format!("training.{name} ")),
            "{error}"
        );
    }
}

fn request(text: &str, tokens: u64) -> Evaluate {
    let architecture = text.parse().expect("the text is valid");
    Evaluate { id: 5, attempt: 1, architecture, tokens, seed: 2, resume_from: None }
}

fn run(
    request: &Evaluate,
    corpus: &Corpus,
    config: &TrainingConfig,
) -> evaluator::Result<(Evaluation, Vec<Progress>)> {
    tch::set_num_threads(1);
    let mut heard = Vec::new();
    let proxies = Proxies {
        corpus: Some(corpus),
        tasks: &[],
        training: config,
        checkpoints: None,
        kept_every: KEPT_EVERY,
    };
    let evaluation = evaluate(request, proxies, &|| false, &mut |progress| heard.push(progress))?;
    Ok((evaluation, heard))
}

#[test]
fn an_evaluation_reports_values_with_errors() {
    let (corpus, config) = (corpus(), training_config());
    let request = request("d=16,vocab=256 | m2(h=2,p=8,n=8)+ffn(24)", 10 * 99 - 50);
    let (evaluation, heard) = run(&request, &corpus, &config).unwrap();
    assert_eq!((evaluation.id, evaluation.tokens), (5, 990));
    assert_eq!(
        evaluation.parameters,
        tensors(&request.architecture).iter().map(TensorSpec::elements).sum::<u64>()
    );
    let (loss, bits) = (evaluation.values["validation_loss"], evaluation.values["bits_per_byte"]);
    assert!((bits.mean - loss.mean / std::f64::consts::LN_2).abs() < 1e-9);
    assert!(bits.standard_error.unwrap() > 0.0);
    assert_eq!(evaluation.curve.last().unwrap().0, 990);
    let [mixer, network] = &evaluation.retrieval[..] else { panic!("a mixer and a network") };
    assert_eq!((mixer.memory, network.memory), (Memory::Mixer, Memory::Ffn));
    assert_eq!(mixer.snr.len(), mixer.queries.len());
    assert_eq!(network.snr[0].0, 24);
    for layer in [mixer, network] {
        assert!(layer.layer == 0 && layer.points().all(|&(pairs, snr)| pairs >= 2 && snr > 0.0));
    }
    let value = evaluation.values["retrieval_snr_db"];
    let last = mixer.snr.last().expect("there are points").1;
    assert!((value.mean - 10.0 * last.log10()).abs() < 1e-9);
    assert!(value.standard_error.expect("over the sequences") > 0.0);
    let last = heard.last().expect("the last step is always reported");
    assert_eq!((last.step, last.tokens, last.tokens_total), (10, 990, 990));
}

#[test]
fn a_finished_training_is_tested_too_and_a_rung_is_not() {
    let folder = Folder::new();
    let corpus = open(folder.file("a.txt", periodic(20_000))).expect("the text is good");
    let config = TrainingConfig { longer_contexts: vec![3, 50], ..training_config() };
    let of = |steps: u64| {
        let request = request("d=16,vocab=256 | gdn(h=2,k=4,v=8)+ffn(24)", steps * 99);
        run(&request, &corpus, &config).expect("it can be trained").0.values
    };
    let (rung, whole) = (of(8), of(12));
    let names = ["bits_per_byte", "retrieval_snr_db", "validation_loss"];
    assert_eq!(rung.keys().collect::<Vec<_>>(), names);
    let names = [
        "bits_per_byte",
        "bits_per_byte_x3",
        "retrieval_snr_db",
        "test_bits_per_byte",
        "validation_loss",
    ];
    // held out are 2000 tokens: no two windows of 50 · 33 beside each other, but one
    assert_eq!(whole.keys().filter(|name| !name.ends_with("x50")).collect::<Vec<_>>(), names);
    let (validation, test) = (whole["bits_per_byte"], whole["test_bits_per_byte"]);
    assert!(validation.mean.to_bits() != test.mean.to_bits(), "other windows");
    // of a text that repeats itself they agree within a few standard errors
    let error = validation.standard_error.unwrap().hypot(test.standard_error.unwrap());
    assert!((validation.mean - test.mean).abs() < 5.0 * error + 0.02, "{validation:?} {test:?}");
}

#[test]
fn the_proxy_is_the_target_at_its_scale() {
    let corpus = corpus();
    let config = TrainingConfig { width_scale: 0.5, ..training_config() };
    let target = request("d=32,vocab=256 | attn(h=2,kv=2,k=8)+ffn(24)", 99);
    let proxy = request("d=16,vocab=256 | attn(h=1,kv=1,k=8)+ffn(12)", 99);
    let (evaluation, _) = run(&target, &corpus, &config).unwrap();
    assert_eq!(
        evaluation.parameters,
        tensors(&proxy.architecture).iter().map(TensorSpec::elements).sum::<u64>()
    );
    let odd = run(&request("d=33,vocab=256 | ffn(24)", 99), &corpus, &config).unwrap_err();
    assert!(odd.is_infeasible() && odd.to_string().contains("training.width_scale"), "{odd}");
}

#[test]
fn token_files_report_bits_per_token() {
    let folder = Folder::new();
    let ids: Vec<u8> = (0..2000_u16).flat_map(|i| (i % 11).to_le_bytes()).collect();
    let corpus = open(folder.file("a.bin", ids)).unwrap();
    let (evaluation, _) =
        run(&request("d=16,vocab=11 | ffn(24)", 99), &corpus, &training_config()).unwrap();
    assert!(
        evaluation.values.contains_key("bits_per_token")
            && !evaluation.values.contains_key("bits_per_byte")
    );
    let small =
        run(&request("d=16,vocab=10 | ffn(24)", 99), &corpus, &training_config()).unwrap_err();
    assert!(matches!(small, Error::Vocabulary { .. }), "{small}");
}
