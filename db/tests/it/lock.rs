//! One driver on a campaign.

use std::time::{Duration, Instant};

use db::snapshot::CampaignState;
use db::{Access, Change, DbError, Owner, RunEnd, Store};
use sqlx::Connection;

use crate::samples::{done, folder, proposed, store};

#[tokio::test]
async fn a_second_driver_is_refused_while_the_first_lives() {
    let (store, run) = store("second").await;
    let second = Store::open(store.path(), Access::ReadWrite).await.unwrap();
    let error = second.begin_run("one", &Owner::current(), "0.1.0").await.unwrap_err();
    assert!(
        matches!(&error, DbError::Busy { pid, .. } if *pid == i64::from(std::process::id())),
        "{error}"
    );
    store.apply(&run, &[Change::Candidate(proposed(1))]).await.unwrap();
    store.end_run(&run, RunEnd::Paused).await.unwrap();
    assert!(!second.begin_run("one", &Owner::current(), "0.1.0").await.unwrap().took_over);
}

#[tokio::test]
async fn a_dead_driver_is_taken_over_and_can_write_no_more() {
    let (store, _first) = store("dead").await;
    // A process that has ended: its id is free, or another's.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = Owner { pid: i64::from(child.id()), process_start: Some(1), ..Owner::current() };
    child.wait().unwrap();
    store.create_campaign(&crate::samples::campaign("two")).await.unwrap();
    let lost = store.begin_run("two", &dead, "0.1.0").await.unwrap();
    let before = store.revision("two").await.unwrap();
    assert_eq!(store.campaign("two").await.unwrap().state, CampaignState::Paused);
    let run = store.begin_run("two", &Owner::current(), "0.1.0").await.unwrap();
    assert!(run.took_over);
    assert!(store.revision("two").await.unwrap() > before, "from paused to running");
    assert_eq!(store.campaign("two").await.unwrap().state, CampaignState::Running);
    assert_eq!(store.runs("two").await.unwrap()[0].end.as_deref(), Some("lost"));
    for error in [
        store.apply(&lost, &[Change::Candidate(proposed(1))]).await.unwrap_err(),
        store.heartbeat(&lost).await.unwrap_err(),
        store.end_run(&lost, RunEnd::Finished).await.unwrap_err(),
    ] {
        assert!(matches!(error, DbError::RunLost), "{error}");
    }
    assert!(store.snapshot("two").await.unwrap().candidates.is_empty());
}

/// Makes the heartbeat of campaign `one` that of another machine, whose clock is so many seconds ahead of this one's.
async fn beat_elsewhere(path: &std::path::Path, ahead_s: i64) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("UPDATE runs SET host = 'elsewhere', heartbeat_unix_s = unixepoch() + ?")
        .bind(ahead_s)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_or_behind_neither_locks_for_ever_nor_loses_the_lock() {
    const DAY_S: i64 = 86_400;
    let cases = [("ahead", DAY_S, false), ("behind", -DAY_S, false), ("at_work", DAY_S, true)];
    let cases = cases.map(|(name, ahead_s, at_work)| {
        tokio::spawn(async move {
            let (store, _) = store(&format!("clock_{name}")).await;
            let path = store.path().to_owned();
            beat_elsewhere(&path, ahead_s).await;
            assert_eq!(store.unclear_run("one").await.unwrap().as_deref(), Some("elsewhere"));
            assert_eq!(store.campaign("one").await.unwrap().state, CampaignState::Paused);
            let heart = tokio::spawn(async move {
                for beat in (1..).take_while(|_| at_work) {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    beat_elsewhere(&path, ahead_s + beat).await;
                }
            });
            let begin = Instant::now();
            let result = store.begin_run("one", &Owner::current(), "0.1.0").await;
            heart.abort();
            if at_work {
                assert!(matches!(&result, Err(DbError::Busy { host, .. }) if host == "elsewhere"));
                assert!(begin.elapsed() < Duration::from_secs(db::WATCH_S), "as soon as it beats");
            } else {
                assert!(result.unwrap().took_over, "{name}");
            }
        })
    });
    for case in cases {
        case.await.unwrap();
    }
    // A heartbeat of now, as both clocks have it, needs no watching.
    let (store, _) = store("clock_now").await;
    beat_elsewhere(store.path(), 20).await;
    let begin = Instant::now();
    assert!(store.begin_run("one", &Owner::current(), "0.1.0").await.is_err());
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_file_that_was_renamed_deleted_or_replaced_is_written_no_more() {
    for what in ["renamed", "deleted", "replaced"] {
        let (store, run) = store(what).await;
        let path = store.path().to_owned();
        store.apply(&run, &[Change::Candidate(done(1, 1.0, 1.0))]).await.unwrap();
        let away = path.with_file_name("away.db");
        if what == "deleted" {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::rename(&path, &away).unwrap();
        }
        if what == "replaced" {
            let other = folder("replacement").join("test.db");
            Store::open(&other, Access::ReadWrite).await.unwrap().close().await;
            std::fs::copy(&other, &path).unwrap();
        }
        let replacement = std::fs::read(&path).ok();
        for error in [
            store.heartbeat(&run).await.unwrap_err(),
            store.apply(&run, &[Change::Candidate(proposed(2))]).await.unwrap_err(),
            store.end_run(&run, RunEnd::Finished).await.unwrap_err(),
        ] {
            assert!(matches!(&error, DbError::Gone { path: gone } if *gone == path), "{error}");
            assert!(error.to_string().contains("--db NEW-PATH"), "{error}");
        }
        store.close().await;
        assert_eq!(std::fs::read(&path).ok(), replacement, "{what}");
        if what != "deleted" {
            // What lay in the log, which kept its name, is in the file.
            let there = Store::open(&away, Access::ReadOnly).await.unwrap();
            assert_eq!(there.snapshot("one").await.unwrap().candidates.len(), 1, "{what}");
        }
    }
}
