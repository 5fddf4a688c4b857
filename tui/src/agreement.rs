//! Rank correlations, and how many pairs of candidates are in the order of longer trainings, as people read them.

use search::campaign::findings::Agreement;
use search::campaign::prediction::Backtest;
use search::statistics::Correlation;
use search::value::Value;

use crate::quantity;

/// `0.72 [0.55, 0.84]`, the value with its 95 % interval; a dash where there are too few pairs.
pub fn correlation(correlation: Option<Correlation>) -> String {
    correlation.map_or_else(
        || "–".to_owned(),
        |Correlation { value, low, high, .. }| format!("{value:.2} [{low:.2}, {high:.2}]"),
    )
}

/// Whose order is compared with whose, and how many have both: `bits per byte, 32.8 k → 262 k tokens, 21 candidates`.
pub fn title(agreement: &Agreement) -> String {
    format!(
        "{}, {} → {} tokens, {}",
        quantity::title(&agreement.value),
        quantity::scaled(agreement.fewer as f64),
        quantity::scaled(agreement.more as f64),
        if agreement.pairs == 1 {
            "1 candidate".to_owned()
        } else {
            format!("{} candidates", agreement.pairs)
        },
    )
}

/// In the room of a title: `τ 0.72 [0.55, 0.84] 32.8 k → 262 k`; none while there are too few pairs.
pub fn short(agreement: &Agreement) -> Option<String> {
    agreement.kendall?;
    Some(format!(
        "τ {} {} → {}",
        correlation(agreement.kendall),
        quantity::scaled(agreement.fewer as f64),
        quantity::scaled(agreement.more as f64),
    ))
}

/// How well one length of training foretells the next, in a sentence.
pub fn foretold(test: &Backtest) -> String {
    let flip = Value { mean: test.coin_flip(), standard_error: None };
    format!(
        "{}: {:.0} % of the pairs of {} candidates are after {} tokens in the order of {}, {:.0} % by prediction from their \
         curves and kin. Two that differ by less than {} are a coin flip; error bars of 90 % covered {:.0} %.",
        quantity::title(&test.value),
        100.0 * test.right,
        test.candidates,
        quantity::scaled(test.fewer as f64),
        quantity::scaled(test.more as f64),
        100.0 * test.right_predicted,
        quantity::named(&test.value, flip),
        100.0 * test.covered,
    )
}

/// The same in the room of a title: `82 % of pairs as after 1.05 M`.
pub fn pairs(test: &Backtest) -> String {
    let share = test.right.max(test.right_predicted);
    format!("{:.0} % of pairs as after {}", 100.0 * share, quantity::scaled(test.more as f64))
}

/// What is known where a campaign has not measured it.
pub const UNMEASURED: &str = "\
How many pairs longer trainings would turn round is not measured here: `search.rungs` or `trust.longer` with 5 candidates
measure it. It depends on the text. Of 25 stacks on speeches, 262 k tokens order 71 % of the pairs as 16.8 M do, 1 M tokens
83 %, 4 M tokens 94 %; of 12 stacks on source code 39, 50 and 89 % (docs/studies/prediction.md).";
