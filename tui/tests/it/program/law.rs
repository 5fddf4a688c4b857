//! `deltafront law`.

use serde_json::Value;

use super::harness::World;

/// A campaign whose losses follow a law of depth and width.
fn world(name: &str) -> World {
    let mut world = World::new(name);
    world.set("FAKE_TRAINER", "law");
    world.edit("d_model = [16, 32]", "d_model = [16, 32, 48, 64]");
    world.edit("depth = { min = 1, max = 3 }", "depth = { min = 1, max = 6 }");
    world.edit("ffn = [\"none\", \"2x\"]", "ffn = [\"2x\"]");
    world.edit("evaluations = 8", "evaluations = 30\nalgorithm = \"random\"");
    world
}

#[test]
fn depth_and_width_are_chosen_for_a_latency() {
    let world = world("law");
    assert_eq!(world.say(&["run"]).code, 0);
    let said = world.say(&["law", "small", "--budget-us", "200"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for word in [
        "bits per byte = L0 + a·D^−α + b·W^−β",
        "within 200.0 µs a token",
        "From depth 1 to 6",
        "┊",
    ] {
        assert!(said.stdout.contains(word), "`{word}` is not in\n{}", said.stdout);
    }
    let said = world.say(&["law", "small", "--budget-us", "200", "--json"]);
    let json: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((&json["trainings"], &json["stacks"]), (&30.into(), &30.into()));
    assert!(json["explained"].as_f64().expect("a share") > 0.95, "{}", json["explained"]);
    let choices = json["choices"].as_array().expect("a list");
    assert!(!choices.is_empty());
    for choice in choices {
        assert!(choice["latency_us"].as_f64().expect("µs") <= 200.0);
        // The trainer's law: 2 + 0.3/D + 8/W.
        let of = |key: &str| choice[key].as_f64().expect("a number");
        let truth = 2.0 + 0.3 / of("depth") + 8.0 / of("width");
        assert!((of("loss") - truth).abs() < 0.03, "{choice}: {truth}");
    }
    assert!(choices.is_sorted_by_key(|choice| choice["loss"].as_f64()));
    let none = world.say(&["law", "small", "--budget-us", "1"]).stdout;
    assert!(none.contains("no depth and width among those of the campaign"), "{none}");
}

#[test]
fn too_little_is_refused_with_what_to_do() {
    let world = world("law_few");
    world.edit("evaluations = 30", "evaluations = 6");
    assert_eq!(world.say(&["run"]).code, 0);
    let said = world.say(&["law", "small"]);
    assert!(said.code == 1 && said.stderr.contains("train at least 8"), "{}", said.stderr);
    let said = world.say(&["law", "small", "--budget-us", "-3"]);
    assert!(said.code == 1 && said.stderr.contains("above 0"), "{}", said.stderr);
    // Twelve stacks of two widths.
    let two = World::new("law_two");
    two.edit("evaluations = 8", "evaluations = 12");
    assert_eq!(two.say(&["run"]).code, 0);
    let said = two.say(&["law", "small"]);
    assert!(said.code == 1 && said.stderr.contains("widen `space.d_model`"), "{}", said.stderr);
}
