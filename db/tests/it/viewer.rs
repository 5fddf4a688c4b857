//! A viewer reads while the driver writes.

use db::{Access, Change, Store};
use search::campaign::Progress;

use crate::samples::{done, proposed, store};

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
