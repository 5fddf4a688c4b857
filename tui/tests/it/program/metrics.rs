//! What a run tells Prometheus.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use super::harness::{Running, World};

/// The answer to a GET, head and body.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("the request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is UTF-8");
    answer
}

/// The number of a metric, by the beginning of its line.
fn number(metrics: &str, metric: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric))?;
    line.trim().parse().ok()
}

#[test]
fn a_run_tells_prometheus_how_far_it_is() {
    let mut world = World::new("metrics");
    world.edit("evaluations = 8", "evaluations = 14");
    assert_eq!(world.say(&["run"]).code, 0);
    // It goes on, and its trainer answers no more.
    world.edit("evaluations = 14", "evaluations = 17");
    world.edit("timeout_seconds = 60.0", "timeout_seconds = 2.0");
    world.set("FAKE_TRAINER", "hang *");
    let mut command = world.command(&["run", "--metrics", "127.0.0.1:0"]);
    let log = std::fs::File::create(world.folder.join("stderr.txt")).expect("a file");
    let run = Running(command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts"));
    world.wait_until("it says where", |world| world.read("stderr.txt").contains("/metrics\n"));
    let stderr = world.read("stderr.txt");
    let address = stderr.lines().find_map(|line| line.strip_prefix("metrics at http://"));
    let address = address.and_then(|line| line.strip_suffix("/metrics")).expect("it says where");
    let of = |labels: &str| format!("{{campaign=\"small\"{labels}}} ");
    let mut metrics = String::new();
    let timeouts = format!("deltafront_failed_attempts_total{}", of(",kind=\"timeout\""));
    let busy = format!("deltafront_workers{}", of(",role=\"trainer\",state=\"busy\""));
    world.wait_until("an attempt has failed and the next one is begun", |_| {
        metrics = get(address, "/metrics");
        (number(&metrics, &timeouts), number(&metrics, &busy)) == (Some(1.0), Some(1.0))
    });
    assert!(metrics.starts_with("HTTP/1.1 200 OK"), "{metrics}");
    assert!(metrics.contains("content-type: application/openmetrics-text"), "{metrics}");
    for (metric, labels, expected) in [
        ("evaluations", "", 14.0),
        ("evaluations_wanted", "", 17.0),
        ("candidates", ",state=\"done\"", 14.0),
        ("candidates", ",state=\"training\"", 1.0),
        ("workers", ",role=\"profiler\",state=\"idle\"", 1.0),
        ("failed_attempts_total", ",kind=\"crashed\"", 0.0),
    ] {
        let found = number(&metrics, &format!("deltafront_{metric}{}", of(labels)));
        assert_eq!(found, Some(expected), "{metric} {labels}\n{metrics}");
    }
    let best = number(&metrics, &format!("deltafront_best{}", of(",value=\"bits_per_byte\"")));
    assert!(best.is_some_and(|best| (2.0..3.0).contains(&best)), "{best:?}");
    let hypervolume = number(&metrics, &format!("deltafront_hypervolume{}", of("")));
    assert!(hypervolume.is_some_and(|share| share >= 1.0), "{hypervolume:?}\n{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(get(address, "/secrets").starts_with("HTTP/1.1 404"));
    run.kill();
}

#[test]
fn metrics_are_for_this_machine_unless_it_is_said() {
    let world = World::new("metrics-refused");
    let said = world.say(&["run", "--metrics", "0.0.0.0:9184"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.contains("name 127.0.0.1:9184, or add --metrics-anywhere"),
        "{}",
        said.stderr
    );
    assert!(!world.folder.join("deltafront.db").exists(), "nothing was begun");
    let said = world.say(&["run", "--metrics", "0.0.0.0:0", "--metrics-anywhere"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}
