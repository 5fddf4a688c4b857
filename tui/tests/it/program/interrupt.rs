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
