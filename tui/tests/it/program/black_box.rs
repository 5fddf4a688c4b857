//! `deltafront optimize`.

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use super::harness::{Running, Said, World};

fn worker() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/program/workers/black_box.py");
    format!("python3 {}", file.display())
}

fn optimize(world: &World, more: &[&str]) -> Said {
    let command = worker();
    world.say(&[&["optimize", "--command", &command, "--evaluations", "24"], more].concat())
}

/// Starts `optimize` and goes on.
fn start(world: &World) -> Running {
    let command = worker();
    let mut command =
        world.command(&["optimize", "--command", &command, "--evaluations", "24", "--seed", "5"]);
    command.stdout(Stdio::null());
    let log = std::fs::File::create(world.folder.join("stderr.txt")).expect("a file");
    Running(command.stderr(log).spawn().expect("the program starts"))
}

fn states(world: &World) -> Vec<String> {
    world.candidates().into_iter().map(|(_, state)| state).collect()
}

#[test]
fn the_worker_that_the_help_shows_is_optimised() {
    let world = World::new("box_example");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/black_box.py");
    let command = format!("python3 {}", example.display());
    let said = world.say(&["optimize", "--command", &command, "--evaluations", "30"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for word in
        ["accuracy, more is better", "accuracy ↑", "model=", "deltafront show", "30 of 30 done"]
    {
        assert!(said.stdout.contains(word), "`{word}` is not in\n{}", said.stdout);
    }
    let campaign = world.campaign();
    let rows = campaign["candidates"].as_array().expect("a list");
    let texts: HashSet<_> = rows.iter().map(|row| row["text"].to_string()).collect();
    assert_eq!(texts.len(), 30, "a point was evaluated twice");
    for row in rows {
        let given = row["parameters"].as_object().expect("an object");
        assert_eq!(given.contains_key("depth"), given["model"] == "tree", "{row}");
        assert_eq!(given.contains_key("units"), given["model"] == "net", "{row}");
    }
    // Nothing is faster than the smallest net; the most accurate have the best dropout.
    let best = |better: fn(&Value) -> f64| {
        let of = |row: &Value| better(&row["values"]);
        rows.iter().map(of).fold(f64::NEG_INFINITY, f64::max)
    };
    assert!(best(|values| -values["cost"]["mean"].as_f64().unwrap_or(9.0)) >= -1.65);
    assert!(best(|values| values["accuracy"]["mean"].as_f64().unwrap_or(0.0)) >= 0.95);
    let help = world.say(&["optimize", "--help"]).stdout;
    let shown = std::fs::read_to_string(example).expect("the example");
    assert!(shown.lines().all(|line| help.contains(line.trim())), "the help shows another worker");
    for command in [&["list"][..], &["show"], &["show", "black-box", "3"], &["show", "--log"]] {
        assert_eq!(world.say(command).code, 0, "{command:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_points_also_after_kills_and_ctrl_c() {
    let whole = World::new("box_whole");
    assert_eq!(optimize(&whole, &["--seed", "5"]).code, 0);
    let mut cut = World::new("box_cut");
    cut.set("FAKE_BOX", "slow 0.03");
    for at in [4, 13] {
        let run = start(&cut);
        cut.wait_until("it evaluates", |world| world.count("evaluations") >= at);
        run.kill();
    }
    let run = start(&cut);
    cut.wait_until("it evaluates", |world| world.count("evaluations") >= 18);
    run.interrupt();
    assert_eq!(run.code(), 130);
    let said = cut.read("stderr.txt");
    assert!(said.contains("to go on: ") && said.ends_with("deltafront optimize\n"), "{said}");
    let said = cut.say(&["optimize"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(cut.candidates(), whole.candidates());
    assert!(cut.count("evaluations") <= 24 + 3, "what was done was done again");
    assert_ne!(optimize(&World::new("box_other"), &["--seed", "6"]).stdout, "");
    let said = cut.say(&["optimize", "--seed", "6"]);
    assert!(said.code == 1 && said.stderr.contains("another --seed (5)"), "{}", said.stderr);
    // Done is done, until more is asked for.
    assert!(cut.say(&["optimize"]).stderr.contains("--evaluations above 24"));
    assert_eq!(cut.say(&["optimize", "--evaluations", "26", "--quiet"]).stderr, "");
    assert_eq!(cut.candidates().len(), 26);
}

#[test]
fn one_objective_is_shown_over_the_evaluations_and_the_best_first() {
    for (mode, title, best) in [("one less", "gain", "10.00"), ("one more", "gain ↑", "19.00")] {
        let mut world = World::new(&format!("box_{}", mode.replace(' ', "_")));
        world.set("FAKE_BOX", mode);
        let command = worker();
        let ended = world.say(&["optimize", "--command", &command, "--evaluations", "10"]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let [show, all, report] =
            [&["show"][..], &["show", "--all"], &["report"]].map(|words| world.say(words).stdout);
        for text in [&ended.stdout, &show, &all] {
            assert!(text.contains(&format!("best gain {best} by candidate")), "{text}");
            assert!(text.contains("best so far") && text.contains("evaluations"), "{text}");
            assert!(!text.contains("no candidate") && !text.contains("on the front"), "{text}");
            let table = text.split_once(&format!("  {title}  parameters\n")).expect("a table").1;
            let first = table.lines().next().expect("a row");
            assert!(first.contains('●') && first.contains(best), "{text}");
        }
        let rows = all.lines().filter(|line| line.contains("x=")).map(|line| {
            let value = line.split_whitespace().rev().nth(1).expect("a value");
            value.parse::<f64>().expect("a number")
        });
        let rows: Vec<f64> = rows.collect();
        assert_eq!(rows.len(), 10);
        assert!(rows.is_sorted_by(|a, b| if mode == "one less" { a < b } else { a > b }));
        assert!(report.contains(&format!("best so far: {title}")), "{report}");
        let last = report.lines().rfind(|line| line.trim_start().starts_with("10 "));
        assert!(last.is_some_and(|line| line.ends_with(best)), "{report}");
    }
}

#[test]
fn workers_at_once_get_different_points() {
    let mut world = World::new("box_at_once");
    world.set("FAKE_BOX", "slow 0.05");
    let said = optimize(&world, &["--workers", "6", "--plain"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("6 at once"), "{}", said.stderr);
    let asked: HashSet<String> = world
        .read("evaluations")
        .lines()
        .map(|line| {
            let request: Value = serde_json::from_str(line).expect("JSON");
            request["parameters"].to_string()
        })
        .collect();
    assert_eq!(asked.len(), 24);
}

#[test]
fn trouble_is_kept_and_learnt_from() {
    let mut world = World::new("box_trouble");
    world.set("FAKE_BOX", "trouble");
    let command = worker();
    let said = world.say(&[
        "optimize",
        "--command",
        &command,
        "--limit",
        "memory<=40",
        "--evaluations",
        "44",
    ]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let campaign = world.campaign();
    let rows = campaign["candidates"].as_array().expect("a list");
    assert_eq!(rows.len(), 44, "each try counts");
    for row in rows {
        let given = &row["parameters"];
        let expected = if given["rate"] == 0.1 {
            "failed"
        } else if given["kind"] == "b" || given["width"].as_u64() > Some(40) {
            "infeasible"
        } else {
            "done"
        };
        assert_eq!(row["state"], expected, "{row}");
        if expected == "failed" {
            assert!(row["log"].as_str().is_some_and(|log| log.contains("something to tell")));
        }
    }
    let bad = |rows: &[Value]| rows.iter().filter(|row| row["state"] != "done").count();
    let (early, late) = (bad(&rows[..22]), bad(&rows[22..]));
    assert!(late < early, "{early} of the first half of the points were bad, {late} of the last");
}

#[test]
fn a_small_space_ends_when_it_is_used_up() {
    let mut world = World::new("box_tiny");
    world.set("FAKE_BOX", "tiny");
    let said = optimize(&world, &["--workers", "3"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("the search ended early"), "{}", said.stderr);
    assert_eq!(states(&world), vec!["done"; 7]);
}

#[test]
fn bad_workers_and_words_get_one_clear_message() {
    let cases = [
        ("garbage", "must be its answer to `space`"),
        ("float", "unknown variant `float`, expected one of `categorical`"),
        ("lacking", "the result lacks the objective `speed`"),
        ("nan", "a value that is not finite is not JSON"),
    ];
    for (mode, message) in cases {
        let mut world = World::new(&format!("box_{mode}"));
        world.set("FAKE_BOX", mode);
        let said = optimize(&world, &["--give-up-after", "2"]);
        assert_eq!(said.code, 1, "{mode}: {}", said.stderr);
        assert!(said.stderr.contains(message), "{mode}: {}", said.stderr);
    }
    let mut world = World::new("box_words");
    let said = world.say(&["optimize"]);
    assert!(said.code == 1 && said.stderr.contains("--command 'python"), "{}", said.stderr);
    let said = world.say(&["optimize", "--command", "no-such-program"]);
    assert!(said.code == 1 && said.stderr.contains("exited with status 127"), "{}", said.stderr);
    assert_eq!(world.say(&["optimize", "--limit", "memory=3"]).code, 2);
    for name in ["", "two\nlines", "\u{1b}[2J", &"x".repeat(300)] {
        let said = optimize(&world, &["--name", name]);
        assert!(said.code == 1 && said.stderr.contains("1 to 100 characters"), "{}", said.stderr);
    }
    assert!(!world.folder.join("deltafront.db").exists(), "nothing is made before all is well");
    // Another space under the same name.
    assert_eq!(optimize(&world, &["--evaluations", "3"]).code, 2, "given twice");
    assert_eq!(optimize(&world, &[]).code, 0);
    world.set("FAKE_BOX", "another");
    let said = world.say(&["optimize", "--evaluations", "30"]);
    assert!(said.code == 1 && said.stderr.contains("give the campaign another --name"));
    // A campaign of stacks.
    assert_eq!(world.say(&["run"]).code, 0);
    let said = optimize(&world, &["--name", "small"]);
    assert!(said.code == 1 && said.stderr.contains("is one of stacks"), "{}", said.stderr);
}

#[test]
fn names_that_look_alike_have_folders_of_their_own() {
    let world = World::new("box_names");
    for name in ["lr 3", "lr/3", "lr_3"] {
        let words = ["optimize", "--command", &worker(), "--name", name, "--evaluations", "2"];
        let said = world.say(&words);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    let folders = std::fs::read_dir(world.folder.join("deltafront-files")).expect("they were made");
    let mut names: Vec<String> = folders
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.contains(&"lr_3".to_owned()), "a plain name is its folder: {names:?}");
}

#[test]
fn a_mistyped_limit_ends_it_at_the_first_answer() {
    let world = World::new("box_limit");
    let said = optimize(&world, &["--limit", "memroy<=16"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("the result lacks the limit on `memroy`"), "{}", said.stderr);
    let before = states(&world);
    assert_eq!(before.iter().filter(|state| *state == "failed").count(), 1, "{before:?}");
    assert!(before.iter().all(|state| state != "done"), "{before:?}");
    let said = optimize(&world, &["--limit", "memory<=1600"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(states(&world).iter().all(|state| state == "done" || state == "infeasible"));
}

#[test]
fn a_database_that_is_renamed_under_a_campaign_ends_it_and_holds_all_of_it() {
    let mut world = World::new("box_renamed");
    world.set("FAKE_BOX", "slow 0.3");
    let run = start(&world);
    world.wait_until("it evaluates", |world| world.count("evaluations") >= 4);
    let (old, new) = (world.folder.join("deltafront.db"), world.folder.join("renamed.db"));
    std::fs::rename(&old, &new).expect("it is there");
    assert_eq!(run.code(), 1);
    let said = world.read("stderr.txt");
    assert!(
        said.contains("was deleted, renamed or replaced while a campaign was at work"),
        "{said}"
    );
    assert!(
        said.contains("--db NEW-PATH") && !said.contains("nothing that was finished"),
        "{said}"
    );
    assert!(!old.exists(), "nothing is made in its place");
    world.set("FAKE_BOX", "");
    let evaluated = world.count("evaluations");
    let said = world.say(&["--db", "renamed.db", "optimize"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    // At most the one that was at work when it ended is evaluated again.
    assert!(world.count("evaluations") <= 24 + 1, "{evaluated} were evaluated before");
}
