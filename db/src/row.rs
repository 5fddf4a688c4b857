//! Between columns and types.

use search::failure::FailureKind;
use search::latency::Timing;
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use search::campaign::CandidateState;
use search::wire::LayerRetrieval;

/// From the columns `state`, `failure`, `reason`, `log`; none when a word is unknown.
pub(crate) fn state(
    word: &str,
    failure: Option<&str>,
    reason: Option<String>,
    log: Option<String>,
) -> Option<CandidateState> {
    let reason = reason.unwrap_or_default();
    Some(match word {
        "proposed" => CandidateState::Proposed,
        "training" => CandidateState::Training,
        "done" => CandidateState::Done,
        "infeasible" => CandidateState::Infeasible { reason },
        "failed" => CandidateState::Failed {
            kind: FailureKind::of_words(failure?)?,
            reason,
            log: log.unwrap_or_default(),
        },
        _ => return None,
    })
}

/// Numbers as a blob, little-endian.
pub(crate) fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The inverse of [`bytes`]; a rest is left out.
pub(crate) fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

/// The timing in columns of these names.
pub(crate) fn timing(row: &SqliteRow) -> Result<Timing, sqlx::Error> {
    Ok(Timing {
        median_us: row.try_get("median_us")?,
        spread_us: row.try_get("spread_us")?,
        samples: row.try_get("samples")?,
        other_load: row.try_get("other_load")?,
        kernels: row.try_get("kernels")?,
        millijoules: row.try_get("millijoules")?,
    })
}

/// The column `retrieval`.
pub(crate) fn retrieval(row: &SqliteRow) -> Result<Vec<LayerRetrieval>, String> {
    let text: String = row.try_get("retrieval").map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs of numbers and strings serialise")
}
