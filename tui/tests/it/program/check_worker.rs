//! `deltafront check-worker`: what works passes, and what does not is named where it is said.

use std::path::{Path, PathBuf};

use super::harness::{Said, World};
use super::peers::{peers, say};

fn workers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/program/workers")
}

fn checked(world: &World, role: &str, command: &str) -> Said {
    world.say(&["check-worker", "--as", role, "--timeout", "20", "--command", command])
}

/// The line after the first that begins with `before`.
fn after<'a>(said: &'a Said, before: &str) -> &'a str {
    let mut lines = said.stdout.lines().skip_while(|line| !line.starts_with(before));
    lines.nth(1).unwrap_or_default()
}

#[test]
fn workers_that_keep_to_the_protocol_pass() {
    let world = World::new("check_worker");
    for (role, file) in [
        ("latency", workers().join("stopwatch.py")),
        ("black-box", Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/black_box.py")),
    ] {
        let said = checked(&world, role, &format!("python3 {}", file.display()));
        assert_eq!(said.code, 0, "{role}: {}{}", said.stdout, said.stderr);
    }
}

#[test]
fn what_is_wrong_is_said_below_the_line_that_is() {
    let trainer = workers().join("trainer.sh").to_string_lossy().into_owned();
    let cases = [
        ("garbage 1", "< ", "not a message of protocol 1"),
        ("nan 1", "< {\"type\":\"result\"", "is not finite is not JSON"),
        ("wrong_id 1", "< {\"type\":\"result\"", "this is no answer to 2"),
        ("wrong_kind 1", "< {\"type\":\"values\"", "an `evaluate` is answered by `result`"),
        ("configure", "< {\"type\":\"failed\",\"id\":0", "a campaign would end here"),
        ("mute", "  cannot load libfoo.so", "it exited with status 127 before its hello"),
        ("exit 1", "  evaluation 1 begins", "it exited with status 3 before the answer to 2"),
    ];
    let is_said = &|(place, (mode, line, what)): (usize, (&str, &str, &str))| {
        // what it counts is of a world
        let mut world = World::new(&format!("check_worker_wrong_{place}"));
        world.set("FAKE_TRAINER", mode);
        let said = world.say(&["check-worker", "--timeout", "2", "--command", &trainer]);
        assert_eq!(said.code, 1, "{mode}: {}", said.stdout);
        let found = said.stdout.lines().any(|line| line.starts_with("! ") && line.contains(what));
        assert!(found, "{mode}: {}", said.stdout);
        assert!(
            said.stdout.lines().any(|shown| shown.starts_with(line)),
            "{mode}: {}",
            said.stdout
        );
        assert!(
            said.stdout.contains("wrong with this trainer; docs/protocol.md"),
            "{}",
            said.stdout
        );
    };
    // Most of each is waiting.
    std::thread::scope(|scope| {
        for case in cases.into_iter().enumerate() {
            scope.spawn(move || is_said(case));
        }
    });
    let mut world = World::new("check_worker_wrong");
    let said = world.say(&["check-worker", "--command", &trainer]);
    let progress = "< {\"type\":\"progress\"";
    assert_eq!(
        after(&said, progress),
        "! `tokens_total` is 65536, and 4096 were asked for",
        "{}",
        said.stdout
    );
    world.set("FAKE_VALUE", "loss");
    let said = world.say(&["check-worker", "--command", &trainer]);
    assert!(
        said.code == 1
            && after(&said, "< {\"type\":\"result\"")
                .contains("no `bits_per_byte` among the values (loss, validation_loss)"),
        "{}",
        said.stdout
    );
}

#[test]
fn other_roles_are_told_what_is_wrong_too() {
    let world = World::new("check_worker_roles");
    let hello =
        r#"{"type":"hello","protocol":1,"worker":"mine","can":["measure_whole"],"device":"phone"}"#;
    for (role, script, what) in [
        (
            "trainer",
            r#"echo '{"type":"hello","protocol":9,"worker":"w","can":[],"device":"d"}'; cat >/dev/null"#,
            "it speaks protocol 9, and this is 1",
        ),
        ("trainer", &format!("echo '{hello}'"), "`can` lacks \"evaluate\""),
        (
            "latency",
            &format!(
                r#"echo '{hello}'; read -r _; read -r _; echo '{{"type":"timing","id":1,"median_us":0,"spread_us":0,"samples":0,"other_load":0,"kernels":""}}'; cat >/dev/null"#
            ),
            "`median_us` is 0",
        ),
        (
            "black-box",
            r#"read -r _; echo '{"type":"space","parameters":[{"name":"x","type":"integer","low":3,"high":1}],"objectives":["y"]}'; cat >/dev/null"#,
            "this space is not possible: ",
        ),
        (
            "black-box",
            r#"read -r _; echo '{"type":"space","parameters":[{"name":"x","type":"integer","low":1,"high":3}],"objectives":["y"]}'; read -r _; echo '{"type":"values","id":1,"values":{"z":1}}'; sleep 30"#,
            "the values lack y",
        ),
        ("black-box", "cat >/dev/null; sleep 60", "its answer did not come within"),
    ] {
        let said =
            world.say(&["check-worker", "--as", role, "--timeout", "1", "--command", script]);
        let found = said.stdout.lines().any(|line| line.starts_with("! ") && line.contains(what));
        assert!(said.code == 1 && found, "{script}: {}{}", said.stdout, said.stderr);
    }
}

#[test]
fn our_trainer_and_the_example_in_pytorch_pass_and_the_example_ends_a_campaign() {
    let [python, trainer] = match peers() {
        Ok(found) => found,
        Err(sentence) => return say(&sentence),
    };
    let mut world = World::new("check_worker_real");
    world.set("OMP_NUM_THREADS", "1");
    world.set("DELTAFRONT", env!("CARGO_BIN_EXE_deltafront"));
    world.set("HF_HOME", "huggingface");
    world.set("DELTAFRONT_TRAIN", trainer.to_str().expect("the path is UTF-8"));
    let said = world.say(&["check-worker", "--command", &trainer.to_string_lossy()]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/pytorch_trainer.py");
    let command = format!("{} {}", python.display(), example.display());
    let said = world.say(&["check-worker", "--command", &command]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(said.stdout.matches("< {\"type\": \"result\"").count(), 3, "{}", said.stdout);
    assert!(said.stdout.contains("\"reason\": \"stopped\""), "{}", said.stdout);
    world.edit("[evaluator]", &format!("[evaluator]\ncommand = {command:?}"));
    world.edit("tokens = 65_536", "tokens = 8192\nbatch = 4\nsequence_length = 64\nthreads = 1");
    world.edit("evaluations = 8", "evaluations = 2");
    world.edit("references = [\"full-attention\", \"gated-deltanet\"]", "references = []");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let campaign = world.campaign();
    let rows = campaign["candidates"].as_array().expect("a list");
    let done = rows.iter().filter(|row| row["state"] == "done");
    for row in done.clone() {
        let bits = row["values"]["bits_per_byte"]["mean"].as_f64().expect("a value");
        assert!((0.0..8.0).contains(&bits), "{row}");
    }
    assert_eq!(done.count(), 2, "{rows:?}");
}
