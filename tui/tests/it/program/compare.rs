//! `deltafront compare`.

use serde_json::Value;

use super::harness::{Running, Said, World};

/// A finished campaign whose profiler says what weights must be read: wider is slower.
fn world(name: &str) -> World {
    let mut world = World::new(name);
    world.set("FAKE_FIXED", "1");
    world.set("FAKE_NOISE", "1");
    world.set("FAKE_PROFILER", "widths");
    world.edit("evaluations = 8", "evaluations = 2");
    assert_eq!(world.say(&["run"]).code, 0);
    world
}

const STACKS: &str = "deltanet,gdn-h1,swa,mamba2-only,gated-deltanet";

fn compare(world: &World, more: &[&str]) -> Said {
    let base = ["compare", "small", "full-attention"];
    world.say(&[&base[..], more].concat())
}

fn rows(world: &World) -> Vec<Value> {
    let said = compare(world, &["--json"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let json: Value = serde_json::from_str(&said.stdout).expect("JSON");
    json["rows"].as_array().expect("a list").clone()
}

#[test]
fn stacks_are_compared_at_equal_latency_over_seeds() {
    let world = world("compare");
    let said = compare(&world, &["--stacks", STACKS]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    insta::assert_snapshot!("compare", said.stdout);
    let begun = world.count("evaluations");
    let rows = rows(&world);
    assert_eq!(world.count("evaluations"), begun, "what is finished is not done again");
    let chosen = rows.iter().find(|row| row["is_chosen"] == true).expect("the chosen stack");
    let us = |row: &Value| row["decode"]["median_us"].as_f64().expect("timed whole");
    for row in &rows {
        assert_eq!(row["seeds"], 3, "{row}");
        assert!((us(row) / us(chosen) - 1.0).abs() < 0.1, "{row}");
        let loss = &row["loss"];
        assert!(loss["standard_error"].as_f64().expect("three seeds") > 0.0);
        assert_eq!(row["is_chosen"] == true, row["difference"].is_null());
    }
    assert!(rows.is_sorted_by_key(|row| row["loss"]["mean"].as_f64()));
    // It is a campaign like others, and can be prolonged by seeds.
    let shown = world.say(&["show", "small-compare-1"]);
    assert!(shown.code == 0 && shown.stdout.contains("mamba2-only"), "{}", shown.stderr);
    assert_eq!(world.say(&["report", "small-compare-1"]).code, 0);
    let said = compare(&world, &["--seeds", "4", "--notify", "echo $DELTAFRONT_STATE > told"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(world.count("evaluations"), begun + rows.len());
    assert_eq!(world.read("told"), "finished\n");
}

#[test]
fn a_comparison_goes_on_after_ctrl_c_and_a_kill() {
    let mut world = world("compare_cut");
    world.set("FAKE_TRAINER", "slow 0.1");
    let start = |world: &World| {
        let mut command = world.command(&["compare", "small", "1", "--stacks", STACKS]);
        command.stdout(std::process::Stdio::null());
        let log = std::fs::File::create(world.folder.join("stderr.txt")).expect("a file");
        Running(command.stderr(log).spawn().expect("the program starts"))
    };
    let before = world.count("evaluations");
    let run = start(&world);
    world.wait_until("it trains", |world| world.count("evaluations") >= before + 3);
    run.interrupt();
    assert_eq!(run.code(), 130);
    let said = world.read("stderr.txt");
    assert!(
        said.contains("to go on: deltafront compare") || said.contains("compare small 1"),
        "{said}"
    );
    let run = start(&world);
    world.wait_until("it trains", |world| world.count("evaluations") >= before + 9);
    run.kill();
    world.unset("FAKE_TRAINER");
    let said = compare(&world, &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(rows(&world).iter().all(|row| row["seeds"] == 3));
    let wanted = 3 * rows(&world).len();
    assert!(world.count("evaluations") - before <= wanted + 2, "what was done was done again");
}

#[test]
fn what_cannot_be_compared_gets_one_clear_message() {
    let world = world("compare_words");
    let cases = [
        (&["compare", "small", "9"][..], "has no candidate `9`"),
        (&["compare", "none", "1"], "none"),
        (&["compare", "small", "1", "--stacks", "llama"], "no reference stack is called `llama`"),
        (&["compare", "small", "1", "--name", "small"], "is not a comparison of this stack"),
        (&["compare", "small", "1", "--tokens", "100"], "less than one step"),
    ];
    for (command, message) in cases {
        let said = world.say(command);
        assert!(said.code == 1 && said.stderr.contains(message), "{command:?}: {}", said.stderr);
    }
    assert_eq!(compare(&world, &["--stacks", "deltanet", "--seeds", "1"]).code, 0);
    let said = compare(&world, &["--stacks", "mamba2"]);
    assert!(said.code == 1 && said.stderr.contains("began with other --stacks"), "{}", said.stderr);
    let said = compare(&world, &["--tokens", "70000"]);
    assert!(said.code == 1 && said.stderr.contains("began with 65536 tokens"), "{}", said.stderr);
}

#[test]
fn stacks_of_ones_own_stand_beside_the_search() {
    let world = World::new("own_stacks");
    let stack = "d=48,vocab=256,tied | swa(h=2,kv=1,k=8,w=4) | ffn(40)";
    world.edit("[evaluator]", &format!("[search.stacks]\nmine = \"{stack}\"\n\n[evaluator]"));
    assert_eq!(world.say(&["run"]).code, 0);
    let said = world.say(&["show", "small", "mine", "--json"]);
    let row: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((&row["text"], &row["state"]), (&stack.into(), &"done".into()));
    assert!(!row["decode_whole"].is_null(), "timed whole as references are");
    for (wrong, message) in [
        ("mine = \"d=48,vocab=99,tied | ffn(40)\"", "vocabulary of 99"),
        ("mine = \"d=48 | nonsense\"", "does not name a stack"),
        ("full-attention = \"d=48,vocab=256,tied | ffn(40)\"", "called `full-attention` too"),
    ] {
        let before = world.read("campaign.toml");
        world.edit(&format!("mine = \"{stack}\""), wrong);
        let said = world.say(&["run"]);
        assert!(said.code == 1 && said.stderr.contains(message), "{}", said.stderr);
        world.write("campaign.toml", &before);
    }
}
