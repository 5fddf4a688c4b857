//! Ctrl-C.

use std::time::{Duration, Instant};

use super::harness::{EVALUATIONS, World};

#[test]
fn ctrl_c_pauses_and_says_how_to_go_on() {
    let mut world = World::new("paused");
    world.set("FAKE_TRAINER", "slow 0.2");
    let run = world.start();
    world.wait_until("it trains", |world| world.count("evaluations") >= 3);
    run.interrupt();
    assert_eq!(run.code(), 130);
    let said = world.read("stderr.txt");
    assert!(said.contains("to go on: ") && said.ends_with("deltafront run\n"), "{said}");
    let campaign = world.campaign();
    assert_eq!(campaign["state"], "paused");
    let states: Vec<_> = world.candidates().into_iter().map(|(_, state)| state).collect();
    assert!(states.iter().filter(|state| *state == "done").count() >= 2, "{states:?}");
    assert!(states.iter().all(|state| state != "failed"), "{states:?}");
    let done = states.iter().filter(|state| *state == "done").count();

    world.set("FAKE_TRAINER", "");
    let before = world.count("evaluations");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains(&format!("goes on: {done} of 8 done")), "{}", said.stderr);
    assert_eq!(world.count("evaluations") - before, 8 - done, "what was done is not done again");
}

/// `timeout` ends a campaign's time as a batch system does.
#[test]
fn a_time_limit_pauses_and_costs_no_attempt() {
    let mut world = World::new("time_limit");
    world.set("FAKE_TRAINER", "slow 0.6");
    let mut command = std::process::Command::new("timeout");
    let limit = ["--preserve-status", "--signal=USR1", "--kill-after=30", "2"];
    command.args(limit).arg(env!("CARGO_BIN_EXE_deltafront")).arg("run");
    world.surround(&mut command);
    let output = command.output().expect("coreutils are there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("paused with"), "{said}");
    assert_eq!(world.campaign()["state"], "paused");
    assert!(world.candidates().iter().all(|(_, state)| state != "failed"));
    world.set("FAKE_TRAINER", "");
    assert_eq!(world.say(&["run"]).code, 0);
    let log = world.say(&["show", "--log"]).stdout;
    assert!(!log.contains("failed attempt"), "{log}");
}

/// A command of the user's own that does nothing about the signal goes on, too, when all of a job are sent it.
#[test]
fn workers_leave_a_time_limit_to_the_driver() {
    let mut world = World::new("time_limit_of_all");
    world.set("FAKE_TRAINER", "slow 0.3");
    let trainer = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/program/workers/trainer.sh");
    // Without `exec`, a shell of its own with the trainer below it.
    let command = format!("[evaluator]\ncommand = \"echo $$ >>pids; '{}'\"", trainer.display());
    world.edit("[evaluator]", &command);
    let run = world.start();
    world.wait_until("it trains", |world| world.count("evaluations") >= 2);
    for pid in world.read("pids").split_whitespace() {
        let pid = rustix::process::Pid::from_raw(pid.parse().expect("a number")).expect("not 0");
        rustix::process::kill_process_group(pid, rustix::process::Signal::USR1).expect("it runs");
    }
    assert_eq!(run.code(), 0, "{}", world.read("stderr.txt"));
    assert_eq!(world.count("evaluations"), EVALUATIONS, "nothing was begun twice");
}

#[test]
fn a_second_ctrl_c_does_not_wait() {
    let mut world = World::new("twice");
    world.set("FAKE_TRAINER", "hang 1");
    let run = world.start();
    world.wait_until("it trains", |world| world.count("evaluations") >= 1);
    run.interrupt();
    world.wait_until("it says so", |world| world.read("stderr.txt").contains("Ctrl-C again"));
    let begin = Instant::now();
    run.interrupt();
    assert_eq!(run.code(), 130);
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    world.set("FAKE_TRAINER", "");
    assert_eq!(world.say(&["run"]).code, 0);
}

#[test]
fn two_runs_on_one_campaign() {
    let mut world = World::new("two_runs");
    world.set("FAKE_TRAINER", "slow 0.2");
    let first = world.start();
    world.wait_until("it trains", |world| world.count("evaluations") >= 2);
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("another `deltafront run` (process "), "{}", said.stderr);
    assert_eq!(first.code(), 0);
    assert_eq!(world.candidates().len(), 8);
}

#[test]
fn an_answer_that_came_while_the_driver_was_stopped_counts() {
    let mut world = World::new("ctrl_z");
    world.edit("timeout_seconds = 60.0", "timeout_seconds = 1.0");
    world.set("FAKE_TRAINER", "slow 0.3");
    let run = world.start();
    world.wait_until("it trains", |world| world.count("evaluations") >= 2);
    run.signal(rustix::process::Signal::STOP);
    std::thread::sleep(std::time::Duration::from_secs(3));
    run.signal(rustix::process::Signal::CONT);
    assert_eq!(run.code(), 0);
    assert_eq!(world.count("evaluations"), EVALUATIONS, "nothing was tried again");
}
