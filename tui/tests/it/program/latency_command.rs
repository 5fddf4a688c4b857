//! A latency command of the user's own: what it says of a whole model is the latency of the candidate.

use std::path::Path;

use serde_json::Value;

use super::harness::World;

fn timed_by_command(name: &str) -> World {
    let world = World::new(name);
    let command =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/program/workers/stopwatch.py");
    let section = format!("[latency]\ncommand = \"python3 '{}'\"\n", command.display());
    world.edit("[evaluator]", &format!("{section}\n[evaluator]"));
    world
}

fn candidates(world: &World) -> Vec<Value> {
    let said = world.say(&["show", "small", "--json"]);
    let all: Value = serde_json::from_str(&said.stdout).expect("JSON");
    all["candidates"].as_array().expect("a list").clone()
}

#[test]
fn every_candidate_is_timed_as_a_whole_before_it_is_trained() {
    let world = timed_by_command("latency_command");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let all = candidates(&world);
    let done: Vec<&Value> = all.iter().filter(|row| row["state"] == "done").collect();
    assert_eq!(done.len(), 8);
    for row in &done {
        let layers = row["architecture"]["layers"].as_array().expect("a list").len() as f64;
        let value = &row["values"]["decode_us"];
        assert_eq!(value["mean"].as_f64(), Some(10.0 * layers));
        // Its own, and of the machine what six that took the same again cannot rule out.
        let error = value["standard_error"].as_f64().expect("an error");
        assert!((0.25..0.25 + 0.003 * 10.0 * layers).contains(&error), "{error}");
        assert_eq!(row["values"]["prefill_us"]["mean"].as_f64(), Some(20.0 * layers));
        assert_eq!(row["decode_whole"]["samples"].as_u64(), Some(9));
    }
    // What is timed elsewhere is timed while others train.
    let order = world.read("order");
    for (trained, (index, _)) in order.match_indices("begin").enumerate() {
        assert!(order[..index].matches("time").count() >= 2 * (trained + 1), "{order}");
    }
    assert_eq!(order.matches("time").count(), 2 * all.len() + 2 * 6, "six once more at the end");
    assert_eq!(world.count("measurements"), 0, "no part is timed");
    assert!(said.stderr.contains("timing by stopwatch 1.0 on phone: fake"), "{}", said.stderr);

    let said = world.say(&["profile", "small", "1"]);
    assert!(said.stderr.contains("(latency.command) times whole models only"), "{}", said.stderr);
}

#[test]
fn what_the_command_refuses_or_finds_too_slow_is_not_trained() {
    let mut world = timed_by_command("latency_command_refuses");
    world.set("FAKE_REFUSES", "1");
    world.edit("[latency]", "[latency]\ndecode_budget_us = 25.0");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let all = candidates(&world);
    for row in &all {
        let layers = row["architecture"]["layers"].as_array().expect("a list").len();
        let (state, begin) = match layers {
            1 => ("infeasible", "1 layers are too many"),
            2 => ("done", ""),
            _ => ("infeasible", "decode_us 30"),
        };
        assert_eq!(row["state"].as_str(), Some(state), "{row}");
        assert!(row["reason"].as_str().unwrap_or_default().starts_with(begin), "{row}");
    }
    assert_eq!(world.count("evaluations"), 8);
}

#[test]
fn a_command_that_is_none_ends_the_start() {
    let world = World::new("latency_command_none");
    world.edit("[evaluator]", "[latency]\ncommand = \"echo ready\"\n\n[evaluator]");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.contains("campaign.toml: latency.command cannot be used"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("the profiler `echo ready` must be a hello"), "{}", said.stderr);
    assert_eq!(world.count("evaluations"), 0);
}
