//! `kill -9` of the driver, at three moments, and of it and its workers at random ones; and going on.

use std::time::Duration;

use super::harness::{EVALUATIONS, World};
use super::pull::{Chance, front, world};

#[test]
fn a_campaign_goes_on_after_kill_9() {
    let undisturbed = World::new("undisturbed");
    assert_eq!(undisturbed.say(&["run"]).code, 0);

    let mut world = World::new("killed");
    world.set("FAKE_PROFILER", "slow 0.05");
    world.set("FAKE_TRAINER", "slow 0.2");
    // While parts are timed.
    let run = world.start();
    world.wait_until("parts are timed", |world| world.count("measurements") >= 3);
    run.kill();
    assert_eq!(world.count("evaluations"), 0, "nothing is trained before all parts are timed");
    let timed = world.count("measurements");
    // In the first training; and between later ones.
    for evaluations in [1, 5] {
        let run = world.start();
        world.wait_until("it trains", |world| world.count("evaluations") >= evaluations);
        run.kill();
        let state = world.campaign()["state"].clone();
        assert_eq!(state, "paused", "the lock of a dead driver is no lock");
    }
    world.set("FAKE_TRAINER", "");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("ended without a word"), "{}", said.stderr);

    assert_eq!(world.candidates(), undisturbed.candidates());
    let repeated = world.count("evaluations") - EVALUATIONS;
    assert!(repeated <= 2, "{repeated} trainings were repeated after two kills in trainings");
    let again = world.count("measurements") - undisturbed.count("measurements");
    assert!(again <= 1, "{again} timings were repeated, of {timed} before the kill");
    let log = world.say(&["show", "--log"]).stdout;
    assert_eq!(log.matches("takeover").count(), 3, "{log}");
}

/// The children of a process that run this script.
fn children(of: u32, script: &str) -> Vec<i32> {
    let is_child = |id: &i32| {
        let read = |file: &str| std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
        parent == Some(of.to_string().as_str()) && command.contains(script)
    };
    let all = std::fs::read_dir("/proc").expect("processes can be listed").flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(is_child).collect()
}

/// Ends as an undisturbed campaign; how often driver, trainers and profiler were killed.
fn killed(seed: u64, kills: u64, undisturbed: &World) -> [u32; 3] {
    let mut chance = Chance(seed);
    let mut world = world(&format!("kills_{seed}"), "slow 0.15");
    world.set("FAKE_PROFILER", "slow 0.02");
    world.edit("start = 4", "start = 4\nconcurrency = 2\nattempts = 50");
    let mut killed = [0; 3];
    let mut run = world.start();
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(20 + chance.below(400)));
        if !run.is_alive() {
            break;
        }
        let which = chance.below(3) as usize;
        if which == 0 {
            run.kill();
            run = world.start();
        } else {
            let script = ["", "trainer.sh", "profiler.sh"][which];
            let ids = children(run.0.id(), script);
            if ids.is_empty() {
                continue;
            }
            let id = ids[chance.below(ids.len() as u64) as usize];
            let id = rustix::process::Pid::from_raw(id).expect("not 0");
            // It may have ended by itself since.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        }
        killed[which] += 1;
    }
    // A worker that is killed while it is asked what it can ends the start, with what to do next.
    let mut code = run.code();
    for _ in 0..kills {
        if code == 0 {
            break;
        }
        let said = world.read("stderr.txt");
        assert!(said.contains("killed by signal 9"), "seed {seed}: {said}");
        assert!(said.contains("nothing that was finished is lost; to go on: "), "{said}");
        code = world.start().code();
    }
    assert_eq!(code, 0, "seed {seed}: {}", world.read("stderr.txt"));
    assert_eq!(world.candidates(), undisturbed.candidates(), "seed {seed}");
    assert_eq!(front(&world), front(undisturbed), "seed {seed}");
    killed
}

/// `DELTAFRONT_KILLS=200` for more.
#[test]
fn kills_of_a_driver_and_its_workers_change_nothing() {
    let all = std::env::var("DELTAFRONT_KILLS").ok().and_then(|all| all.parse().ok());
    let all: u32 = all.unwrap_or(8);
    let undisturbed = world("kills_undisturbed", "");
    assert_eq!(undisturbed.say(&["run"]).code, 0);
    let (mut total, mut seed) = ([0; 3], 1);
    while total.iter().sum::<u32>() < all {
        let killed = killed(seed, 8, &undisturbed);
        total = std::array::from_fn(|which| total[which] + killed[which]);
        seed += 1;
    }
    let [driver, trainers, profiler] = total;
    eprintln!("killed: driver {driver}, trainers {trainers}, profiler {profiler}");
}
