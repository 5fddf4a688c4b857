//! Checkpoints: what stands in them, going on from them, and refusing the wrong ones.

use std::fs;
use std::path::PathBuf;

use evaluator::checkpoint::trunk_path;
use evaluator::evaluation::{KEPT_EVERY, Proxies, evaluate};
use evaluator::tasks::Task;
use evaluator::{Corpus, Error, Training};
use safetensors::SafeTensors;
use search::config::{LearningRate, TaskConfig, TaskKind, TrainingConfig};
use search::tensors::tensors;
use search::wire::{Evaluate, Evaluation, Progress};

use crate::support::{Folder, MIXERS, architecture, open, periodic, training_config};

fn corpus(folder: &Folder) -> Corpus {
    tch::set_num_threads(1);
    open(folder.file("a.txt", periodic(5000))).expect("the text is good")
}

/// A first attempt at a training of so many steps.
fn request(steps: u64, resume_from: Option<PathBuf>) -> Evaluate {
    Evaluate {
        id: 1,
        attempt: 1,
        architecture: architecture(&MIXERS[..2]),
        tokens: steps * 99,
        seed: 4,
        resume_from,
    }
}

#[test]
fn a_checkpoint_holds_the_list_of_tensors() {
    let folder = Folder::new();
    let (corpus, config) = (corpus(&folder), training_config());
    let path = folder.path().join("c.safetensors");
    let mut training = Training::new(architecture(&MIXERS), &corpus, &config, 1).unwrap();
    training.step().unwrap();
    training.save(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let expected = tensors(&architecture(&MIXERS));
    assert_eq!(file.len(), expected.len());
    for (spec, variable) in expected.iter().zip(training.model().variables()) {
        let view = file.tensor(&spec.name).unwrap();
        assert_eq!(
            view.shape(),
            spec.shape.iter().map(|&n| n as usize).collect::<Vec<_>>(),
            "{}",
            spec.name
        );
        let values: Vec<f32> = variable.tensor.view([-1]).try_into().unwrap();
        let saved: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert_eq!(values, saved, "{}", spec.name);
    }
    let names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| format!("{:?}", e.unwrap().file_name()))
        .collect();
    assert!(names.iter().all(|name| !name.contains("partial")), "{names:?}");
}

#[test]
fn a_resumed_training_is_the_uninterrupted_one() {
    let folder = Folder::new();
    let (corpus, config) = (corpus(&folder), training_config());
    let start = || Training::new(architecture(&MIXERS), &corpus, &config, 9).unwrap();
    let mut whole = start();
    for _ in 0..12 {
        whole.step().unwrap();
    }
    let path = folder.path().join("c.safetensors");
    let mut first = start();
    for _ in 0..5 {
        first.step().unwrap();
    }
    first.save_trunk(&path).unwrap();
    drop(first);
    let mut resumed = start();
    resumed.resume(&path).unwrap();
    assert_eq!(resumed.steps(), 5);
    for _ in 5..12 {
        resumed.step().unwrap();
    }
    assert_eq!(whole.losses(), resumed.losses());
    assert_eq!(whole.curve(), resumed.curve());
    assert_eq!(whole.validate(&|| false).unwrap(), resumed.validate(&|| false).unwrap());
}

#[test]
fn rungs_go_on_from_each_other() {
    let folder = Folder::new();
    let (corpus, config) = (corpus(&folder), training_config());
    let run = |request: &Evaluate| {
        let (corpus, checkpoints) = (Some(&corpus), Some(folder.path()));
        let proxies =
            Proxies { corpus, tasks: &[], training: &config, checkpoints, kept_every: KEPT_EVERY };
        evaluate(request, proxies, &|| false, &mut |_| {}).expect("it can be trained")
    };
    let low = run(&request(8, None));
    let high = run(&request(12, low.checkpoint.clone()));
    let direct = run(&request(12, None));
    assert_eq!(high.values, direct.values);
    assert_eq!(high.curve, direct.curve);
    // Of 8 steps the last 3 decay, the first of them by nothing: the longer training went on from before them.
    assert_eq!(high.curve[..7], low.curve[..7]);
    assert_ne!(high.curve[7], low.curve[7]);
    assert_eq!((low.tokens, high.tokens), (8 * 99, 12 * 99));
    assert_ne!(low.checkpoint, high.checkpoint);
    // A checkpoint that is lost or damaged costs time, not the attempt.
    let lost = folder.path().join("lost.safetensors");
    assert_eq!(run(&request(12, Some(lost))).values, direct.values);
    let damaged = folder.file("damaged.safetensors", "no tensors");
    assert_eq!(run(&request(12, Some(damaged))).curve, direct.curve);
    // One that cannot be written costs neither.
    let nowhere = folder.path().join("no such folder");
    let proxies = Proxies {
        corpus: Some(&corpus),
        tasks: &[],
        training: &config,
        checkpoints: Some(&nowhere),
        kept_every: KEPT_EVERY,
    };
    let unsaved =
        evaluate(&request(12, None), proxies, &|| false, &mut |_| {}).expect("it can be trained");
    assert_eq!((unsaved.values, unsaved.checkpoint), (direct.values.clone(), None));
    assert!(unsaved.unsaved.is_some_and(|why| why.contains("cannot write")));
    // Nothing left to train: only validated.
    let again = run(&request(12, high.checkpoint.clone()));
    assert_eq!(again.values, direct.values);
}

#[test]
fn a_task_beside_a_text_is_learnt_once_for_all_rungs() {
    let (corpus_folder, folder) = (Folder::new(), Folder::new());
    tch::set_num_threads(1);
    let (corpus, config) = (corpus(&corpus_folder), training_config());
    let task = |tokens| {
        let small = TaskConfig {
            batch: 2,
            sequence_length: 10,
            test_sequences: 4,
            ..TaskConfig::new(TaskKind::Mqar)
        };
        Task::new(TaskConfig { tokens, symbols: 4, items: 2, ..small })
    };
    // The result, and how many tokens were said to be trained for it in all.
    let run = |request: &Evaluate, tasks: &[Task]| {
        let (corpus, checkpoints) = (Some(&corpus), Some(folder.path()));
        let proxies =
            Proxies { corpus, tasks, training: &config, checkpoints, kept_every: KEPT_EVERY };
        let mut total = 0;
        let mut hear = |progress: Progress| total = progress.tokens_total;
        let found = evaluate(request, proxies, &|| false, &mut hear).expect("it can be trained");
        (found, total)
    };
    let of_tasks = |evaluation: &Evaluation| {
        let named = |(name, _): &(&String, _)| name.starts_with("mqar") || *name == "tasks_error";
        let values: Vec<_> =
            evaluation.values.iter().filter(named).map(|(n, v)| (n.clone(), *v)).collect();
        assert_eq!(values.len(), 3, "{values:?}");
        values
    };
    let tasks = [task(30 * 20)];
    let (low, total) = run(&request(8, None), &tasks);
    assert_eq!((low.tokens, total), (8 * 99, 8 * 99 + 30 * 20));
    let (high, total) = run(&request(12, low.checkpoint.clone()), &tasks);
    assert_eq!((high.tokens, total), (12 * 99, 12 * 99));
    assert_eq!(of_tasks(&high), of_tasks(&low));
    assert_eq!(run(&request(12, None), &tasks).0.values, high.values);
    // What came of another task is none of this one.
    let others = [task(40 * 20)];
    assert_eq!(run(&request(12, low.checkpoint), &others).1, 12 * 99 + 40 * 20);
}

#[test]
fn a_killed_training_goes_on_where_it_was() {
    let (corpus_folder, folder) = (Folder::new(), Folder::new());
    let (corpus, config) = (corpus(&corpus_folder), training_config());
    let request = |attempt| Evaluate { attempt, ..request(12, None) };
    // Stopped after so many steps, as a kill would; and the steps that were done.
    let run = |request: &Evaluate, most: u64, folder: &std::path::Path| {
        let (corpus, steps) = (Some(&corpus), std::cell::Cell::new(0));
        let checkpoints = Some(folder);
        let kept_every = std::time::Duration::ZERO;
        let proxies = Proxies { corpus, tasks: &[], training: &config, checkpoints, kept_every };
        let stop = || {
            steps.set(steps.get() + 1);
            steps.get() > most
        };
        let evaluation = evaluate(request, proxies, &stop, &mut |_| {});
        (evaluation, steps.get())
    };
    let undisturbed = run(&request(1), 1000, corpus_folder.path());
    let direct = undisturbed.0.expect("it can be trained");
    // In the flat part, and in the decay.
    for most in [2, 3, 4] {
        assert!(matches!(run(&request(1), most, folder.path()).0, Err(Error::Stopped)), "{most}");
    }
    let (again, asked) = run(&request(1), 1000, folder.path());
    let again = again.expect("it can be trained");
    assert_eq!((&again.values, &again.curve), (&direct.values, &direct.curve));
    assert_eq!(asked, undisturbed.1 - 9, "9 of 12 steps were done");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    let is_left = |end: &str| left.iter().any(|f| f.file_name().to_string_lossy().ends_with(end));
    assert!(!is_left("-going.trunk.safetensors"), "{left:?}");
    assert!(is_left("1188.safetensors") && is_left("1188.trunk.safetensors"), "{left:?}");
    // What may have been what it failed at is not gone on from.
    let second = Folder::new();
    assert!(run(&request(1), 6, second.path()).0.is_err());
    let (again, asked) = run(&request(2), 1000, second.path());
    assert_eq!((again.expect("it can be trained").values, asked), (direct.values, undisturbed.1));
}

#[test]
fn the_wrong_checkpoint_is_refused() {
    let folder = Folder::new();
    let (corpus, config) = (corpus(&folder), training_config());
    let path = folder.path().join("c.safetensors");
    let small = architecture(&MIXERS[..1]);
    let mut training = Training::new(small.clone(), &corpus, &config, 1).unwrap();
    training.step().unwrap();
    training.save_trunk(&path).unwrap();

    let refusal = |architecture, config: &TrainingConfig, seed, path: &std::path::Path| {
        let mut training =
            Training::new(architecture, &corpus, config, seed).expect("it can be trained");
        let error = training.resume(path).expect_err("the checkpoint is wrong");
        assert!(matches!(error, Error::Checkpoint { .. }) && !error.is_infeasible(), "{error}");
        error.to_string()
    };
    assert!(refusal(small.clone(), &config, 2, &path).contains("another training"));
    assert!(refusal(architecture(&MIXERS[1..2]), &config, 1, &path).contains("another training"));
    let hotter = TrainingConfig { learning_rate: LearningRate::Base(0.5), ..config.clone() };
    assert!(refusal(small.clone(), &hotter, 1, &path).contains("another training"));
    assert!(
        refusal(small.clone(), &config, 1, &folder.path().join("none.safetensors"))
            .contains("cannot be read")
    );

    // Validated on more tokens by more threads it is the same training.
    let watched = TrainingConfig { validation_tokens: 99, threads: 2, ..config.clone() };
    assert!(Training::new(small.clone(), &corpus, &watched, 1).unwrap().resume(&path).is_ok());

    // Under another training rule it would go on as another training.
    let bytes = fs::read(trunk_path(&path)).unwrap();
    let now = format!(r#"\"rule\":{}"#, evaluator::rule::NUMBER);
    let at = bytes.windows(now.len()).position(|part| part == now.as_bytes()).unwrap();
    let mut older = bytes.clone();
    older[at + now.len() - 1] = b'0';
    let old = folder.path().join("old.safetensors");
    fs::write(trunk_path(&old), older).unwrap();
    assert!(refusal(small.clone(), &config, 1, &old).contains("another training"));

    let state = fs::read(trunk_path(&path)).unwrap();
    fs::write(trunk_path(&path), &state[..state.len() / 2]).unwrap();
    assert!(refusal(small.clone(), &config, 1, &path).contains("damaged"));
}

#[test]
fn a_folder_that_cannot_be_written_fails_clearly() {
    let folder = Folder::new();
    let (corpus, config) = (corpus(&folder), training_config());
    let training = Training::new(architecture(&MIXERS[..1]), &corpus, &config, 1).unwrap();
    let error = training.save(&folder.file("file", "x").join("c.safetensors")).unwrap_err();
    assert!(!error.is_infeasible() && error.to_string().contains("cannot write"), "{error}");
    let full =
        Error::Io { op: "write", path: "c".into(), source: std::io::ErrorKind::StorageFull.into() };
    assert!(full.to_string().contains("free some space"), "{full}");
}
