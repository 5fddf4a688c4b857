//! Campaigns of several targets: one device under other conditions, a command of the user's own, a device of another machine.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::harness::{EVALUATIONS, World};
use super::pull::Coordinator;

/// The same device with a longer past, in 8 bits.
const SERVER: &str = "[latency.targets.server]\ndtype = \"int8\"\ndecode_context = 2048\n";

fn worker(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/program/workers").join(name)
}

/// A campaign with these targets, of which the decode latency of one is an objective.
fn world(name: &str, targets: &str, target: &str) -> World {
    let world = World::new(name);
    let objectives =
        format!("objectives = [\"bits_per_byte\", \"decode_us\", \"decode_us.{target}\"]");
    world.edit("start = 4", &format!("start = 4\n{objectives}"));
    world.edit("[evaluator]", &format!("{targets}\n[evaluator]"));
    world
}

fn done(world: &World) -> Vec<Value> {
    let campaign = world.campaign();
    let all = campaign["candidates"].as_array().expect("a list").iter();
    all.filter(|row| row["state"] == "done").cloned().collect()
}

fn mean(row: &Value, name: &str) -> f64 {
    row["values"][name]["mean"].as_f64().unwrap_or_else(|| panic!("{name}: {row}"))
}

#[test]
fn one_device_under_two_conditions_is_timed_by_one_profiler() {
    let world = world("targets", SERVER, "server");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.stderr.matches("timing by fake-profile 1.0 on cpu: fake").count(), 1);
    assert!(said.stdout.contains("decode µs (server)"), "{}", said.stdout);
    let timed = "Timed on cpu: fake (target `server`) by fake-profile 1.0 (fake-1): int8, 1 thread, batch 1; decode with \
                 2048 in the cache, prefill of 512";
    assert!(said.stdout.contains(timed), "{}", said.stdout);
    let done = done(&world);
    assert_eq!(done.len(), EVALUATIONS);
    let differs =
        |row: &&Value| (mean(row, "decode_us") - mean(row, "decode_us.server")).abs() > 0.1;
    assert!(done.iter().any(|row| differs(&row)), "conditions of its own");
    for row in &done {
        assert!(mean(row, "prefill_us.server") > 0.0);
        // Bytes are those of [latency] itself.
        let cache = mean(row, "cache_bytes");
        assert!(cache == 0.0 || cache % 512.0 == 0.0, "{row}");
        if row["rank"] == 0 {
            assert!(row["wholes"]["decode_us.server"]["samples"].as_u64() > Some(0), "{row}");
        }
    }
    for command in [vec!["show", "small", "1"], vec!["report"], vec!["show", "--all"]] {
        let said = world.say(&command);
        assert!(said.stdout.contains("decode µs (server)"), "{command:?}: {}", said.stdout);
    }
    let list = world.say(&["list"]);
    assert_eq!(list.code, 0, "{}", list.stderr);
    let csv = world.say(&["export", "small", "--to", "csv"]);
    assert!(csv.stdout.contains("decode_us.server,decode_us.server_error"), "{}", csv.stdout);
    let roles: Vec<Value> = world.campaign()["workers"].as_array().expect("a list").clone();
    let roles: Vec<&str> = roles.iter().filter_map(|row| row["role"].as_str()).collect();
    assert_eq!(roles, ["profiler", "profiler.server", "trainer"]);
    // It goes on on the same devices alone, and with no target more or less.
    world.edit("evaluations = 8", "evaluations = 9");
    let mut world = world;
    world.set("FAKE_DEVICE", "cpu: another");
    let said = world.say(&["run"]);
    assert!(said.stderr.contains("was timed on `cpu: fake`"), "{}", said.stderr);
    world.unset("FAKE_DEVICE");
    world.edit("decode_context = 2048", "decode_context = 4096");
    let said = world.say(&["run"]);
    assert!(said.stderr.contains("latency.targets.server.decode_context"), "{}", said.stderr);
    world.edit("decode_context = 4096", "decode_context = 2048");
    assert_eq!(world.say(&["run"]).code, 0);
}

#[test]
fn a_limit_on_a_target_drops_candidates_before_they_are_trained() {
    let world = world("targets_limit", SERVER, "server");
    world.edit("[evaluator]", "[search.limits]\n\"decode_us.server\" = 150.0\n\n[evaluator]");
    world.edit(
        "[latency.targets.server]",
        "[latency]\ntime_whole_models = false\n\n[latency.targets.server]",
    );
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let campaign = world.campaign();
    let all = campaign["candidates"].as_array().expect("a list");
    let reason = |row: &&Value| row["reason"].as_str().unwrap_or_default().to_owned();
    let dropped = all.iter().filter(|row| reason(row).starts_with("decode_us.server "));
    assert!(dropped.count() > 0, "{campaign}");
    assert!(done(&world).iter().all(|row| mean(row, "decode_us.server") <= 150.0));
    assert_eq!(world.count("evaluations"), EVALUATIONS);
}

#[test]
fn a_command_of_ones_own_times_one_target_beside_the_built_in_profiler() {
    let target = format!(
        "[latency.targets.phone]\ncommand = \"python3 '{}'\"\n",
        worker("stopwatch.py").display()
    );
    let world = world("targets_own", &target, "phone");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let timing = "timing by fake-profile 1.0 on cpu: fake, stopwatch 1.0 on phone: fake";
    assert!(said.stderr.contains(timing), "{}", said.stderr);
    assert!(world.count("measurements") > 0, "parts here");
    for row in done(&world) {
        let layers = row["architecture"]["layers"].as_array().expect("a list").len() as f64;
        assert!((mean(&row, "decode_us.phone") - 10.0 * layers).abs() < 1e-9, "{row}");
        assert!(mean(&row, "decode_us") > 0.0);
    }
    // Two devices of one name could not be told apart.
    let target = target.replace("stopwatch.py", "profiler.sh").replace("python3", "sh");
    let world = self::world("targets_same", &target, "phone");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 1);
    let same = "are timed by different programs that both call their device `cpu: fake`";
    assert!(said.stderr.contains(same), "{}", said.stderr);
    assert_eq!(world.count("evaluations"), 0);
}

#[test]
fn a_worker_elsewhere_times_the_target_that_it_names() {
    let world = world("targets_elsewhere", SERVER, "server");
    let coordinator = Coordinator::that(&world, Some("--workers-time=server"), "1");
    let token = coordinator.token();
    world.wait_until("it says whom it waits for", |world| {
        world.read("stderr.txt").contains("the same line with --times --target server")
    });
    let nobody = coordinator.worker(&token, "nobody", &["--times", "--target", "phone"]);
    assert_eq!(nobody.code(), 1);
    let said = world.read("workers.txt");
    assert!(said.contains("no target `phone` to time (--target); there are only server"), "{said}");
    let there = [("FAKE_DEVICE", "cpu: far away")];
    let times =
        coordinator.worker_with(&token, "times", &["--times", "--target", "server"], &there);
    let trains = coordinator.worker(&token, "trains", &[]);
    assert_eq!(coordinator.running.code(), 0, "{}", world.read("stderr.txt"));
    assert_eq!((times.code(), trains.code()), (0, 0), "{}", world.read("workers.txt"));
    let timing = "timing by fake-profile 1.0 on cpu: fake, fake-profile 1.0 on cpu: far away";
    let said = world.read("stderr.txt");
    assert!(said.contains(timing) || said.contains("front"), "{said}");
    assert_eq!(done(&world).len(), EVALUATIONS);
    let workers = world.campaign()["workers"].clone();
    let device = |role: &str| {
        let mut all = workers.as_array().expect("a list").iter();
        all.find(|row| row["role"] == role).map(|row| row["device"].clone())
    };
    assert_eq!(device("profiler"), Some("cpu: fake".into()));
    assert_eq!(device("profiler.server"), Some("cpu: far away".into()));
    // Each was asked for its own.
    let table = world.say(&["profile", "small", "1"]);
    assert_eq!(table.code, 0, "{}", table.stderr);
}

#[test]
fn what_a_target_refuses_is_said_with_its_name() {
    let picky = worker("picky.py");
    let picky = picky.to_str().expect("a path");
    let mut gone = world(
        "targets_gone",
        "[latency.targets.gpu]\ndevice = \"cuda:0\"\ndtype = \"bf16\"\n",
        "gpu",
    );
    gone.set("DELTAFRONT_PROFILE", picky);
    gone.set("FAKE_MISSING", "cuda:0");
    let said = gone.say(&["run"]);
    assert_eq!(said.code, 1);
    let there = "latency.targets.gpu.device = \"cuda:0\" cannot be used here; name a device that `deltafront doctor` shows, \
                 or \"cpu\", or have another machine time it: --listen HOST:PORT --workers-time=gpu";
    assert!(said.stderr.contains(there), "{}", said.stderr);
    let mut refuses = world("targets_refuses", SERVER, "server");
    refuses.set("DELTAFRONT_PROFILE", picky);
    refuses.set("FAKE_REFUSES", r#"[["\"gated_delta", "no kernels for it"]]"#);
    refuses.set("FAKE_AT", "int8");
    refuses.edit("\"gated-deltanet\"", "\"swa-full\"");
    let said = refuses.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let never = "never proposed on cpu (target `server`): gdn (no kernels for it)";
    assert!(said.stderr.contains(never), "{}", said.stderr);
    assert!(refuses.candidates().iter().all(|(text, _)| !text.contains("gdn")));
    let said = refuses.say(&["run", "--listen", "127.0.0.1:0", "--workers-time=phone"]);
    assert!(said.stderr.contains("there is no target [latency.targets.phone]"), "{}", said.stderr);
}

#[test]
fn a_plan_counts_the_parts_of_all_targets() {
    let parts = |world: &World| {
        let said = world.say(&["plan", "--json"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let plan: Value = serde_json::from_str(&said.stdout).expect("JSON");
        plan["parts"].as_u64().expect("a number")
    };
    let one = parts(&World::new("targets_plan_one"));
    let two = parts(&world("targets_plan", SERVER, "server"));
    assert!(two > one + one / 2, "{two} of two targets, {one} of one");
}
