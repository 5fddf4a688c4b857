//! Workers that Slurm places.

use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::harness::{EVALUATIONS, World};
use super::pull::{Chance, Coordinator, front, world};

/// Processes of the workers that Slurm has started in this world.
fn workers(world: &World) -> Vec<i32> {
    let mark = world.folder.join("deltafront-files/small/slurm/worker-");
    let mark = mark.to_str().expect("it is UTF-8").as_bytes().to_vec();
    let is_worker = |id: &i32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.windows(mark.len()).any(|piece| piece == mark)
    };
    let processes = std::fs::read_dir("/proc").expect("it is mounted").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(is_worker).collect()
}

fn kill(id: i32) {
    let id = rustix::process::Pid::from_raw(id).expect("not 0");
    // It may have ended by itself.
    let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
}

/// What `scale` says, which must not fail.
fn scale(world: &World, arguments: &[&str]) -> String {
    let said = world.say(&[&["scale"], arguments].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.stdout
}

#[test]
fn a_campaign_through_slurm_ends_as_an_undisturbed_one() {
    let Some(mut cluster) = Cluster::start() else { return };
    let undisturbed = world("slurm_undisturbed", "");
    assert_eq!(undisturbed.say(&["run"]).code, 0);
    let mut chance = Chance(3);
    let mut world = world("slurm", "slow 2");
    world.set("SLURM_CONF", &cluster.configuration());
    let said = world.say(&["scale", "slurm", "--workers", "3"]);
    assert!(
        said.stderr.contains("no coordinator of campaign `small` has listened"),
        "{}",
        said.stderr
    );
    let mut coordinator = Coordinator::with_lease(&world, false, "3");
    coordinator.token();
    let options = ["--gres", "gpu:1", "--time", "10", "--mem", "100", "--", "--threads", "1"];
    let said = scale(&world, &[&["slurm", "--workers", "3"], &options[..]].concat());
    assert!(said.contains("3 workers submitted as job"), "{said}");
    world.wait_until("two train", |world| world.count("evaluations") >= 2);
    let said = scale(&world, &["status"]);
    assert!(said.contains("3 workers wanted, 2 at work, 1 in the queue"), "{said}");
    assert!(said.contains("Resources"), "there are two GPUs: {said}");
    // Workers, the node's daemon and the coordinator, at random.
    let first = chance.below(3) as usize;
    let mut killed: [u32; 3] = [0; 3];
    let begin = Instant::now();
    while coordinator.running.is_alive() || world.campaign()["state"] != "finished" {
        assert!(
            begin.elapsed() < Duration::from_mins(4),
            "{}\n{}",
            scale(&world, &["status"]),
            world.read("stderr.txt")
        );
        std::thread::sleep(Duration::from_millis(200 + chance.below(900)));
        let all: u32 = killed.iter().sum();
        // Each of them once in any case.
        let which = if all < 3 { (first + all as usize) % 3 } else { chance.below(3) as usize };
        if all < 9 && coordinator.running.is_alive() {
            killed[which] += 1;
            match which {
                0 => workers(&world).first().copied().into_iter().for_each(kill),
                1 => cluster.kill_node(Duration::from_millis(chance.below(1000))),
                _ => {
                    coordinator.running.0.kill().expect("it runs");
                    coordinator.running.0.wait().expect("it was killed");
                    coordinator.restart();
                }
            }
        }
        scale(&world, &["status"]);
    }
    assert!(killed.iter().all(|killed| *killed > 0), "{killed:?}");
    eprintln!("killed: workers {}, slurmd {}, coordinator {}", killed[0], killed[1], killed[2]);
    assert_eq!(world.candidates(), undisturbed.candidates());
    assert_eq!(front(&world), front(&undisturbed));
    let said = scale(&world, &["status"]);
    assert!(said.contains("campaign small is finished") && !said.contains("submitted"), "{said}");
}

#[test]
fn a_worker_that_slurm_signals_hands_back_its_work() {
    let Some(cluster) = Cluster::start() else { return };
    // The first is never answered unless it is told to stop.
    let mut world = world("slurm_signal", "patient 1");
    world.set("SLURM_CONF", &cluster.configuration());
    let coordinator = Coordinator::with_lease(&world, false, "30");
    coordinator.token();
    let options = ["slurm", "--workers", "1", "--gres", "gpu:1", "--time", "10"];
    scale(&world, &options);
    world.wait_until("it is asked", |world| world.count("evaluations") == 1);
    // Fewer are wanted: the same signal as before the time limit.
    let said = scale(&world, &["slurm", "--workers", "0", "--gres", "gpu:1", "--time", "10"]);
    assert!(said.contains("1 worker dismissed"), "{said}");
    world.wait_until("it hands back", |world| {
        world.read("stderr.txt").contains("hands back its work")
    });
    world.wait_until("it has left", |_| cluster.say("squeue", &["-h"]).is_empty());
    scale(&world, &options);
    world.wait_until("it is finished", |world| world.campaign()["state"] == "finished");
    assert_eq!(coordinator.running.code(), 0, "{}", world.read("stderr.txt"));
    assert_eq!(world.count("evaluations"), EVALUATIONS + 1);
    assert!(!world.say(&["show", "--log"]).stdout.contains("lost worker"));
}

#[test]
fn what_slurm_cannot_place_is_said_with_what_to_do() {
    let Some(cluster) = Cluster::start() else { return };
    let mut world = world("slurm_reasons", "");
    world.set("SLURM_CONF", &cluster.configuration());
    let arguments = ["--connect", "127.0.0.1:1", "--workers", "2", "--gres", "gpu:1"];
    let limit = [&["slurm", "--time", "2:00:00", "--sbatch=--comment=long"], &arguments[..]];
    let said = scale(&world, &limit.concat());
    assert!(said.contains("2 workers submitted"), "{said}");
    let said = scale(&world, &["status", "--look"]);
    assert!(said.contains("Partition") && said.contains("ask for less"), "{said}");
    let said = scale(&world, &[&["slurm", "--print"], &arguments[..]].concat());
    assert!(
        said.contains("#SBATCH --signal=B:USR1@120") && said.contains("DELTAFRONT_TOKEN=…"),
        "{said}"
    );
    let said = world.say(&[&["scale", "slurm", "--time", "soon"], &arguments[..]].concat());
    assert_eq!(said.code, 0, "those that wait are enough: {}", said.stderr);
    let said = scale(&world, &[&["slurm"], &arguments[..2], &["--workers", "0"]].concat());
    assert!(said.contains("2 workers dismissed"), "{said}");
    let said = world.say(&[&["scale", "slurm", "--time", "soon"], &arguments[..]].concat());
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("sbatch: "), "{}", said.stderr);
}
