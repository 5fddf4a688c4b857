//! `kill -9` of a writer.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use db::{Access, Change, Owner, Store};

use crate::samples::{campaign, done, folder, latency};

const DATABASE: &str = "DELTAFRONT_TEST_DATABASE";

/// Not a test: the process that is killed. It says the number of each candidate that is written.
#[tokio::test]
#[ignore = "the child of the test below"]
async fn child() {
    use std::io::Write;
    let path = std::env::var(DATABASE).unwrap();
    let store = Store::open(Path::new(&path), Access::ReadWrite).await.unwrap();
    let run = store.begin_run("one", &Owner::current(), "0.1.0").await.unwrap();
    let first = store.history("one").await.unwrap().candidates.len() as u32 + 1;
    for number in first.. {
        let changes = [
            Change::Candidate(done(number, 1.0, 1.0)),
            Change::Latency(latency(f64::from(number))),
        ];
        store.apply(&run, &changes).await.unwrap();
        let mut stdout = std::io::stdout();
        // The reader is gone when a test ends; nobody waits for this process then.
        if writeln!(stdout, "\nwritten {number}").and_then(|()| stdout.flush()).is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn what_was_written_survives_kill_9() {
    let path = folder("kill").join("test.db");
    let store = Store::open(&path, Access::ReadWrite).await.unwrap();
    store.create_campaign(&campaign("one")).await.unwrap();
    store.close().await;
    for kill_after in [1_u32, 7, 20] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--ignored", "--nocapture"])
            .env(DATABASE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let written: Vec<u32> = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .filter_map(|line| line.unwrap().strip_prefix("written ")?.parse().ok())
            .take(kill_after as usize)
            .collect();
        std::thread::sleep(Duration::from_millis(u64::from(kill_after)));
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        let last = *written.last().expect("the child wrote");

        let store = Store::open(&path, Access::ReadWrite).await.unwrap();
        store.integrity_check().await.unwrap();
        let history = store.history("one").await.unwrap();
        let count = history.candidates.len() as u32;
        assert!(count >= last, "{last} were reported, {count} are there");
        assert_eq!(
            history.candidates,
            (1..=count).map(|number| done(number, 1.0, 1.0)).collect::<Vec<_>>()
        );
        assert_eq!(
            history.latencies,
            [latency(f64::from(count))],
            "of the same event as the last candidate"
        );
        // The next child takes the campaign over by itself.
        store.close().await;
    }
}
