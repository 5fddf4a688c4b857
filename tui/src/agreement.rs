//! Rank correlations as people read them.

use search::campaign::findings::Agreement;
use search::statistics::Correlation;

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
