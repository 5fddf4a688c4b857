//! A viewer reads while the driver writes.

use std::path::{Path, PathBuf};

use db::{Access, Change, DbError, Store};
use search::campaign::Progress;

use crate::samples::{done, folder, proposed, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_sees_whole_events_and_hinders_nobody() {
    const EVENTS: u32 = 100;
    let (store, run) = store("viewer").await;
    let viewer = Store::open(store.path(), Access::ReadOnly).await.unwrap();
    let writer = tokio::spawn(async move {
        for number in 1..=EVENTS {
            // Two rows in each event: a viewer sees both or none.
            let changes = [
                Change::Candidate(proposed(2 * number - 1)),
                Change::Candidate(done(2 * number, 1.0, 1.0)),
            ];
            store.apply(&run, &changes).await.unwrap();
        }
        (store, run)
    });
    let mut last = 0;
    let mut different = 0;
    while !writer.is_finished() {
        let snapshot = viewer.snapshot("one").await.unwrap();
        assert!(snapshot.revision >= last);
        assert_eq!(snapshot.candidates.len() % 2, 0);
        different += u32::from(snapshot.revision > last);
        last = snapshot.revision;
    }
    assert!(different > 1, "the viewer was never let in");
    let (store, run) = writer.await.unwrap();
    assert_eq!(viewer.snapshot("one").await.unwrap().candidates.len() as u32, 2 * EVENTS);

    // The revision tells of every change, and of nothing else.
    let before = viewer.revision("one").await.unwrap();
    assert_eq!(viewer.snapshot("one").await.unwrap().revision, before);
    store.heartbeat(&run).await.unwrap();
    assert_eq!(viewer.revision("one").await.unwrap(), before);
    let progress = Progress {
        number: 1,
        step: 1,
        tokens: 8,
        tokens_total: 9,
        loss: 1.0,
        tokens_per_second: 1.0,
    };
    store.apply(&run, &[Change::Progress { progress, seconds: 1.0 }]).await.unwrap();
    assert!(viewer.revision("one").await.unwrap() > before);
}

#[tokio::test]
async fn a_viewer_cannot_write() {
    let (store, run) = store("cannot").await;
    let viewer = Store::open(store.path(), Access::ReadOnly).await.unwrap();
    assert!(viewer.apply(&run, &[Change::Candidate(proposed(1))]).await.is_err());
    assert!(viewer.snapshot("one").await.unwrap().candidates.is_empty());
}

/// The names of the files beside a database, its own included.
fn neighbours(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[tokio::test]
async fn a_viewer_of_a_closed_file_leaves_nothing_beside_it() {
    let (store, run) = store("still").await;
    store.apply(&run, &[Change::Candidate(done(1, 1.0, 1.0))]).await.unwrap();
    let path = store.path().to_owned();
    store.close().await;
    assert_eq!(neighbours(&path), ["test.db"], "the driver puts its own files away");
    let viewer = Store::open(&path, Access::ReadOnly).await.unwrap();
    assert_eq!(viewer.snapshot("one").await.unwrap().candidates.len(), 1);
    assert_eq!(neighbours(&path), ["test.db"]);
    viewer.close().await;
    assert_eq!(neighbours(&path), ["test.db"]);
}

#[tokio::test]
async fn a_viewer_of_a_closed_file_sees_what_a_driver_does_later() {
    let (store, run) = store("later").await;
    let path = store.path().to_owned();
    store.end_run(&run, db::RunEnd::Paused).await.unwrap();
    store.close().await;
    let mut viewer = Store::open(&path, Access::ReadOnly).await.unwrap();
    assert!(viewer.snapshot("one").await.unwrap().candidates.is_empty());
    assert!(!viewer.refresh().await.unwrap(), "nothing has changed");

    // It is at work: what it writes lies in its log.
    let store = Store::open(&path, Access::ReadWrite).await.unwrap();
    let run = store.begin_run("one", &db::Owner::current(), "0.1.0").await.unwrap();
    for number in 1..=2 {
        store.apply(&run, &[Change::Candidate(done(number, 1.0, 1.0))]).await.unwrap();
        assert_eq!(viewer.refresh().await.unwrap(), number == 1);
        let seen = viewer.snapshot("one").await.unwrap().candidates.len() as u32;
        assert_eq!(seen, number);
    }
    // It has ended, which a viewer does not hinder.
    store.end_run(&run, db::RunEnd::Paused).await.unwrap();
    store.close().await;
    viewer.refresh().await.unwrap();
    assert_eq!(viewer.snapshot("one").await.unwrap().candidates.len(), 2);

    // Another file takes its place.
    let other = crate::samples::store("later_other").await.0;
    let other_path = other.path().to_owned();
    other.close().await;
    viewer.close().await;
    let mut viewer = Store::open(&path, Access::ReadOnly).await.unwrap();
    for file in ["-wal", "-shm"].map(|end| ending(&path, end)) {
        let _ = std::fs::remove_file(file);
    }
    std::fs::rename(&other_path, &path).unwrap();
    assert!(viewer.refresh().await.unwrap());
    assert!(viewer.snapshot("one").await.unwrap().candidates.is_empty());
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(viewer.refresh().await, Err(DbError::Missing { .. })));
}

#[tokio::test]
async fn a_log_without_its_index_is_read_and_left_as_it_is() {
    let (store, run) = store("log").await;
    store.apply(&run, &[Change::Candidate(done(1, 1.0, 1.0))]).await.unwrap();
    // As a copy of the two files has it, or a driver's that was killed and cleared up after.
    let path = folder("log_copied").join("test.db");
    for end in ["", "-wal"] {
        std::fs::copy(ending(store.path(), end), ending(&path, end)).unwrap();
    }
    assert!(std::fs::metadata(ending(&path, "-wal")).unwrap().len() > 0);
    let before = std::fs::read(ending(&path, "-wal")).unwrap();
    let mut viewer = Store::open(&path, Access::ReadOnly).await.unwrap();
    assert_eq!(viewer.snapshot("one").await.unwrap().candidates.len(), 1);
    assert!(!viewer.refresh().await.unwrap());
    assert_eq!(neighbours(&path), ["test.db", "test.db-wal"]);
    viewer.close().await;
    assert_eq!(neighbours(&path), ["test.db", "test.db-wal"]);
    assert_eq!(std::fs::read(ending(&path, "-wal")).unwrap(), before);
}
