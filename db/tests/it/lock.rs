//! One driver on a campaign.

use db::snapshot::CampaignState;
use db::{Access, Change, DbError, Owner, RunEnd, Store};

use crate::samples::{proposed, store};

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
