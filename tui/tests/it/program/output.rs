//! What the commands print.

use serde_json::Value;

use super::harness::World;

/// Without what differs from run to run (times) and what has tests of its own (plots and drawings).
fn steady(text: &str) -> String {
    let mut is_plot = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("validation bits per byte") || line.trim_start().starts_with("width ") {
            is_plot = true;
            lines.push("[plot]".to_owned());
        } else if line.is_empty() || line.starts_with('#') {
            is_plot &= !line.starts_with('#');
        }
        if is_plot {
            continue;
        }
        lines.push(match line.split_once("; seed") {
            Some((before, after)) => {
                let seed: String = after.chars().take_while(|c| *c != ',').collect();
                format!("{before}; seed{seed}, [time]")
            }
            None => line.to_owned(),
        });
    }
    lines.join("\n")
}

/// A throughput is asked for, plainly: more of it is better.
#[test]
fn a_campaign_that_maximises_throughput() {
    let mut world = World::new("throughput");
    world.set("FAKE_FIXED", "1");
    world.edit("[search]\n", "[search]\nobjectives = [\"throughput\", \"bits_per_byte\"]\n");
    world.edit("[evaluator]", "[latency]\nmemory_budget_mb = 1\n\n[evaluator]");
    world.edit("[evaluator]", "[search.limits]\nthroughput = { min = 60_000.0 }\n\n[evaluator]");
    let run = world.say(&["run", "--plain"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    insta::assert_snapshot!("throughput", steady(&run.stdout));
    let campaign = world.campaign();
    assert_eq!(campaign["objectives"], serde_json::json!(["-throughput", "bits_per_byte"]));
    // All losses are equal: the front is the fastest.
    let rows = campaign["candidates"].as_array().expect("a list");
    let throughput = |row: &&Value| row["values"]["throughput"]["mean"].as_f64().unwrap_or(0.0);
    let done = || rows.iter().filter(|row| row["state"] == "done");
    let most = done().map(|row| throughput(&row)).fold(0.0, f64::max);
    for row in done() {
        assert_eq!(row["rank"] == 0, throughput(&row) >= most, "{row}");
    }
    let dropped = rows.iter().filter(|row| row["state"] == "infeasible");
    let mut reasons = dropped.filter_map(|row| row["reason"].as_str());
    assert!(reasons.all(|reason| reason.contains(" is under the limit of 60000")));
    // On again with the minus: the same objective.
    world.edit("[\"throughput\",", "[\"-throughput\",");
    world.edit("evaluations = 8", "evaluations = 9");
    let again = world.say(&["run"]);
    assert!(again.code == 1 && again.stderr.contains("search.objectives"), "{}", again.stderr);
    let report = world.say(&["report"]).stdout;
    let scale = report.lines().find(|line| line.starts_with("Scale: tokens/s from "));
    assert!(report.contains("tokens/s ↑") && scale.is_some(), "{report}");
}

#[test]
fn list_show_and_export() {
    let mut world = World::new("output");
    // Numbers that a change of the wire's form does not change.
    world.set("FAKE_FIXED", "1");
    // The reference stacks alone: what the search proposes has tests of its own.
    world.edit("evaluations = 8", "evaluations = 2");
    let run = world.say(&["run"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    insta::assert_snapshot!("run_stdout", steady(&run.stdout));
    insta::assert_snapshot!("run_stderr", run.stderr);
    insta::assert_snapshot!("show", steady(&world.say(&["show"]).stdout));
    insta::assert_snapshot!("show_candidate", steady(&world.say(&["show", "small", "1"]).stdout));
    let list = world.say(&["list"]).stdout;
    let list: Vec<&str> =
        list.lines().map(|line| line.rsplit_once("  ").map_or(line, |parts| parts.0)).collect();
    insta::assert_snapshot!("list", list.join("\n"));
    assert_eq!(world.say(&["show", "--config"]).stdout, world.read("campaign.toml"));

    let json = world.say(&["export", "small", "full-attention"]);
    let config: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let text = config["text"].as_str().expect("a text");
    let stack: search::Architecture = text.parse().expect("an architecture");
    let layers: search::Architecture =
        serde_json::from_value(config["architecture"].clone()).expect("an architecture");
    assert_eq!(layers, stack);
    assert_eq!(config["id"], stack.id().as_str());
    assert_eq!(config["latency"]["device"], "cpu: fake");
    assert_eq!(config["latency"]["decode_whole"]["kernels"], "fake-1");
    assert_eq!(config["values"]["bits_per_byte"]["standard_error"], 0.01);
    assert_eq!(config["provenance"]["campaign_file"], world.read("campaign.toml"));
    // TOML says the same; it has no null.
    let mut config = config;
    let conditions = config["latency"]["conditions"].as_object_mut().expect("a table");
    conditions.retain(|_, value| !value.is_null());
    assert_eq!(world.say(&["export", "small", "1", "-o", "stack.toml"]).code, 0);
    let toml: Value = toml::from_str(&world.read("stack.toml")).expect("TOML");
    assert_eq!(toml, config);
    let said = world.say(&["export", "small", "1", "-o", "stack.yaml"]);
    assert!(said.code == 1 && said.stderr.contains("--format"), "{}", said.stderr);
}

#[test]
fn latencies_taken_beside_other_work_are_marked_row_by_row() {
    let mut world = World::new("disturbed");
    world.set("FAKE_PROFILER", "loaded");
    assert_eq!(world.say(&["run"]).code, 0);
    let campaign = world.campaign();
    let rows = campaign["candidates"].as_array().expect("a list");
    for row in rows {
        let with_ffn = row["text"].as_str().expect("a text").contains("ffn(");
        let expected =
            if with_ffn { serde_json::json!(["decode_us"]) } else { serde_json::json!([]) };
        assert_eq!(row["disturbed"], expected, "{row}");
    }
    assert!(rows.iter().any(|row| row["disturbed"][0] == "decode_us"), "some have such a part");
    let shown = world.say(&["show", "--all"]).stdout;
    let explained = "~: other processes loaded the machine";
    assert!(shown.contains(" ~ ") && shown.contains(explained), "{shown}");
    let number = rows.iter().position(|row| row["disturbed"][0] == "decode_us");
    let number = (number.expect("some have") + 1).to_string();
    let shown = world.say(&["show", "small", &number]).stdout;
    let decode = shown.lines().find(|line| line.starts_with("decode µs")).expect("a latency");
    assert!(decode.contains('~'), "{shown}");
    let quiet = World::new("undisturbed_rows");
    assert_eq!(quiet.say(&["run"]).code, 0);
    let shown = quiet.say(&["show", "--all"]).stdout;
    assert!(!shown.contains('~'), "{shown}");
}

#[test]
fn help_schema_and_completions() {
    let world = World::new("help");
    insta::assert_snapshot!("help", world.say(&["--help"]).stdout);
    let schema: Value = serde_json::from_str(&world.say(&["schema"]).stdout).expect("JSON");
    assert!(schema["properties"]["space"].is_object(), "{schema}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = world.say(&["completions", shell]);
        assert!(said.code == 0 && said.stdout.contains("deltafront"), "{shell}");
    }
}

#[test]
fn doctor_finds_what_stands_in_the_way() {
    let mut world = World::new("doctor");
    let said = world.say(&["doctor"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("fake-train 1.0, on cpu: fake"), "{}", said.stdout);
    assert!(said.stdout.contains("a campaign can run here"), "{}", said.stdout);
    world.set("FAKE_TRAINER", "mute");
    world.write("deltafront.db", &"no database ".repeat(20));
    let said = world.say(&["doctor"]);
    assert_eq!(said.code, 1);
    assert!(said.stdout.contains("2 things in the way of a campaign"), "{}", said.stdout);
    assert!(said.stdout.contains("cannot load libfoo.so"), "{}", said.stdout);
    let json: Value = serde_json::from_str(&world.say(&["doctor", "--json"]).stdout).expect("JSON");
    assert_eq!(
        json.as_array().expect("a list").iter().filter(|row| row["verdict"] == "BAD").count(),
        2
    );
}

#[test]
fn an_export_replaces_nothing_that_is_not_to_be_lost() {
    let world = World::new("export_over");
    assert_eq!(world.say(&["run"]).code, 0);
    let export = |file: &str, more: &[&str]| {
        let words = [&["export", "small", "1", "--format", "json", "-o", file], more].concat();
        world.say(&words)
    };
    world.write("mine.json", "mine");
    world.write("new.json.part", "of the user's");
    std::os::unix::fs::symlink("mine.json", world.folder.join("link.json")).expect("a link");
    let cases = [
        ("mine.json", "is there already and was left alone; --force"),
        ("link.json", "is no regular file"),
        ("/dev/null", "is no regular file"),
        (".", "is no regular file"),
        ("deltafront.db", "is the database itself"),
    ];
    for (file, reason) in cases {
        let said = export(file, &[]);
        assert!(said.code == 1 && said.stderr.contains(reason), "{file}: {}", said.stderr);
    }
    for file in ["link.json", "/dev/null", "deltafront.db"] {
        assert_eq!(export(file, &["--force"]).code, 1, "{file}");
    }
    assert_eq!(world.read("mine.json"), "mine");
    assert_eq!(world.say(&["list"]).code, 0, "the database is whole");
    assert_eq!(export("mine.json", &["--force"]).code, 0);
    assert!(world.read("mine.json").contains("deltafront-stack-1"));
    assert_eq!(export("new.json", &[]).code, 0);
    assert_eq!(world.read("new.json.part"), "of the user's");
    let left = std::fs::read_dir(&world.folder).expect("a folder").filter_map(Result::ok);
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}
