//! Reading what happened and who did it.

use search::failure::FailureKind;

use crate::error::DbError;
use crate::open::Store;

/// A remembered event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// From 1, in the order of writing.
    pub seq: i64,
    /// Unix time, s.
    pub at_unix_s: i64,
    /// A short word for it.
    pub kind: String,
    /// One sentence.
    pub body: String,
    /// The candidate that it is about.
    pub number: Option<u32>,
    /// Of a failed attempt its kind.
    pub failure: Option<FailureKind>,
}

/// One `deltafront run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// The machine.
    pub host: String,
    /// The driver's process.
    pub pid: i64,
    /// Version of deltafront.
    pub version: String,
    /// Unix time, s.
    pub started_unix_s: i64,
    /// Unix time of its end or its last sign of life, s.
    pub last_unix_s: i64,
    /// `finished`, `paused`, `failed`, `lost`; none: still at work.
    pub end: Option<String>,
}

/// A worker that worked for the campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    /// `trainer`, or `profiler` ([`profiler_of`]).
    pub role: String,
    /// Name and version.
    pub worker: String,
    /// Device by name.
    pub device: String,
}

/// What somebody who times is called in the store: `profiler`, for a further target `profiler.NAME`.
pub fn profiler_of(target: Option<&str>) -> String {
    target.map_or_else(|| "profiler".to_owned(), |target| format!("profiler.{target}"))
}

/// The columns of an event.
type Row = (i64, i64, String, String, Option<u32>, Option<String>);

fn event((seq, at_unix_s, kind, body, number, failure): Row) -> EventRow {
    let failure = failure.as_deref().and_then(FailureKind::of_words);
    EventRow { seq, at_unix_s, kind, body, number, failure }
}

impl Store {
    /// The events of a campaign after the one of number `after`, in order.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn events(&self, name: &str, after: i64) -> Result<Vec<EventRow>, DbError> {
        let campaign_id = self.campaign_id(name).await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT seq, at_unix_s, kind, body, number, failure FROM events WHERE campaign_id = ? AND seq > ? ORDER BY seq",
        )
        .bind(campaign_id)
        .bind(after)
        .fetch_all(&self.pool)
        .await
        .map_err(|source| self.sql("reading the events", source))?;
        Ok(rows.into_iter().map(event).collect())
    }

    /// The attempts at a candidate that came to nothing, in order.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn attempts(&self, name: &str, number: u32) -> Result<Vec<EventRow>, DbError> {
        let campaign_id = self.campaign_id(name).await?;
        let query = sqlx::query_as(concat!(
            "SELECT seq, at_unix_s, kind, body, number, failure FROM events ",
            "WHERE campaign_id = ? AND number = ? ORDER BY seq"
        ));
        let rows: Vec<Row> = query
            .bind(campaign_id)
            .bind(number)
            .fetch_all(&self.pool)
            .await
            .map_err(|source| self.sql("reading the attempts", source))?;
        Ok(rows.into_iter().map(event).collect())
    }

    /// The runs of a campaign, the oldest first.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn runs(&self, name: &str) -> Result<Vec<RunRow>, DbError> {
        let campaign_id = self.campaign_id(name).await?;
        let rows: Vec<(String, i64, String, i64, i64, Option<String>)> = sqlx::query_as(
            "SELECT host, pid, version, started_unix_s, coalesce(ended_unix_s, heartbeat_unix_s), end FROM runs \
             WHERE campaign_id = ? ORDER BY id",
        )
        .bind(campaign_id)
        .fetch_all(&self.pool)
        .await
        .map_err(|source| self.sql("reading the runs", source))?;
        Ok(rows
            .into_iter()
            .map(|(host, pid, version, started_unix_s, last_unix_s, end)| RunRow {
                host,
                pid,
                version,
                started_unix_s,
                last_unix_s,
                end,
            })
            .collect())
    }

    /// The workers that worked for a campaign, each once.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn workers(&self, name: &str) -> Result<Vec<WorkerRow>, DbError> {
        let campaign_id = self.campaign_id(name).await?;
        let rows: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT DISTINCT role, worker, device FROM workers JOIN runs ON runs.id = run_id \
             WHERE campaign_id = ? ORDER BY role, worker, device",
        )
        .bind(campaign_id)
        .fetch_all(&self.pool)
        .await
        .map_err(|source| self.sql("reading the workers", source))?;
        Ok(rows
            .into_iter()
            .map(|(role, worker, device)| WorkerRow { role, worker, device })
            .collect())
    }
}
