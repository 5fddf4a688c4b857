//! What is read of many candidates, beside all of them.

use db::snapshot::{Candidate, Counts};
use db::{Access, Change, Mark, NewCampaign, Owner, Store};
use search::campaign::CandidateState;
use search::failure::FailureKind;
use search::value::{Value, Values};

use crate::samples::{campaign, done, folder, proposed, store};

/// More than are read at once, in every state, some trained once, some from several seeds.
const MANY: u32 = 2_345;

/// Of candidates with rungs, beyond which the tokens that count are.
#[tokio::test]
async fn an_outline_foretells_as_the_snapshot_does() {
    let path = folder("foretold").join("test.db");
    let store = Store::open(&path, Access::ReadWrite).await.unwrap();
    let campaign = NewCampaign { target_tokens: 1 << 42, ..campaign("one") };
    store.create_campaign(&campaign).await.unwrap();
    let run = store.begin_run("one", &Owner::current(), "0.1.0").await.unwrap();
    let rows = (1..=12).map(|n| done(n, 2.0 + (f64::from(n) * 0.7).sin(), 100.0 - f64::from(n)));
    let changes: Vec<Change> = rows.map(Change::Candidate).collect();
    store.apply(&run, &changes).await.unwrap();
    let (whole, outline) =
        (store.snapshot("one").await.unwrap(), store.outline("one").await.unwrap());
    assert_eq!(whole.campaign.target_tokens, 1 << 42);
    assert!(whole.is_foretold());
    for (whole, brief) in whole.candidates.iter().zip(&outline.candidates) {
        assert_eq!((whole.rank, &whole.foretold), (brief.rank, &brief.foretold));
        let foretold = whole.foretold[&"bits_per_byte".into()];
        // each gained 1.0 from 2²⁰ to 2⁴⁰ tokens, and gains less from there to 2⁴²
        let measured = whole.row.values[&"bits_per_byte".into()];
        assert!(foretold.mean < measured.mean && foretold.mean > measured.mean - 1.0);
        assert!(foretold.standard_error > measured.standard_error);
        assert_eq!(whole.foretold.len(), 1, "a latency is measured");
    }
}

/// A list counts the front that the screens show, and no first frame shows another one.
#[tokio::test]
async fn a_list_counts_the_front_that_is_foretold() {
    let path = folder("foretold-list").join("test.db");
    let store = Store::open(&path, Access::ReadWrite).await.unwrap();
    store
        .create_campaign(&NewCampaign { target_tokens: 1 << 42, ..campaign("one") })
        .await
        .unwrap();
    let run = store.begin_run("one", &Owner::current(), "0.1.0").await.unwrap();
    let rows = (1..=MANY).map(|n| {
        let mut row = done(n, 2.0 + f64::from(n) * 1e-4, 3000.0 + f64::from(n));
        // A few were trained for longer, and came to more than those that all values say are better.
        if n % 100 == 0 {
            let mut longer = row.trained[1].clone();
            longer.tokens = 1 << 41;
            let value = Value { mean: 1.9 - f64::from(n) * 1e-4, standard_error: Some(0.01) };
            longer.values.insert("bits_per_byte".into(), value);
            row.trained.push(longer);
        }
        row
    });
    let changes: Vec<Change> = rows.map(Change::Candidate).collect();
    store.apply(&run, &changes).await.unwrap();
    let whole = store.outline("one").await.unwrap();
    let front = whole.candidates.iter().filter(|c| c.rank == Some(0)).count();
    let measured = NewCampaign { target_tokens: 0, ..campaign("two") };
    store.create_campaign(&measured).await.unwrap();
    let run = store.begin_run("two", &Owner::current(), "0.1.0").await.unwrap();
    store.apply(&run, &changes).await.unwrap();
    let campaigns = store.campaigns().await.unwrap();
    let fronts = [&campaigns[0], &campaigns[1]];
    let [foretold, measured] = fronts.map(|campaign| store.tally(campaign));
    assert_eq!((foretold.await.unwrap().front, measured.await.unwrap().front), (front, 1));
    assert!(front > 1, "the longer ones are on it, too");
    assert_eq!(store.glance("one").await.unwrap(), None);
    assert!(store.glance("two").await.unwrap().is_some());
}

#[tokio::test]
async fn an_outline_is_the_snapshot_without_what_one_page_shows() {
    let (store, run) = store("outline").await;
    let rows = (1..=MANY).map(|number| {
        let n = f64::from(number);
        match number % 10 {
            0 => {
                let state = CandidateState::Failed {
                    kind: FailureKind::Diverged,
                    reason: "loss is NaN".to_owned(),
                    log: "step 1\n".to_owned(),
                };
                let given_up = number % 20 == 0;
                search::campaign::Candidate {
                    state,
                    failed_attempts: 2,
                    given_up,
                    ..proposed(number)
                }
            }
            1 => proposed(number),
            2 => {
                let mut lower = done(number, 1.0, 50.0);
                lower.fidelity = 1 << 20;
                lower.trained.truncate(1);
                lower.values.extend(lower.trained[0].values.clone());
                lower
            }
            _ => {
                let mut row = done(number, 2.0 + (n * 0.7).sin(), 100.0 + 50.0 * (n * 1.3).cos());
                if number % 10 == 3 {
                    row.trained.remove(0);
                }
                row
            }
        }
    });
    let changes: Vec<Change> = rows.map(Change::Candidate).collect();
    store.apply(&run, &changes).await.unwrap();

    let whole = store.snapshot("one").await.unwrap();
    let outline = store.outline("one").await.unwrap();
    assert_eq!((&outline.campaign, outline.revision), (&whole.campaign, whole.revision));
    assert_eq!(outline.agreements, whole.agreements);
    assert_eq!(outline.predictions, whole.predictions);
    assert!(!whole.predictions.is_empty());
    assert!(whole.agreements.iter().any(|agreement| agreement.kendall.is_some()));
    assert_eq!(outline.candidates.len(), MANY as usize);
    for (brief, full) in outline.candidates.iter().zip(&whole.candidates) {
        let mut expected = full.clone();
        expected.row.curve.clear();
        expected.row.retrieval.clear();
        expected.row.checkpoint = None;
        expected.row.failed_attempts = 0;
        if let CandidateState::Failed { log, .. } = &mut expected.row.state {
            log.clear();
        }
        if expected.row.trained.len() < 2 {
            expected.row.trained.clear();
        }
        assert_eq!(*brief, expected);
    }
    let judged = store.judged("one").await.unwrap();
    let mut of_one = 0;
    for (judged, full) in judged.candidates.iter().zip(&whole.candidates) {
        let mut found = judged.row.trained.clone();
        if let ([only], [whole]) = (found.as_mut_slice(), full.row.trained.as_slice()) {
            assert!([whole.seconds, full.row.train_seconds].contains(&only.seconds));
            only.seconds = whole.seconds;
            of_one += 1;
        }
        assert_eq!(found, full.row.trained, "candidate {}", full.row.number);
    }
    assert!(of_one > 100);
    for number in [1, 10, 1000, 1001, MANY] {
        let row = store.candidate("one", number).await.unwrap();
        assert_eq!(row.as_ref(), Some(&whole.candidates[number as usize - 1].row));
    }
    assert_eq!(store.candidate("one", MANY + 1).await.unwrap(), None);
    assert_eq!(store.candidate("one", 0).await.unwrap(), None);

    let glance = store.glance("one").await.unwrap().unwrap();
    let contenders = whole.candidates.iter().filter(|c| c.rank.is_some());
    let marks = contenders.map(|c| Mark {
        number: c.row.number,
        reference: c.row.reference.clone(),
        values: whole.campaign.objectives.iter().filter_map(|of| of.value(&c.row.values)).collect(),
        rank: c.rank.unwrap(),
    });
    assert_eq!(glance.marks, marks.collect::<Vec<_>>());
    assert_eq!(glance.counts, Counts::of(&whole.candidates));
    assert_eq!(glance.counts.all, MANY as usize);
    let rows = &glance.snapshot.candidates;
    let worst = rows.iter().filter_map(|candidate| candidate.rank).max().unwrap();
    let first = outline.candidates.iter().filter(|c| c.rank.is_some_and(|rank| rank <= worst));
    let first: Vec<_> = first.cloned().map(without_trainings).collect();
    assert_eq!(*rows, first);
    assert!((200..1000).contains(&rows.len()), "{} rows", rows.len());
    assert_eq!(
        (&glance.snapshot.campaign, glance.snapshot.revision),
        (&whole.campaign, whole.revision)
    );

    let tally = store.tally(&whole.campaign).await.unwrap();
    let count = |is: fn(&db::snapshot::Candidate) -> bool| {
        whole.candidates.iter().filter(|candidate| is(candidate)).count()
    };
    assert_eq!(tally.done, count(|c| c.row.state == CandidateState::Done));
    assert_eq!(tally.failed, count(|c| matches!(c.row.state, CandidateState::Failed { .. })));
    assert_eq!(tally.front, count(|c| c.rank == Some(0)));
    let best = whole.candidates.iter().filter(|c| c.rank.is_some());
    let best = best
        .map(|c| c.row.values[&"bits_per_byte".into()])
        .min_by(|a, b| a.mean.total_cmp(&b.mean));
    assert_eq!(tally.best_bits_per_byte, best);
}

fn without_trainings(mut candidate: Candidate) -> Candidate {
    candidate.row.trained.clear();
    candidate
}

/// Without candidates, and without values.
#[tokio::test]
async fn of_nothing_there_is_nothing_to_tell() {
    let (store, run) = store("outline_of_nothing").await;
    let campaign = store.campaign("one").await.unwrap();
    let tally = store.tally(&campaign).await.unwrap();
    assert_eq!((tally.done, tally.failed, tally.front, tally.best_bits_per_byte), (0, 0, 0, None));
    assert!(store.outline("one").await.unwrap().candidates.is_empty());
    assert_eq!(store.glance("one").await.unwrap(), None);
    let mut bare = done(1, 2.0, 100.0);
    bare.values = Values::new();
    store.apply(&run, &[Change::Candidate(bare)]).await.unwrap();
    let tally = store.tally(&campaign).await.unwrap();
    assert_eq!((tally.done, tally.front), (1, 0));
    assert!(store.outline("one").await.unwrap().candidates[0].row.values.is_empty());
    assert!(store.outline("two").await.is_err());
    // Many, of which none has what the front is made of.
    let rows = (1..=MANY).map(|number| Change::Candidate(proposed(number)));
    store.apply(&run, &rows.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(store.glance("one").await.unwrap(), None);
    assert!(store.glance("two").await.is_err());
}
