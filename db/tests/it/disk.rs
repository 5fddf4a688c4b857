//! A full disk.

use db::{Change, DbError, RunEnd};

use crate::samples::{done, store};

#[tokio::test]
async fn a_full_disk_is_named_and_loses_nothing() {
    let (store, run) = store("full").await;
    store.apply(&run, &[Change::Candidate(done(1, 1.0, 1.0))]).await.unwrap();
    store.limit_size(200_000).await.unwrap();
    let mut number = 1;
    let error = loop {
        let before = store.snapshot("one").await.unwrap();
        assert_eq!(before.candidates.len() as u32, number);
        let mut next = done(number + 1, 1.0, 1.0);
        next.curve = (0..1000).map(|step| (step, 1.0)).collect();
        match store.apply(&run, &[Change::Candidate(next)]).await {
            Ok(_) => number += 1,
            Err(error) => {
                assert_eq!(store.snapshot("one").await.unwrap(), before);
                break error;
            }
        }
        assert!(number < 100, "the limit does not work");
    };
    assert!(matches!(error, DbError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("Free some space"), "{error}");
    store.integrity_check().await.unwrap();
    // With space again it goes on.
    store.limit_size(100_000_000).await.unwrap();
    store.apply(&run, &[Change::Candidate(done(number + 1, 1.0, 1.0))]).await.unwrap();
    store.end_run(&run, RunEnd::Finished).await.unwrap();
}
