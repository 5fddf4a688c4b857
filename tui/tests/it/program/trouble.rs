//! Workers that misbehave: a candidate may fail, the campaign does not.

use super::harness::{EVALUATIONS, World};

/// One bad moment of the trainer: the attempt is repeated, the campaign ends well, and its log says what happened.
fn one_bad_moment(mut world: World, trouble: &str, complaint: &str) {
    world.set("FAKE_TRAINER", trouble);
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains(complaint), "`{complaint}` is not in\n{}", said.stderr);
    assert!(world.candidates().iter().all(|(_, state)| state == "done"));
    assert_eq!(world.count("evaluations"), EVALUATIONS + 1);
    let log = world.say(&["show", "--log"]).stdout;
    assert!(log.contains(complaint), "{log}");
}

#[test]
fn a_worker_that_exits() {
    one_bad_moment(World::new("exit"), "exit 3", "the trainer trainer.sh exited with status 3");
}

#[test]
fn a_worker_that_prints_garbage() {
    one_bad_moment(
        World::new("garbage"),
        "garbage 2",
        "wrote a bad line: not a message of protocol 1",
    );
}

#[test]
fn a_worker_that_gives_nan() {
    one_bad_moment(World::new("nan"), "nan 8", "a value that is not finite is not JSON");
}

#[test]
fn a_worker_that_hangs() {
    let world = World::new("hang");
    world.edit("timeout_seconds = 60.0", "timeout_seconds = 2.0");
    one_bad_moment(world, "hang 1", "said nothing for 2 s");
}

#[test]
fn a_worker_that_takes_too_long_or_too_much() {
    let world = World::new("too_long");
    world.edit("timeout_seconds = 60.0", "hours = 0.001");
    one_bad_moment(world, "hang 1", "took longer than 0.001 h (evaluator.hours)");
    let mut world = World::new("too_much");
    world.edit("timeout_seconds = 60.0", "memory_gb = 0.0001");
    world.set("FAKE_TRAINER", "hang *");
    world.edit("start = 4", "start = 4\nattempts = 1\ngive_up_after = 1");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("(evaluator.memory_gb)"), "{}", said.stderr);
    assert!(said.stderr.contains("lower training.batch"), "{}", said.stderr);
    let first = world.campaign()["candidates"][0].clone();
    assert_eq!(first["failure"], "out of memory", "{first}");
}

#[test]
fn a_disk_that_fills_pauses_the_campaign() {
    let world = World::new("full_disk");
    world.edit("[evaluator]", "[storage]\nfree_gb = 1e9\n\n[evaluator]");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("less than storage.free_gb"), "{}", said.stderr);
    assert_eq!(world.count("evaluations"), 0);
    world.edit("free_gb = 1e9", "free_gb = 0.0");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn a_worker_that_answers_another_request() {
    one_bad_moment(
        World::new("wrong_id"),
        "wrong_id 2",
        "sent `result` for request 99999 when asked",
    );
}

#[test]
fn a_worker_that_answers_by_another_reply() {
    let complaint = "answered by `values`, but `result` was to come";
    one_bad_moment(World::new("wrong_kind"), "wrong_kind 2", complaint);
}

#[test]
fn a_worker_that_writes_without_an_end() {
    one_bad_moment(World::new("endless"), "endless 2", "wrote a bad line");
}

#[test]
fn a_worker_whose_offspring_outlives_it() {
    let world = World::new("orphan");
    let file = world.folder.join("orphan");
    one_bad_moment(world, "orphan 2", "exited with status 3");
    let orphan = std::fs::read_to_string(file).expect("it was started");
    let state = std::fs::read_to_string(format!("/proc/{}/stat", orphan.trim()));
    assert!(state.is_err() || state.is_ok_and(|stat| stat.contains(") Z ")), "it lives on");
}

#[test]
fn a_worker_that_floods_takes_bounded_memory() {
    let mut world = World::new("flood");
    world.set("FAKE_TRAINER", "flood 2");
    let mut run = world.start();
    let mut most_kib = 0;
    while run.is_alive() {
        most_kib = run.peak_memory_kib().unwrap_or(0).max(most_kib);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(run.code(), 0);
    assert!(most_kib > 0 && most_kib < 150_000, "{most_kib} KiB");
    assert_eq!(world.count("evaluations"), EVALUATIONS + 1);
    let log = world.say(&["show", "--log"]).stdout;
    assert!(log.contains("flooded yyy") && log.len() < 100_000, "{} bytes", log.len());
}

#[test]
fn when_everything_fails_the_campaign_gives_up_and_keeps_the_logs() {
    let mut world = World::new("gave_up");
    world.set("FAKE_TRAINER", "exit *");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("gave up after 5 candidates in a row failed"), "{}", said.stderr);
    assert!(said.stderr.contains("go on: deltafront run"), "{}", said.stderr);
    let candidate = world.say(&["show", "small", "1"]).stdout;
    assert!(candidate.contains("terminate called: out of luck"), "{candidate}");
    assert!(candidate.contains("failed (crashed): the trainer"), "{candidate}");
    assert_eq!(
        candidate.matches("failed attempt (crashed): candidate 1").count(),
        2,
        "{candidate}"
    );
    assert!(said.stderr.contains("each of them by `crashed`"), "{}", said.stderr);
    assert!(said.stderr.contains("the last lines of the worker's log"), "{}", said.stderr);
    // When the cause is gone it goes on.
    world.set("FAKE_TRAINER", "");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    // The fault was not the candidates': they are tried again.
    let states: Vec<_> = world.candidates().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["done"; EVALUATIONS]);
}

#[test]
fn a_worker_that_cannot_work_at_all_is_one_clear_message() {
    let mut world = World::new("mute");
    world.set("FAKE_TRAINER", "mute");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("exited with status 127 before it said hello"), "{}", said.stderr);
    assert!(said.stderr.contains("cannot load libfoo.so"), "{}", said.stderr);
    world.set("FAKE_TRAINER", "configure");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("the corpus has 12 tokens"), "{}", said.stderr);
    world.set("DELTAFRONT_TRAIN", "/nowhere/deltafront-train");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("cargo build --release -p evaluator"), "{}", said.stderr);
    // Nothing was begun that the mended campaign could not go on from, changed as it may be.
    world.set("FAKE_TRAINER", "");
    world.unset("DELTAFRONT_TRAIN");
    world.edit("tokens = 65_536", "tokens = 32_768");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(world.campaign()["tokens"], 32_768);
}

#[test]
fn a_trainer_of_the_users_own() {
    let mut world = World::new("own");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/program/workers/trainer.sh");
    world.edit("[evaluator]", &format!("[evaluator]\ncommand = \"sh {script} && true\""));
    world.set("DELTAFRONT_TRAIN", "/nowhere/deltafront-train");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(world.count("evaluations"), EVALUATIONS);
}

#[test]
fn latencies_of_two_devices_do_not_mix() {
    let mut world = World::new("devices");
    world.set("FAKE_TRAINER", "slow 0.2");
    let run = world.start();
    world.wait_until("it trains", |world| world.count("evaluations") >= 2);
    run.interrupt();
    assert_eq!(run.code(), 130);
    world.set("FAKE_DEVICE", "cpu: another");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.contains("was timed on `cpu: fake`, and this is `cpu: another`"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_checkpoint_that_cannot_be_kept_pauses_the_campaign_and_costs_nothing() {
    let mut world = World::new("unsaved");
    world.set("FAKE_TRAINER", "unsaved 3");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("no space left on device"), "{}", said.stderr);
    assert!(said.stderr.contains("when that is mended, go on: deltafront run"), "{}", said.stderr);
    let states: Vec<_> = world.candidates().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states.iter().filter(|state| *state == "done").count(), 3, "{states:?}");
    assert!(states.iter().all(|state| state != "failed"), "{states:?}");
    world.set("FAKE_TRAINER", "");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(world.count("evaluations"), EVALUATIONS, "nothing is trained twice");
}

#[test]
fn a_limit_that_no_result_carries_ends_the_campaign_at_the_first() {
    let world = World::new("limit_typo");
    // The trainer reports what is no name of ours: a mistyped one cannot be told from it before.
    world.edit("[evaluator]", &format!("[evaluator]\ncommand = \"sh {TRAINER}\""));
    world.edit("references = [", "limits = { validation_los = 3.0 }\nreferences = [");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(
        said.stderr.contains("the result lacks the limit on `validation_los`; it has `bits_per_byte`, `validation_loss`"),
        "{}",
        said.stderr
    );
    assert_eq!(world.count("evaluations"), 1);
    world.edit("validation_los ", "validation_loss ");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(world.candidates().iter().all(|(_, state)| state == "done"));
}

const TRAINER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/program/workers/trainer.sh");

#[test]
fn when_nothing_could_be_evaluated_that_is_no_success() {
    let world = World::new("none_done");
    world.edit("references = [", "limits = { validation_loss = 0.1 }\nreferences = [");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("none of 8 candidates could be evaluated"), "{}", said.stderr);
}

#[test]
fn escape_sequences_of_a_worker_do_not_reach_the_terminal() {
    let mut world = World::new("escape");
    world.set("FAKE_TRAINER", "escape 2");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("attempt failed: red\u{fffd}"), "{}", said.stderr);
    let log = world.say(&["show", "--log"]).stdout;
    assert!(!said.stderr.contains('\u{1b}') && !log.contains('\u{1b}'), "{log}");
}
