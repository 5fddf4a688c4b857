//! Mistakes of a setup end the start: one message, nothing spent.

use super::harness::{Said, World};

fn picky(name: &str) -> World {
    let mut world = World::new(name);
    let workers = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/program/workers");
    world.set("DELTAFRONT_PROFILE", workers.join("picky.py").to_str().expect("a path"));
    world
}

fn refused(world: &World) -> Said {
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert_eq!(said.stdout, "");
    assert_eq!(world.count("evaluations"), 0);
    assert_eq!(world.say(&["list"]).stdout.matches("small").count(), 0, "no campaign began");
    said
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let mut world = picky("no_device");
    world.set("FAKE_MISSING", "1");
    world.edit("[evaluator]", "[latency]\ndevice = \"cuda:0\"\ndtype = \"bf16\"\n\n[evaluator]");
    let said = refused(&world);
    assert!(
        said.stderr.contains(
            "campaign.toml: latency.device = \"cuda:0\" cannot be used here; name a device that `deltafront doctor` \
             shows, or \"cpu\""
        ),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("no GPU 0"), "{}", said.stderr);
}

#[test]
fn what_makes_every_model_impossible_is_said_at_the_start() {
    let mut world = picky("all_fail");
    let reason = "weights on a GPU are bf16, not fp32: set `dtype = \"bf16\"` in [latency]";
    world.set("FAKE_FAILS", reason);
    let said = refused(&world);
    assert!(said.stderr.contains(reason), "{}", said.stderr);
    assert!(said.stderr.contains("nothing of [space] can be timed on cpu"), "{}", said.stderr);
}

#[test]
fn a_gene_of_which_nothing_is_left_ends_the_start() {
    let mut world = picky("no_gene");
    let reason = "the head width must be a multiple of 64, got 8";
    world.set("FAKE_REFUSES", &format!(r#"[["layers", "{reason}"]]"#));
    let said = refused(&world);
    assert!(
        said.stderr.contains(&format!(
            "campaign.toml: space.mixers: nothing of it can be computed there: {reason}"
        )),
        "{}",
        said.stderr
    );
}

#[test]
fn what_is_refused_while_others_remain_is_said_once_and_not_proposed() {
    let mut world = picky("some_refused");
    world.set(
        "FAKE_REFUSES",
        r#"[["\"gated_delta", "no kernels for it"], ["\"window\": 16", "windows of 16 are too short"]]"#,
    );
    world.edit("window = [16]", "window = [16, 32]");
    world.edit("\"gated-deltanet\"", "\"swa-full\"");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let lines: Vec<&str> =
        said.stderr.lines().filter(|line| line.starts_with("never proposed")).collect();
    assert_eq!(
        lines,
        [
            "never proposed on cpu: swa window 16 (windows of 16 are too short)",
            "never proposed on cpu: gdn (no kernels for it)",
        ]
    );
    let all = world.candidates();
    assert!(all.len() >= 8);
    let proposed = |(text, _): &&(String, String)| text.contains("gdn(") || text.contains("w=16");
    assert_eq!(all.iter().find(proposed), None);
    // Asked once more when it goes on, and said again.
    world.edit("evaluations = 8", "evaluations = 9");
    let said = world.say(&["run"]);
    assert_eq!(said.stderr.matches("never proposed").count(), 2, "{}", said.stderr);
}

#[test]
fn a_reference_that_cannot_be_evaluated_is_named() {
    let mut world = picky("reference");
    world.set("FAKE_REFUSES", r#"[["\"gated_delta", "no kernels for it"]]"#);
    let said = world.say(&["run"]);
    assert!(
        said.stderr.contains("reference `gated-deltanet` cannot be evaluated: no kernels for it"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_plan_goes_through_the_campaign_and_writes_nothing() {
    let mut world = World::new("plan");
    world.set("FAKE_TRAINER", "slow 0.05");
    let said = world.say(&["plan"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for expected in
        ["plan for campaign small", "parts to time", "trainings", "8 evaluations", "on disk"]
    {
        assert!(said.stdout.contains(expected), "{expected}: {}", said.stdout);
    }
    assert!(!world.folder.join("deltafront.db").exists());
    assert!(!world.folder.join("deltafront-files").exists());
    let json = world.say(&["plan", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((plan["evaluations"].as_u64(), plan["trainings"].as_u64()), (Some(8), Some(8)));
    // What the trainer says that a training takes, half a second, is what counts.
    let training = plan["training_seconds"].as_f64().expect("a number");
    assert!((3.0..6.0).contains(&training), "{plan}");
    assert_eq!(world.say(&["run"]).code, 0);
}
