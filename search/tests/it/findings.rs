//! What a campaign tells about itself, against what was put in.

use std::collections::BTreeMap;

use search::campaign::findings::{agreements, compositions, evaluations};
use search::campaign::{Candidate, CandidateState, Trained};
use search::latency::Timing;
use search::objective::Objective;
use search::pareto::Objectives;
use search::subject::Subject;
use search::value::{Value, Values};

use crate::stacks::{objectives, uniform};

const SEED: u64 = 7;

fn value(mean: f64) -> Value {
    Value { mean, standard_error: None }
}

/// A candidate that is done after the last of its trainings from its own seed; each is tokens, seed and loss.
fn candidate(number: u32, trainings: &[(u64, u64, f64)]) -> Candidate {
    let trained: Vec<Trained> = trainings
        .iter()
        .map(|&(tokens, seed, loss)| Trained {
            parts: BTreeMap::new(),
            tokens,
            seed,
            values: Values::from_iter([("loss".into(), value(loss))]),
            seconds: 1.0,
        })
        .collect();
    let own = trained.iter().filter(|t| t.seed == SEED).max_by_key(|t| t.tokens);
    let mut values = own.map_or_else(Values::new, |t| t.values.clone());
    values.insert("decode_us".into(), value(10.0 * f64::from(number)));
    let fidelity = own.map_or(0, |t| t.tokens);
    Candidate {
        number,
        subject: Subject::Stack(uniform(0, 1)),
        reference: None,
        origin: String::new(),
        state: CandidateState::Done,
        failed_attempts: 0,
        given_up: false,
        values,
        fidelity,
        trained,
        whole: BTreeMap::new(),
        earlier: BTreeMap::new(),
        sums: BTreeMap::new(),
        curve: Vec::new(),
        retrieval: Vec::new(),
        seed: SEED,
        tokens: 0,
        train_seconds: if fidelity > 0 { 1.0 } else { 0.0 },
        checkpoint: None,
    }
}

fn names() -> Vec<Objective> {
    objectives(&["loss", "decode_us"])
}

#[test]
fn each_two_fidelities_are_compared_by_the_candidates_own_seeds() {
    // After 100 tokens the order is right, after 300 reversed; another seed says nonsense.
    let rows: Vec<Candidate> = (1..=6)
        .map(|n| {
            let x = f64::from(n);
            let mut trainings = vec![(100, SEED, x), (100, SEED + 1, 9.0), (300, SEED, -x)];
            if n > 2 {
                trainings.push((1000, SEED, 2.0 * x));
            }
            candidate(n, &trainings)
        })
        .collect();
    let found = agreements(&rows, &names());
    let of: Vec<(u64, u64, usize)> = found.iter().map(|a| (a.fewer, a.more, a.pairs)).collect();
    assert_eq!(of, [(100, 300, 6), (100, 1000, 4), (300, 1000, 4)]);
    assert!(found.iter().all(|a| a.value == "loss"), "latencies are not trained");
    let tau = found[0].kendall.expect("six pairs");
    assert!((tau.value + 1.0).abs() < 1e-12 && tau.pairs == 6);
    assert_eq!((found[1].kendall, found[1].spearman), (None, None), "four pairs say nothing");
    assert_eq!(agreements(&[], &names()), []);
}

#[test]
fn compositions_are_relative_to_whole_models() {
    let mut rows: Vec<Candidate> = (1..=4).map(|n| candidate(n, &[(100, SEED, 1.0)])).collect();
    for (row, whole_us) in rows.iter_mut().zip([8.0, 25.0, 30.0]) {
        let timing = Timing {
            median_us: whole_us,
            spread_us: 0.1,
            samples: 9,
            other_load: 0.0,
            kernels: "1".to_owned(),
            millijoules: None,
        };
        row.whole.insert("decode_us".to_owned(), timing);
        row.sums
            .insert("decode_us".to_owned(), row.values.get("decode_us").expect("it has one").mean);
    }
    let found = compositions(&rows);
    let [decode] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(decode.stacks, 3);
    // 10/8, 20/25, 30/30
    assert!((decode.mean_error - 0.05 / 3.0).abs() < 1e-12, "{decode:?}");
    assert!((decode.mean_absolute_error - 0.15).abs() < 1e-12, "{decode:?}");
    assert!((decode.largest_error - 0.25).abs() < 1e-12, "{decode:?}");
    assert_eq!(compositions(&rows[3..]), []);
}

#[test]
fn evaluations_are_what_was_spent() {
    let infeasible = || CandidateState::Infeasible { reason: String::new() };
    let failed = CandidateState::Failed {
        kind: search::failure::FailureKind::Crashed,
        reason: String::new(),
        log: String::new(),
    };
    let mut rows: Vec<Candidate> = (1..=6).map(|n| candidate(n, &[(100, SEED, 1.0)])).collect();
    rows[1] = candidate(2, &[(50, SEED, 3.0)]);
    rows[2].state = infeasible();
    rows[2].train_seconds = 0.0;
    rows[3].state = infeasible();
    rows[4].state = failed;
    rows[5].state = CandidateState::Training;
    let found = Objectives::new([1.0, 10.0]).expect("finite");
    assert_eq!(
        evaluations(rows.iter(), &names(), 100, false),
        [Some(found.clone()), None, None, None],
        "one is done, one stopped early, one was infeasible after it, one failed"
    );
    let counted = evaluations(rows.iter(), &names(), 100, true);
    assert_eq!(counted, [Some(found), None, None, None, None], "refusals count for a black box");
}
