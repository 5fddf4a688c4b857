//! A coordinator and pull workers over the loopback, each killed at random moments.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::harness::{EVALUATIONS, Running, World};

/// A campaign whose proposals do not depend on who is quick.
pub(super) fn world(name: &str, trainer: &str) -> World {
    let mut world = World::new(name);
    world.edit("start = 4", "start = 4\nalgorithm = \"random\"");
    world.set("FAKE_TRAINER", trainer);
    world
}

/// Moments at random, the same ones for a seed.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// A coordinator that trains nothing, on a port that is free.
pub(super) struct Coordinator<'a> {
    world: &'a World,
    address: String,
    pub(super) running: Running,
    lease: &'static str,
    /// Whether workers time, or which targets they do.
    workers_time: Option<&'static str>,
}

fn start(world: &World, arguments: &[&str], log: &str, variables: &[(&str, &str)]) -> Running {
    let mut command = world.command(arguments);
    command.envs(variables.iter().copied());
    let log = std::fs::OpenOptions::new().create(true).append(true).open(world.folder.join(log));
    command.stdout(Stdio::null()).stderr(log.expect("a file"));
    Running(command.spawn().expect("the program starts"))
}

/// Where no trainer is, and no profiler.
const NOWHERE: [(&str, &str); 2] =
    [("DELTAFRONT_TRAIN", "/nowhere/train"), ("DELTAFRONT_PROFILE", "/nowhere/profile")];

impl<'a> Coordinator<'a> {
    /// One that times by itself.
    fn new(world: &'a World) -> Self {
        Self::with(world, false)
    }

    fn with(world: &'a World, workers_time: bool) -> Self {
        Self::with_lease(world, workers_time, "1")
    }

    /// One that waits so many seconds for workers of which nothing is heard.
    pub(super) fn with_lease(world: &'a World, workers_time: bool, lease: &'static str) -> Self {
        Self::that(world, workers_time.then_some("--workers-time"), lease)
    }

    /// One that leaves to workers what this option says.
    pub(super) fn that(
        world: &'a World,
        workers_time: Option<&'static str>,
        lease: &'static str,
    ) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback is there");
        let address = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let running = Self::run(world, &address, workers_time, lease);
        Self { world, address, running, lease, workers_time }
    }

    fn run(world: &World, address: &str, workers_time: Option<&str>, lease: &str) -> Running {
        let mut arguments = vec!["run", "--only-workers", "--lease", lease, "--listen", address];
        arguments.extend(workers_time);
        let nowhere =
            if workers_time == Some("--workers-time") { &NOWHERE[..] } else { &NOWHERE[..1] };
        start(world, &arguments, "stderr.txt", nowhere)
    }

    /// The next one, after this one is killed.
    pub(super) fn restart(&mut self) {
        self.running = Self::run(self.world, &self.address, self.workers_time, self.lease);
    }

    pub(super) fn token(&self) -> String {
        self.world
            .wait_until("it says its token", |world| world.read("stderr.txt").contains("--token"));
        let said = self.world.read("stderr.txt");
        let token = said.split("--token ").nth(1).expect("it is said");
        token.split_whitespace().next().expect("it is said").to_owned()
    }

    pub(super) fn worker(&self, token: &str, folder: &str, more: &[&str]) -> Running {
        self.worker_with(token, folder, more, &[])
    }

    pub(super) fn worker_with(
        &self,
        token: &str,
        folder: &str,
        more: &[&str],
        variables: &[(&str, &str)],
    ) -> Running {
        let mut arguments =
            vec!["worker", "--connect", &self.address, "--token", token, "--folder", folder];
        arguments.extend(more);
        start(self.world, &arguments, "workers.txt", variables)
    }
}

/// Ends as an undisturbed campaign; how often each of the four was killed: two that train, one that times, the coordinator.
fn killed(seed: u64, kills: u64, undisturbed: &World) -> [u32; 4] {
    let mut chance = Chance(seed);
    let mut world = world(&format!("pull_{seed}"), "slow 0.2");
    world.set("FAKE_PROFILER", "slow 0.02");
    let mut coordinator = Coordinator::with(&world, true);
    let token = coordinator.token();
    let worker = |coordinator: &Coordinator<'_>, of: usize| {
        let more: &[&str] = [&["--apart"][..], &[], &["--times"]][of];
        coordinator.worker(&token, &format!("worker{of}"), more)
    };
    let mut workers = [0, 1, 2].map(|of| worker(&coordinator, of));
    let mut killed = [0; 4];
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(50 + chance.below(700)));
        if !coordinator.running.is_alive() {
            break;
        }
        let which = chance.below(4) as usize;
        killed[which] += 1;
        if let Some(of) = workers.get_mut(which) {
            let fresh = worker(&coordinator, which);
            std::mem::replace(of, fresh).kill();
        } else {
            coordinator.running.0.kill().expect("it runs");
            coordinator.running.0.wait().expect("it was killed");
            std::thread::sleep(Duration::from_millis(chance.below(500)));
            coordinator.restart();
        }
    }
    world.wait_until("it is finished", |world| {
        let said = world.read("stderr.txt");
        said.contains("front") && world.campaign()["state"] == "finished"
    });
    assert_eq!(coordinator.running.code(), 0, "{}", world.read("stderr.txt"));
    for mut of in workers {
        // One that came when all was over waits for a coordinator that does not come again.
        let begin = Instant::now();
        while of.is_alive() && begin.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if of.is_alive() {
            of.kill();
        } else {
            assert_eq!(of.code(), 0, "{}", world.read("workers.txt"));
        }
    }
    assert_eq!(world.candidates(), undisturbed.candidates(), "seed {seed}");
    assert_eq!(front(&world), front(undisturbed), "seed {seed}");
    killed
}

/// The identities and losses of the front.
pub(super) fn front(world: &World) -> Vec<(String, String)> {
    let campaign = world.campaign();
    let candidates = campaign["candidates"].as_array().expect("a list").iter();
    let members = candidates.filter(|row| row["rank"] == 0);
    members.map(|row| (row["id"].to_string(), row["values"]["bits_per_byte"].to_string())).collect()
}

/// `DELTAFRONT_KILLS=200` for more.
#[test]
fn kills_of_coordinator_and_workers_change_nothing() {
    let all = std::env::var("DELTAFRONT_KILLS").ok().and_then(|all| all.parse().ok());
    let all: u32 = all.unwrap_or(6);
    let undisturbed = world("pull_undisturbed", "");
    assert_eq!(undisturbed.say(&["run"]).code, 0);
    let (mut total, mut seed) = ([0; 4], 1);
    while total.iter().sum::<u32>() < all {
        let killed = killed(seed, 6, &undisturbed);
        total = std::array::from_fn(|which| total[which] + killed[which]);
        seed += 1;
    }
    let [first, second, times, coordinator] = total;
    eprintln!(
        "killed: trainers {first} and {second}, who times {times}, coordinator {coordinator}"
    );
}

#[test]
fn a_worker_needs_the_token_and_finds_out_whom_it_speaks_to() {
    let world = world("pull_token", "slow 0.1");
    let coordinator = Coordinator::new(&world);
    let token = coordinator.token();
    let (secret, fingerprint) = token.split_once('.').expect("two parts");
    let other = format!("{}.{fingerprint}", "0".repeat(secret.len()));
    assert_eq!(coordinator.worker(&other, "stranger", &[]).code(), 1);
    assert!(world.read("workers.txt").contains("the token is not this campaign's"));
    let elsewhere = format!("{secret}.{}", "0".repeat(fingerprint.len()));
    let mut deceived = coordinator.worker(&elsewhere, "deceived", &[]);
    world.wait_until("it sees through it", |world| {
        world.read("workers.txt").contains("not the coordinator of this token")
    });
    assert!(deceived.is_alive(), "it waits for the right one");
    assert_eq!(world.count("evaluations"), 0);
    let worker = coordinator.worker(&token, "worker", &["--corpus", "corpus.txt"]);
    assert_eq!(coordinator.running.code(), 0, "{}", world.read("stderr.txt"));
    assert_eq!(worker.code(), 0);
    assert_eq!(world.count("evaluations"), EVALUATIONS);
}

#[test]
fn what_a_worker_that_times_refuses_is_said_at_the_start() {
    let workers = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/program/workers");
    let picky = workers.join("picky.py");
    let picky = picky.to_str().expect("a path");
    for (name, variable, expected) in [
        (
            "pull_refuses",
            ("FAKE_REFUSES", r#"[["\"gated_delta", "no kernels for it"]]"#),
            "never proposed on cpu: gdn (no kernels for it)",
        ),
        ("pull_fails", ("FAKE_FAILS", "set `dtype`"), "can be timed on cpu: picky: set `dtype`"),
    ] {
        let world = world(name, "");
        world.edit("\"gated-deltanet\"", "\"swa-full\"");
        let coordinator = Coordinator::with(&world, true);
        let token = coordinator.token();
        let variables = [("DELTAFRONT_PROFILE", picky), variable];
        let _times = coordinator.worker_with(&token, "times", &["--times"], &variables);
        world.wait_until("it is asked", |world| world.read("stderr.txt").contains(expected));
        assert_eq!(world.count("checks"), 1);
        assert_eq!(world.count("evaluations"), 0, "before anything is spent");
        if variable.0 == "FAKE_FAILS" {
            assert_eq!(coordinator.running.code(), 1, "{}", world.read("stderr.txt"));
            continue;
        }
        let _trains = coordinator.worker(&token, "trains", &[]);
        assert_eq!(coordinator.running.code(), 0, "{}", world.read("stderr.txt"));
        assert!(world.candidates().iter().all(|(text, _)| !text.contains("gdn")));
    }
}

#[test]
fn a_worker_that_leaves_hands_back_what_it_is_at() {
    let world = world("pull_hand_back", "patient 1");
    let coordinator = Coordinator::new(&world);
    let token = coordinator.token();
    let leaves = coordinator.worker(&token, "leaves", &[]);
    world.wait_until("it is asked", |world| world.count("evaluations") == 1);
    // What a batch system sends shortly before it ends a job.
    leaves.signal(rustix::process::Signal::USR1);
    assert_eq!(leaves.code(), 0, "{}", world.read("workers.txt"));
    assert!(world.read("workers.txt").contains("what was begun is given back"));
    let idle = coordinator.worker(&token, "idle", &[]);
    assert_eq!(coordinator.running.code(), 0, "{}", world.read("stderr.txt"));
    assert_eq!(idle.code(), 0);
    assert!(world.read("stderr.txt").contains("leaves and hands back its work"));
    assert_eq!(world.count("evaluations"), EVALUATIONS + 1, "nothing else is done twice");
    let log = world.say(&["show", "--log"]).stdout;
    assert!(log.contains("handed back") && !log.contains("lost worker"), "{log}");
    for folder in ["leaves", "idle"] {
        let files = std::fs::read_dir(world.folder.join(folder)).expect("its folder is there");
        let names: Vec<_> = files.flatten().map(|file| file.file_name()).collect();
        let kept = names.iter().any(|name| name.to_string_lossy().starts_with("checkpoints-"));
        assert!(!kept, "checkpoints go with their campaign: {names:?}");
    }
}

/// The same by a limit of time that is over, as `sbatch --signal=B:USR1@…` has it.
#[test]
fn a_worker_whose_time_is_over_hands_back_what_it_is_at() {
    let world = world("pull_time_limit", "patient 1");
    let coordinator = Coordinator::new(&world);
    let token = coordinator.token();
    let mut command = std::process::Command::new("timeout");
    command.args(["--preserve-status", "--signal=USR1", "--kill-after=30", "3"]);
    command.arg(env!("CARGO_BIN_EXE_deltafront"));
    command.args(["worker", "--connect", &coordinator.address, "--token", &token]);
    command.args(["--folder", "limited"]);
    world.surround(&mut command);
    let output = command.output().expect("coreutils are there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("what was begun is given back"), "{said}");
    assert_eq!(world.count("evaluations"), 1);
    let next = coordinator.worker(&token, "next", &[]);
    assert_eq!(coordinator.running.code(), 0, "{}", world.read("stderr.txt"));
    assert_eq!(next.code(), 0);
    assert_eq!(world.count("evaluations"), EVALUATIONS + 1, "nothing else is done twice");
    let log = world.say(&["show", "--log"]).stdout;
    assert!(log.contains("handed back") && !log.contains("lost worker"), "{log}");
}

#[test]
fn a_worker_that_nobody_answers_gives_up() {
    let world = world("pull_patience", "");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback is there");
    let address = free.local_addr().expect("it is bound").to_string();
    drop(free);
    let token = format!("{}.{}", "0".repeat(32), "0".repeat(64));
    let arguments = ["worker", "--connect", &address, "--token", &token, "--patience", "0.5"];
    let said = world.say(&arguments);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("for 0.5 s (--patience)"), "{}", said.stderr);
}

#[test]
fn who_times_does_so_on_the_device_of_the_campaign_one_at_a_time() {
    let mut world = world("pull_times", "slow 0.1");
    world.set("FAKE_PROFILER", "slow 0.02");
    let coordinator = Coordinator::with(&world, true);
    let token = coordinator.token();
    let trains = coordinator.worker(&token, "trains", &[]);
    let times = coordinator.worker(&token, "times", &["--times"]);
    world.wait_until("one times", |world| world.count("measurements") > 0);
    let second = coordinator.worker(&token, "second", &["--times"]);
    world.wait_until("another one waits", |world| {
        world.read("stderr.txt").contains("waits: somebody times on its device")
    });
    times.kill();
    let other = [("FAKE_DEVICE", "cpu: another")];
    let other = coordinator.worker_with(&token, "other", &["--times"], &other);
    assert_eq!(other.code(), 1);
    let said = world.read("workers.txt");
    assert!(said.contains("timed on `cpu: fake`, and this is `cpu: another`"), "{said}");
    assert_eq!(coordinator.running.code(), 0, "{}", world.read("stderr.txt"));
    assert_eq!((trains.code(), second.code()), (0, 0));
    assert_eq!(world.count("evaluations"), EVALUATIONS);
    let log = world.say(&["show", "--log"]).stdout;
    assert!(log.contains("worker refused"), "{log}");
}

#[test]
fn workers_train_in_the_numbers_that_the_first_one_found_best() {
    let world = world("pull_precision", "slow 0.2");
    let coordinator = Coordinator::new(&world);
    let token = coordinator.token();
    let first = coordinator.worker_with(&token, "first", &[], &[("FAKE_AUTO", "fp32")]);
    world.wait_until("it is asked", |world| world.count("evaluations") > 0);
    let apart = world.folder.join("second");
    std::fs::create_dir_all(&apart).expect("the scratch folder is writable");
    let apart = apart.to_str().expect("it is UTF-8");
    let variables = [("FAKE_AUTO", "bf16"), ("FAKE_FOLDER", apart)];
    let second = coordinator.worker_with(&token, "second", &[], &variables);
    world.wait_until("it does as the first", |world| {
        world.read("second/configuration").contains(r#""precision":"fp32""#)
    });
    assert_eq!(coordinator.running.code(), 0, "{}", world.read("stderr.txt"));
    assert_eq!((first.code(), second.code()), (0, 0));
    assert!(world.read("configuration").contains(r#""precision":"fp32""#));
}
