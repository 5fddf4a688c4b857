//! Generated tasks: each example against a solver that reads it, and a model that learns one.

use std::collections::{BTreeMap, HashMap};

use evaluator::evaluation::{KEPT_EVERY, Proxies, evaluate};
use evaluator::tasks::{Example, Part, Task};
use search::config::{LearningRate, TaskConfig, TaskKind};
use search::wire::{Evaluate, Evaluation};

use crate::support::training_config;

fn task(kind: TaskKind) -> Task {
    Task::new(TaskConfig { symbols: 11, items: 5, ..TaskConfig::new(kind) })
}

/// What must be said at each position, found by reading the inputs as the task's definition says.
fn solve(task: &Task, inputs: &[u32]) -> Vec<Option<u32>> {
    let symbols = task.config().symbols;
    let items = task.config().items as usize;
    let mut said = vec![None; inputs.len()];
    match task.config().kind {
        TaskKind::Mqar => {
            let pairs: HashMap<u32, u32> =
                inputs[..2 * items].chunks(2).map(|pair| (pair[0], pair[1])).collect();
            assert_eq!(pairs.len(), items, "the keys differ");
            for at in 2 * items..inputs.len() {
                said[at] = pairs.get(&inputs[at]).copied();
            }
        }
        TaskKind::SelectiveCopying => {
            let (story, markers) = inputs.split_at(inputs.len() - items);
            assert!(markers.iter().all(|&token| token == 1));
            for (item, &symbol) in story.iter().filter(|&&token| token >= 2).enumerate() {
                said[story.len() + item] = Some(symbol);
            }
        }
        TaskKind::NoisyRecall => {
            let mut pairs = HashMap::new();
            for at in 0..inputs.len() {
                if inputs[at] < symbols {
                    said[at] = pairs.insert(inputs[at], inputs[at + 1]);
                    assert!((symbols..2 * symbols).contains(&inputs[at + 1]), "a value follows");
                }
            }
        }
        TaskKind::Parity => {
            for at in 0..inputs.len() {
                said[at] = Some(inputs[..=at].iter().sum::<u32>() % 2);
            }
        }
        TaskKind::S3 | TaskKind::S5 => {
            let n = if task.config().kind == TaskKind::S3 { 3 } else { 5 };
            let mut things: Vec<usize> = (0..n).collect();
            for at in 0..inputs.len() {
                let element = unrank(inputs[at], n);
                things = things.iter().map(|&thing| element[thing]).collect();
                said[at] = Some(rank(&things));
            }
        }
    }
    said
}

/// The `number`-th permutation in lexicographic order, by the factorial number system.
fn unrank(number: u32, n: usize) -> Vec<usize> {
    let mut rest: Vec<usize> = (0..n).collect();
    let mut number = number as usize;
    (0..n)
        .map(|place| {
            let block: usize = (1..n - place).product();
            let chosen = rest.remove(number / block);
            number %= block;
            chosen
        })
        .collect()
}

fn rank(permutation: &[usize]) -> u32 {
    let n = permutation.len();
    let smaller = |i: usize| permutation[i + 1..].iter().filter(|&&x| x < permutation[i]).count();
    (0..n).map(|i| smaller(i) * (1..n - i).product::<usize>()).sum::<usize>() as u32
}

#[test]
fn targets_are_what_the_definition_says() {
    for kind in TaskKind::ALL {
        let task = task(kind);
        let mut asked = 0;
        for (index, length) in [15, 16, 33, 63, 100, 257].into_iter().enumerate() {
            let Example { inputs, targets } = task.example(3, Part::Training, index as u64, length);
            assert_eq!((inputs.len(), targets.len()), (length, length), "{kind}");
            assert_eq!(targets, solve(&task, &inputs), "{kind} of {length}");
            assert!(
                inputs.iter().chain(targets.iter().flatten()).all(|&token| token < task.vocab()),
                "{kind}"
            );
            asked += targets.iter().flatten().count();
        }
        assert!(asked >= 6 * 5, "{kind}: {asked}");
    }
}

#[test]
fn examples_depend_on_seed_part_and_index_alone() {
    for kind in TaskKind::ALL {
        let task = task(kind);
        let example = |seed, part, index| task.example(seed, part, index, 40);
        let first = example(1, Part::Training, 2);
        assert_eq!(first, example(1, Part::Training, 2));
        for other in [
            example(2, Part::Training, 2),
            example(1, Part::Test, 2),
            example(1, Part::Training, 3),
        ] {
            assert_ne!(first, other, "{kind}");
        }
    }
}

#[test]
fn noise_has_its_share_and_every_symbol_is_drawn() {
    for noise in [0.0, 0.2, 0.7] {
        let task = Task::new(TaskConfig {
            noise,
            symbols: 11,
            items: 5,
            ..TaskConfig::new(TaskKind::NoisyRecall)
        });
        let inputs = task.example(0, Part::Training, 0, 20_000).inputs;
        let share =
            inputs.iter().filter(|&&token| token >= 22).count() as f64 / inputs.len() as f64;
        assert!((share - noise).abs() < 0.02, "{share} instead of {noise}");
    }
    for kind in [TaskKind::S3, TaskKind::S5, TaskKind::Parity] {
        let task = task(kind);
        let mut counts = BTreeMap::new();
        for token in task.example(0, Part::Training, 0, 24_000).inputs {
            *counts.entry(token).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len() as u32, task.vocab(), "{kind}");
        let even = 24_000 / task.vocab();
        assert!(counts.values().all(|&n| n > even / 2 && n < even * 2), "{kind}: {counts:?}");
    }
}

/// Trained for this part of the tasks' tokens.
fn run(architecture: &str, tasks: &[Task], part: f64) -> Evaluation {
    tch::set_num_threads(1);
    let training = training_config();
    let proxies = Proxies {
        corpus: None,
        tasks,
        training: &training,
        checkpoints: None,
        kept_every: KEPT_EVERY,
    };
    let architecture = architecture.parse().expect("the text is valid");
    let whole: u64 = tasks.iter().map(|task| task.config().tokens).sum();
    let tokens = (whole as f64 * part) as u64;
    let request = Evaluate { id: 1, attempt: 1, architecture, tokens, seed: 5, resume_from: None };
    evaluate(&request, proxies, &|| false, &mut |_| {}).expect("it can be trained")
}

#[test]
fn a_mixer_learns_to_recall_and_a_feed_forward_network_does_not() {
    let config = TaskConfig {
        tokens: 300 * 16 * 12,
        batch: 16,
        sequence_length: 12,
        symbols: 6,
        items: 2,
        learning_rate: LearningRate::Base(1e-2),
        test_sequences: 99,
        extrapolate: vec![3],
        ..TaskConfig::new(TaskKind::Mqar)
    };
    let tasks = [Task::new(config)];
    let learnt =
        run("d=32,vocab=256 | dn(h=2,k=16,v=16)+ffn(64) | dn(h=2,k=16,v=16)+ffn(64)", &tasks, 1.0);
    let accuracy = learnt.values["mqar_accuracy"];
    assert!(accuracy.mean > 0.9, "{accuracy:?}");
    assert!((learnt.values["mqar_error"].mean - (1.0 - accuracy.mean)).abs() < 1e-12);
    assert_eq!(learnt.values["tasks_error"], learnt.values["mqar_error"]);
    assert!(
        learnt.values.contains_key("mqar_x3_accuracy")
            && learnt.values.contains_key("mqar_x3_error")
    );
    assert_eq!(learnt.tokens, 300 * 16 * 12);

    // A feed-forward network alone sees no other position: one value of six is as good as another.
    let blind = run("d=32,vocab=256 | ffn(64)", &tasks, 1.0);
    let accuracy = blind.values["mqar_accuracy"];
    assert!(
        accuracy.mean < 0.4 && accuracy.standard_error.expect("it is known") > 0.01,
        "{accuracy:?}"
    );
}

#[test]
fn every_kind_reports_under_its_name() {
    let small = |kind| TaskConfig {
        tokens: 2 * 3 * 20,
        batch: 3,
        sequence_length: 20,
        symbols: 7,
        items: 3,
        test_sequences: 5,
        extrapolate: vec![2],
        ..TaskConfig::new(kind)
    };
    let mut configs: Vec<TaskConfig> = TaskKind::ALL.map(small).to_vec();
    configs.push(TaskConfig { name: Some("again".to_owned()), weight: 0.0, ..small(TaskKind::S3) });
    let tasks: Vec<Task> = configs.iter().cloned().map(Task::new).collect();
    let evaluation = run("d=16,vocab=256,tied | gdn(h=2,k=8,v=8)", &tasks, 1.0);
    let mut expected: Vec<String> = configs.iter().flat_map(TaskConfig::value_names).collect();
    expected.extend(["tasks_error", "retrieval_snr_db"].map(str::to_owned));
    expected.sort();
    assert!(evaluation.values.keys().eq(&expected), "{:?}", evaluation.values.keys());
    let mut shares = evaluation.values.iter().filter(|(name, _)| *name != "retrieval_snr_db");
    assert!(shares.all(|(_, value)| (0.0..=1.0).contains(&value.mean)));
    let errors: f64 =
        TaskKind::ALL.iter().map(|kind| evaluation.values[&format!("{kind}_error")].mean).sum();
    assert!((evaluation.values["tasks_error"].mean - errors / 6.0).abs() < 1e-12);
}

#[test]
fn a_rung_of_tasks_alone_is_a_part_of_each() {
    let task = |kind, steps: u64| {
        Task::new(TaskConfig {
            tokens: steps * 2 * 10,
            batch: 2,
            sequence_length: 10,
            test_sequences: 2,
            ..TaskConfig::new(kind)
        })
    };
    let tasks = [task(TaskKind::Parity, 40), task(TaskKind::S3, 20)];
    let stack = "d=8,vocab=256,tied | ffn(8)";
    assert_eq!(run(stack, &tasks, 1.0).tokens, 60 * 20);
    assert_eq!(run(stack, &tasks, 0.25).tokens, 15 * 20);
    assert_eq!(run(stack, &tasks, 1e-9).tokens, 2 * 20, "one step each");
}
