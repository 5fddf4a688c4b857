//! Predictions from a candidate's own curve and its kin, on the trainings of `tools/truth_table`.

use std::collections::BTreeMap;

use search::campaign::prediction::{Backtest, backtests};
use search::campaign::{Candidate, CandidateState, Trained};
use search::objective::Objective;
use search::subject::Subject;
use search::value::Value;
use serde::Deserialize;

/// A line of the table.
#[derive(Deserialize)]
struct Run {
    rule: String,
    stack: String,
    tokens: u64,
    batch: u64,
    sequence_length: u64,
    seed: u64,
    rate: f64,
    bits_per_byte: Option<f64>,
    /// The name of a text that is not the one of most runs.
    text: Option<String>,
}

/// The losses of the stacks that were trained for 16.8 M tokens, by tokens: at "auto", the longest at the best rate.
fn losses() -> BTreeMap<String, BTreeMap<u64, f64>> {
    const LONG: u64 = 16_777_216;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/truth_table/runs.jsonl");
    let text = std::fs::read_to_string(path).expect("the table is in the repository");
    let mut losses: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
    for line in text.lines() {
        let run: Run = serde_json::from_str(line).expect("a line is a run");
        let Some(loss) = run.bits_per_byte else { continue };
        let step = (run.batch * run.sequence_length) as f64;
        let auto =
            1.414e-3 * (step / 2048.0).sqrt() * (run.tokens as f64 / 1_048_576.0).powf(-0.25);
        let is_auto = (run.rate / auto - 1.0).abs() < 1e-3;
        if run.text.is_some()
            || run.rule != "rule 2"
            || run.seed != 0
            || !(is_auto || run.tokens == LONG)
        {
            continue;
        }
        let best = losses.entry(run.stack).or_default().entry(run.tokens).or_insert(loss);
        *best = best.min(loss);
    }
    losses.retain(|_, of| of.contains_key(&LONG));
    losses
}

/// A candidate that was trained for each of these lengths.
fn candidate(number: u32, stack: &str, losses: &BTreeMap<u64, f64>, lengths: &[u64]) -> Candidate {
    let trained = lengths.iter().map(|&tokens| Trained {
        tokens,
        seed: 0,
        values: BTreeMap::from([(
            "bits_per_byte".to_owned(),
            Value { mean: losses[&tokens], standard_error: Some(0.006) },
        )]),
        seconds: 1.0,
    });
    Candidate {
        number,
        subject: Subject::Stack(stack.parse().expect("the table's stacks are valid")),
        reference: None,
        origin: "random".to_owned(),
        state: CandidateState::Done,
        failed_attempts: 0,
        given_up: false,
        values: BTreeMap::new(),
        fidelity: *lengths.last().expect("there are lengths"),
        trained: trained.collect(),
        whole: BTreeMap::new(),
        curve: Vec::new(),
        retrieval: Vec::new(),
        seed: 0,
        tokens: 0,
        train_seconds: 0.0,
        checkpoint: None,
    }
}

/// From the last but one of these lengths to the last.
fn last_step(lengths: &[u64]) -> Backtest {
    let losses = losses();
    let rows: Vec<Candidate> = losses
        .iter()
        .enumerate()
        .map(|(i, (stack, of))| candidate(i as u32 + 1, stack, of, lengths))
        .collect();
    assert_eq!(rows.len(), 25);
    let objective: Objective = "bits_per_byte".parse().expect("it is an objective");
    backtests(&rows, &[objective]).pop().expect("there are lengths and candidates enough")
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures of docs/studies/prediction.md")]
fn kin_and_curve_foretell_the_order_after_sixty_four_times_the_tokens() {
    for (lengths, right, right_predicted, error) in [
        (&[262_144, 16_777_216][..], 0.70, 0.80, 0.015),
        (&[262_144, 1_048_576, 16_777_216], 0.82, 0.90, 0.010),
        (&[1_048_576, 4_194_304, 16_777_216], 0.94, 0.92, 0.007),
    ] {
        let test = last_step(lengths);
        println!(
            "{} to {}: {:.3} of the pairs, {:.3} by prediction, error {:.4}, 90 % cover {:.2}, a coin flip below {:.4}",
            test.fewer,
            test.more,
            test.right,
            test.right_predicted,
            test.error,
            test.covered,
            test.coin_flip()
        );
        assert!(test.right >= right && test.right_predicted >= right_predicted, "{test:?}");
        assert!(test.error <= error && (0.8..=1.0).contains(&test.covered), "{test:?}");
    }
}
