use std::collections::BTreeMap;

use db::snapshot::CampaignState;
use db::{Access, Change, DbError, RunEnd, Store, TrainedBy};
use search::campaign::{CandidateState, Progress, Trained};
use search::failure::FailureKind;
use search::value::Values;

use crate::samples::{campaign, done, event, folder, latency, proposed, store};

#[tokio::test]
async fn what_is_written_is_read_again() {
    let (store, run) = store("round_trip").await;
    let mut failed = proposed(2);
    failed.state = CandidateState::Failed {
        kind: FailureKind::OutOfMemory,
        reason: "loss is NaN".to_owned(),
        log: "line 1\nline 2\n".to_owned(),
    };
    failed.failed_attempts = 2;
    failed.given_up = true;
    let mut infeasible = proposed(3);
    infeasible.state = CandidateState::Infeasible { reason: "decode_us 9 is over 8".to_owned() };
    infeasible.reference = Some("full attention".to_owned());
    let mut first = done(1, 2.5, 100.0);
    first.seed = u64::MAX;
    // A training that reported nothing is one all the same, and seeds are ordered as the numbers they are.
    let silent = Trained {
        tokens: 1 << 40,
        seed: u64::MAX,
        values: Values::new(),
        parts: BTreeMap::new(),
        seconds: 1.0,
    };
    first.trained.push(silent);
    let written = vec![first, failed, infeasible, proposed(4)];
    let mut changes: Vec<Change> = written.iter().cloned().map(Change::Candidate).collect();
    changes.push(Change::Latency(latency(5.0)));
    changes.push(event("started"));
    changes.push(Change::Worker {
        role: "trainer".into(),
        worker: "t 1".into(),
        device: "cpu".into(),
    });
    store.apply(&run, &changes).await.unwrap();

    let history = store.history("one").await.unwrap();
    assert_eq!(history.candidates, written);
    assert_eq!(history.latencies, [latency(5.0)]);
    let events = store.events("one", 0).await.unwrap();
    assert_eq!((events.len(), events[0].seq, &*events[0].body), (1, 1, "it's {\"so\"}"));
    assert_eq!(store.workers("one").await.unwrap()[0].worker, "t 1");
    assert_eq!(store.config_folder("one").await.unwrap(), "/data/πρ");

    let snapshot = store.snapshot("one").await.unwrap();
    let new = campaign("one");
    assert_eq!(snapshot.campaign.seed, new.seed);
    assert_eq!(snapshot.campaign.tokens, new.tokens);
    assert_eq!(snapshot.campaign.latency, new.latency);
    assert_eq!(snapshot.campaign.objectives, new.objectives);
    assert_eq!(snapshot.campaign.config_toml, new.config_toml);
    assert_eq!(snapshot.campaign.state, CampaignState::Running);
    assert_eq!(snapshot.candidates[0].row, written[0]);
    assert_eq!(snapshot.candidates[0].whole("decode_us"), written[0].whole.get("decode_us"));
    assert_eq!(snapshot.candidates[0].id, written[0].subject.id());

    // The same after the file was closed and opened again.
    let path = store.path().to_owned();
    store.end_run(&run, RunEnd::Paused).await.unwrap();
    store.close().await;
    let store = Store::open(&path, Access::ReadOnly).await.unwrap();
    assert_eq!(store.history("one").await.unwrap(), history);
    let snapshot = store.snapshot("one").await.unwrap();
    assert_eq!(snapshot.campaign.state, CampaignState::Paused);
}

#[tokio::test]
async fn a_candidate_that_is_written_again_replaces_itself() {
    let (store, run) = store("replace").await;
    store.apply(&run, &[Change::Candidate(proposed(1))]).await.unwrap();
    let progress = Progress {
        number: 1,
        step: 3,
        tokens: 4096,
        tokens_total: 8192,
        loss: 3.5,
        tokens_per_second: 1e4,
    };
    store.apply(&run, &[Change::Progress { progress, seconds: 0.5 }]).await.unwrap();
    let running = store.history("one").await.unwrap().candidates.remove(0);
    assert_eq!((running.curve, running.tokens), (vec![(4096, 3.5)], 4096));

    let last = done(1, 2.5, 100.0);
    store.apply(&run, &[Change::Candidate(last.clone())]).await.unwrap();
    assert_eq!(store.history("one").await.unwrap().candidates, [last]);
    store
        .apply(&run, &[Change::Latency(latency(5.0)), Change::Latency(latency(6.0))])
        .await
        .unwrap();
    assert_eq!(store.history("one").await.unwrap().latencies, [latency(6.0)]);
}

#[tokio::test]
async fn an_event_is_written_whole_or_not_at_all() {
    let (store, run) = store("whole").await;
    store.apply(&run, &[Change::Candidate(proposed(1))]).await.unwrap();
    let before = store.snapshot("one").await.unwrap();
    // The same architecture under another number: no architecture is in a campaign twice.
    let mut twin = proposed(3);
    twin.subject = proposed(1).subject;
    let changes = [Change::Candidate(proposed(2)), event("x"), Change::Candidate(twin)];
    assert!(store.apply(&run, &changes).await.is_err());
    assert_eq!(store.snapshot("one").await.unwrap(), before);
    let progress = Progress {
        number: 9,
        step: 1,
        tokens: 1,
        tokens_total: 1,
        loss: 1.0,
        tokens_per_second: 1.0,
    };
    let error = store
        .apply(&run, &[event("x"), Change::Progress { progress, seconds: 0.0 }])
        .await
        .unwrap_err();
    assert!(matches!(error, DbError::NoCandidate { number: 9 }), "{error}");
    assert_eq!(store.snapshot("one").await.unwrap(), before);
    assert!(store.events("one", 0).await.unwrap().is_empty());
}

#[tokio::test]
async fn numbers_that_are_not_finite_are_refused() {
    let (store, run) = store("finite").await;
    store.apply(&run, &[Change::Candidate(proposed(1))]).await.unwrap();
    let before = store.snapshot("one").await.unwrap();
    for poison in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut value = done(1, poison, 1.0);
        let mut error_of_value = done(1, 1.0, 1.0);
        error_of_value.values.get_mut("bits_per_byte").unwrap().standard_error = Some(poison);
        let mut curve = done(1, 1.0, 1.0);
        curve.curve[1].1 = poison;
        let mut seconds = done(1, 1.0, 1.0);
        seconds.train_seconds = poison;
        let mut trained = done(1, 1.0, 1.0);
        trained.trained[0].seconds = poison;
        let mut whole = done(1, 1.0, 1.0);
        whole.whole.get_mut("decode_us").unwrap().spread_us = poison;
        value.whole.clear();
        for candidate in [value, error_of_value, curve, seconds, trained, whole] {
            let error = store.apply(&run, &[Change::Candidate(candidate)]).await.unwrap_err();
            assert!(matches!(error, DbError::NotFinite { .. }), "{error}");
        }
        let error = store.apply(&run, &[Change::Latency(latency(poison))]).await.unwrap_err();
        assert!(matches!(error, DbError::NotFinite { .. }), "{error}");
    }
    assert_eq!(store.snapshot("one").await.unwrap(), before);
}

#[tokio::test]
async fn ranks_are_those_of_non_domination() {
    let (store, run) = store("ranks").await;
    let mut failed = done(5, 0.1, 0.1);
    failed.state = CandidateState::Failed {
        kind: FailureKind::Invalid,
        reason: "no".into(),
        log: String::new(),
    };
    let mut lacking = done(6, 0.1, 0.1);
    lacking.values.remove("bits_per_byte");
    // Better than all, but hardly trained.
    let mut short = done(8, 0.5, 0.5);
    short.fidelity = 1 << 20;
    let candidates = [
        done(1, 2.0, 10.0),
        done(2, 1.0, 20.0),
        done(3, 2.0, 20.0),
        done(4, 3.0, 30.0),
        failed,
        lacking,
        proposed(7),
        short,
    ];
    store.apply(&run, &candidates.map(Change::Candidate)).await.unwrap();
    let ranks: Vec<Option<u32>> = store
        .snapshot("one")
        .await
        .unwrap()
        .candidates
        .iter()
        .map(|candidate| candidate.rank)
        .collect();
    assert_eq!(ranks, [Some(0), Some(0), Some(1), Some(2), None, None, None, None]);
}

#[tokio::test]
async fn campaigns_share_a_file_and_its_latency_table() {
    let (store, run) = store("two").await;
    store.create_campaign(&campaign("two")).await.unwrap();
    store
        .apply(&run, &[Change::Candidate(proposed(1)), Change::Latency(latency(5.0))])
        .await
        .unwrap();
    let error = store.create_campaign(&campaign("one")).await.unwrap_err();
    assert!(matches!(error, DbError::CampaignExists { .. }), "{error}");
    let two = store.history("two").await.unwrap();
    assert!(two.candidates.is_empty());
    assert_eq!(two.latencies, [latency(5.0)]);
    let names: Vec<String> =
        store.campaigns().await.unwrap().into_iter().map(|campaign| campaign.name).collect();
    assert_eq!(names, ["one", "two"]);
    let error = store.snapshot("three").await.unwrap_err().to_string();
    assert!(error.contains("`three`") && error.ends_with("it holds: one, two"), "{error}");
}

#[tokio::test]
async fn a_changed_file_reopens_a_finished_campaign() {
    let (store, run) = store("config").await;
    store.end_run(&run, RunEnd::Finished).await.unwrap();
    assert_eq!(store.campaign("one").await.unwrap().state, CampaignState::Finished);
    let run = store.begin_run("one", &db::Owner::current(), "0.1.0").await.unwrap();
    assert!(!run.took_over);
    let mut new = campaign("one");
    new.config_toml = "evaluations = 48".to_owned();
    new.evaluations = 48;
    new.objectives = vec!["parameters".parse().unwrap()];
    let config = Change::Settings(new.clone());
    store.apply(&run, &[config]).await.unwrap();
    store.end_run(&run, RunEnd::Paused).await.unwrap();
    let campaign = store.campaign("one").await.unwrap();
    assert_eq!((campaign.evaluations, campaign.state), (48, CampaignState::Paused));
    assert_eq!(campaign.config_toml, "evaluations = 48");
    assert_eq!(campaign.objectives, new.objectives);
    let ends: Vec<Option<String>> =
        store.runs("one").await.unwrap().into_iter().map(|run| run.end).collect();
    assert_eq!(ends, [Some("finished".to_owned()), Some("paused".to_owned())]);
}

#[tokio::test]
async fn a_reader_makes_no_file() {
    let path = folder("reader").join("nothing.db");
    let error = Store::open(&path, Access::ReadOnly).await.unwrap_err();
    assert!(matches!(error, DbError::Missing { .. }), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_campaign_can_forget_its_candidates() {
    let (store, run) = store("forget").await;
    let changes = [Change::Candidate(done(1, 1.0, 1.0)), Change::Latency(latency(5.0))];
    store.apply(&run, &changes).await.unwrap();
    store.apply(&run, &[Change::Forget, Change::Candidate(proposed(1))]).await.unwrap();
    let history = store.history("one").await.unwrap();
    assert_eq!(history.candidates, [proposed(1)]);
    assert_eq!(history.latencies, [latency(5.0)]);
}

#[tokio::test]
async fn who_did_a_training_is_kept_with_it() {
    let (store, run) = store("trained_by").await;
    let (tokens, seed) = (4096, u64::MAX - 6);
    let mut candidate = done(1, 2.5, 90.0);
    candidate.trained =
        vec![Trained { tokens, seed, values: Values::new(), parts: BTreeMap::new(), seconds: 0.5 }];
    let by = |worker: &str, tokens: u64| TrainedBy {
        number: 1,
        tokens,
        seed,
        worker: worker.to_owned(),
        device: "cuda:1".to_owned(),
        host: "node ü".to_owned(),
    };
    let changes = [Change::Candidate(candidate.clone()), Change::Trained(by("first 1.0", tokens))];
    store.apply(&run, &changes).await.unwrap();
    // Done again by another; and one that never came to its end.
    let again = [by("second 2.0", tokens), by("second 2.0", tokens + 1)].map(Change::Trained);
    store.apply(&run, &again).await.unwrap();
    // The candidate is written again with each of its trainings.
    store.apply(&run, &[Change::Candidate(candidate)]).await.unwrap();
    assert_eq!(store.trained_by("one", 1).await.unwrap(), [by("second 2.0", tokens)]);
    assert_eq!(store.trained_by("one", 2).await.unwrap(), []);
}

#[tokio::test]
async fn a_model_that_is_timed_twice_keeps_both_moments() {
    use sqlx::Connection;
    let (store, run) = store("timed_twice").await;
    let twice = done(1, 2.5, 100.0);
    let mut once = twice.clone();
    let earlier = once.earlier.remove("decode_us").unwrap();
    once.whole.insert("decode_us".to_owned(), earlier);
    store.apply(&run, &[Change::Candidate(once.clone())]).await.unwrap();
    assert!(store.snapshot("one").await.unwrap().between_s.is_empty());
    // Ten minutes ago.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(store.path());
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let ago = "UPDATE whole_timings SET measured_unix_s = measured_unix_s - 600";
    sqlx::raw_sql(ago).execute(&mut other).await.unwrap();
    // That it is written again is no timing.
    store.apply(&run, &[Change::Candidate(once)]).await.unwrap();
    for _ in 0..2 {
        store.apply(&run, &[Change::Candidate(twice.clone())]).await.unwrap();
        let snapshot = store.snapshot("one").await.unwrap();
        assert_eq!(snapshot.candidates[0].row, twice);
        let between_s = snapshot.between_s["decode_us"];
        assert!((600.0..660.0).contains(&between_s), "{between_s}");
        assert_eq!(store.judged("one").await.unwrap().between_s, snapshot.between_s);
    }
}
