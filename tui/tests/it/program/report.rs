//! `deltafront report`.

use std::path::Path;

use serde_json::Value;

use super::harness::World;

fn json(world: &World, arguments: &[&str]) -> Value {
    let said = world.say(&[&["report", "--json"], arguments].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    serde_json::from_str(&said.stdout).expect("JSON")
}

/// Rungs, repeats from other seeds, longer trainings.
fn thorough(name: &str) -> World {
    let mut world = World::new(name);
    world.set("FAKE_FIXED", "1");
    world.set("FAKE_NOISE", "1");
    world.edit(
        "evaluations = 8",
        "evaluations = 12\nalgorithm = \"random\"\nrungs = [16_384]\npromote = 2",
    );
    world.edit("[evaluator]", "[trust]\nrepeats = 3\nlonger = 5\n\n[evaluator]");
    world
}

#[test]
fn the_front_is_reported_on_text_that_nothing_selected_on() {
    let mut world = World::new("report-test");
    world.set("FAKE_TEST", "2.713");
    assert_eq!(world.say(&["run"]).code, 0);
    let said = world.say(&["report"]).stdout;
    assert!(said.contains("test bits per byte") && said.contains("2.713 ±0.010"), "{said}");
    let json = json(&world, &[]);
    assert_eq!(json["findings"]["front"][0]["test"]["bits_per_byte"]["mean"], 2.713);
}

#[test]
fn a_front_is_shown_with_its_uncertainty() {
    let world = thorough("report");
    let run = world.say(&["run"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("Rank correlation of bits per byte, 16.4 k → 65.5 k tokens"));
    let said = world.say(&["report"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    insta::assert_snapshot!("report", said.stdout);

    let json = json(&world, &["small", "--at", "3,12"]);
    let findings = &json["findings"];
    let chances = findings["front"].as_array().expect("a list").iter();
    assert!(chances.clone().any(|member| member["seeds"] == 2 || member["seeds"] == 3));
    for member in chances {
        let chance = member["membership"].as_f64().expect("a chance");
        assert!((0.0..=1.0).contains(&chance) && (member["on_front"] == true || chance >= 0.05));
    }
    let lengths: Vec<(u64, u64)> = findings["agreements"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|a| (a["fewer"].as_u64().expect("tokens"), a["more"].as_u64().expect("tokens")))
        .collect();
    assert_eq!(lengths, [(16_384, 65_536), (16_384, 262_144), (65_536, 262_144)]);
    assert_eq!(findings["seed_noise"][0]["degrees_of_freedom"], 3);
    let shares = json["hypervolume"]["campaigns"][0]["shares"].as_array().expect("a list");
    assert_eq!(shares.len(), 12);
    assert!(shares.is_sorted_by(|a, b| a.as_f64() <= b.as_f64()));
    assert_eq!(shares[11], 1.0);
    let means = json["hypervolume"]["means"].as_array().expect("a list");
    assert_eq!(
        means.iter().map(|m| m["evaluations"].as_u64()).collect::<Vec<_>>(),
        [Some(3), Some(12)]
    );
    assert_eq!(means[0]["mean"], shares[2]);
}

#[test]
fn algorithms_are_averaged_on_one_scale() {
    let mut world = World::new("report_several");
    world.set("FAKE_NOISE", "1");
    let mut last = ("small".to_owned(), "seed = 3".to_owned());
    for algorithm in ["random", "local-search"] {
        for seed in 1..=2 {
            let (name, seed) = (format!("{algorithm}-{seed}"), format!("seed = {seed}"));
            world.edit(&format!("name = \"{}\"", last.0), &format!("name = \"{name}\""));
            world.edit(&last.1, &seed);
            last = (name, seed);
            let before = world.read("campaign.toml");
            world.edit("[search]", &format!("[search]\nalgorithm = \"{algorithm}\""));
            let said = world.say(&["run"]);
            assert_eq!(said.code, 0, "{}", said.stderr);
            world.write("campaign.toml", &before);
        }
    }
    let names = ["random-1", "random-2", "local-search-1", "local-search-2"];
    let all = json(&world, &names);
    let campaigns = all["hypervolume"]["campaigns"].as_array().expect("a list");
    let last = |campaign: &Value| {
        campaign["shares"].as_array().and_then(|s| s.last()?.as_f64()).expect("a share")
    };
    assert!(campaigns.iter().all(|campaign| last(campaign) <= 1.0 + 1e-12));
    let mean = f64::midpoint(last(&campaigns[0]), last(&campaigns[1]));
    let error = (last(&campaigns[0]) - last(&campaigns[1])).abs() / 2.0;
    let means = all["hypervolume"]["means"].as_array().expect("a list");
    let of = |m: &&Value| m["algorithm"] == "random" && m["evaluations"] == 8;
    let found = means.iter().find(of).expect("after all eight");
    assert!((found["mean"].as_f64().expect("a mean") - mean).abs() < 1e-12, "{found}");
    assert!((found["standard_error"].as_f64().expect("an error") - error).abs() < 1e-12, "{found}");
    let text = world.say(&[&["report"], &names[..]].concat()).stdout;
    for word in ["random (2 campaigns)", "local-search (2 campaigns)", "their common front"] {
        assert!(text.contains(word), "`{word}` is not in\n{text}");
    }
    // What has no place on one scale is refused.
    world.edit("tokens = 65_536", "tokens = 131_072");
    world.edit("name = \"local-search-2\"", "name = \"longer\"");
    assert_eq!(world.say(&["run"]).code, 0);
    let said = world.say(&["report", "random-1", "longer"]);
    assert!(said.code == 1 && said.stderr.contains("differ in training.tokens"), "{}", said.stderr);
    let said = world.say(&["report", "random-1", "random-1"]);
    assert!(said.code == 1 && said.stderr.contains("named twice"), "{}", said.stderr);
}

#[test]
fn a_campaign_is_reported_while_it_runs() {
    let mut world = thorough("report_live");
    world.set("FAKE_TRAINER", "slow 0.1");
    let run = world.start();
    let begun = |world: &World| world.say(&["list"]).stdout.contains("small");
    world.wait_until("there is a campaign", begun);
    assert_eq!(world.say(&["report"]).code, 0, "before anything is evaluated");
    world.wait_until("something is evaluated", |world| world.count("evaluations") >= 7);
    let said = world.say(&["report"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("small, running: "), "{}", said.stdout);
    assert!(json(&world, &[])["findings"]["front"].as_array().is_some_and(|list| !list.is_empty()));
    run.kill();
    assert!(world.say(&["report"]).stdout.contains("small, paused: "));
}

#[test]
fn a_black_box_is_reported_in_its_own_words() {
    let world = World::new("report_box");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/black_box.py");
    let command = format!("python3 {}", example.display());
    let optimize = ["optimize", "--command", &command, "--evaluations", "25"];
    assert_eq!(world.say(&optimize).code, 0);
    let said = world.say(&["report"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for word in [
        "the front, and who may belong to it",
        "accuracy ↑",
        "↑: more is better",
        "accuracy from 0.9",
        "25 of 25 evaluations",
    ] {
        assert!(said.stdout.contains(word), "`{word}` is not in\n{}", said.stdout);
    }
    assert!(!said.stdout.contains("tokens"), "{}", said.stdout);
    let shares = &json(&world, &[])["hypervolume"]["campaigns"][0]["shares"];
    assert_eq!(shares.as_array().map(Vec::len), Some(25));
}
