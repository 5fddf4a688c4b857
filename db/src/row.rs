//! Between columns and types.

use search::latency::Timing;
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};

use search::campaign::CandidateState;
use search::wire::LayerRetrieval;

/// The columns `state`, `reason`, `log`.
pub(crate) fn state_columns(state: &CandidateState) -> (&'static str, Option<&str>, Option<&str>) {
    match state {
        CandidateState::Proposed => ("proposed", None, None),
        CandidateState::Training => ("training", None, None),
        CandidateState::Done => ("done", None, None),
        CandidateState::Infeasible { reason } => ("infeasible", Some(reason), None),
        CandidateState::Failed { reason, log } => ("failed", Some(reason), Some(log)),
    }
}

/// The inverse of [`state_columns`]; none when the word is unknown.
pub(crate) fn state(
    word: &str,
    reason: Option<String>,
    log: Option<String>,
) -> Option<CandidateState> {
    let reason = reason.unwrap_or_default();
    Some(match word {
        "proposed" => CandidateState::Proposed,
        "training" => CandidateState::Training,
        "done" => CandidateState::Done,
        "infeasible" => CandidateState::Infeasible { reason },
        "failed" => CandidateState::Failed { reason, log: log.unwrap_or_default() },
        _ => return None,
    })
}

/// The timing in columns of these names.
pub(crate) fn timing(row: &SqliteRow) -> Result<Timing, sqlx::Error> {
    Ok(Timing {
        median_us: row.try_get("median_us")?,
        spread_us: row.try_get("spread_us")?,
        samples: row.try_get("samples")?,
        other_load: row.try_get("other_load")?,
        kernels: row.try_get("kernels")?,
        millijoules: newer(row, "millijoules")?.flatten(),
    })
}

/// The column `retrieval`; empty where there is none.
pub(crate) fn retrieval(row: &SqliteRow) -> Result<Vec<LayerRetrieval>, String> {
    match newer::<String>(row, "retrieval").map_err(|error| error.to_string())? {
        Some(text) => serde_json::from_str(&text).map_err(|error| error.to_string()),
        None => Ok(Vec::new()),
    }
}

/// A column that a file does not have which an older version wrote and a viewer has opened: none there.
fn newer<'r, T>(row: &'r SqliteRow, column: &str) -> Result<Option<T>, sqlx::Error>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    match row.try_get(column) {
        Err(sqlx::Error::ColumnNotFound(_)) => Ok(None),
        read => read.map(Some),
    }
}

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs of numbers and strings serialise")
}
