//! A coordinator and pull workers over the loopback, each killed at random moments.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::harness::{EVALUATIONS, Running, World};

/// A campaign whose proposals do not depend on who is quick.
fn world(name: &str, trainer: &str) -> World {
    let mut world = World::new(name);
    world.edit("start = 4", "start = 4\nalgorithm = \"random\"");
    world.set("FAKE_TRAINER", trainer);
    world
}

/// Moments at random, the same ones for a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// A coordinator that trains nothing, on a port that is free.
struct Coordinator<'a> {
    world: &'a World,
    address: String,
    running: Running,
}

fn start(world: &World, arguments: &[&str], log: &str) -> Running {
    let mut command = world.command(arguments);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(world.folder.join(log));
    command.stdout(Stdio::null()).stderr(log.expect("a file"));
    Running(command.spawn().expect("the program starts"))
}

impl<'a> Coordinator<'a> {
    fn new(world: &'a World) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback is there");
        let address = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let running = Self::run(world, &address);
        Self { world, address, running }
    }

    fn run(world: &World, address: &str) -> Running {
        let arguments = ["run", "--only-workers", "--lease", "1", "--listen", address];
        start(world, &arguments, "stderr.txt")
    }

    fn token(&self) -> String {
        self.world
            .wait_until("it says its token", |world| world.read("stderr.txt").contains("--token"));
        let said = self.world.read("stderr.txt");
        let token = said.split("--token ").nth(1).expect("it is said");
        token.split_whitespace().next().expect("it is said").to_owned()
    }

    fn worker(&self, token: &str, folder: &str, more: &[&str]) -> Running {
        let mut arguments =
            vec!["worker", "--connect", &self.address, "--token", token, "--folder", folder];
        arguments.extend(more);
        start(self.world, &arguments, "workers.txt")
    }
}

/// Ends as an undisturbed campaign; how often each of the three was killed.
fn killed(seed: u64, kills: u64, undisturbed: &World) -> [u32; 3] {
    let mut chance = Chance(seed);
    let world = world(&format!("pull_{seed}"), "slow 0.2");
    let mut coordinator = Coordinator::new(&world);
    let token = coordinator.token();
    let worker = |coordinator: &Coordinator<'_>, of: usize| {
        let apart: &[&str] = if of == 1 { &[] } else { &["--apart"] };
        coordinator.worker(&token, &format!("worker{of}"), apart)
    };
    let mut workers = [worker(&coordinator, 0), worker(&coordinator, 1)];
    let mut killed = [0; 3];
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(50 + chance.below(700)));
        if !coordinator.running.is_alive() {
            break;
        }
        let which = chance.below(3) as usize;
        killed[which] += 1;
        if let Some(of) = workers.get_mut(which) {
            let fresh = worker(&coordinator, which);
            std::mem::replace(of, fresh).kill();
        } else {
            coordinator.running.0.kill().expect("it runs");
            coordinator.running.0.wait().expect("it was killed");
            std::thread::sleep(Duration::from_millis(chance.below(500)));
            coordinator.running = Coordinator::run(&world, &coordinator.address);
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
fn front(world: &World) -> Vec<(String, String)> {
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
    let (mut total, mut seed) = ([0; 3], 1);
    while total.iter().sum::<u32>() < all {
        let killed = killed(seed, 6, &undisturbed);
        total = std::array::from_fn(|which| total[which] + killed[which]);
        seed += 1;
    }
    eprintln!("killed: workers {} and {}, coordinator {}", total[0], total[1], total[2]);
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
