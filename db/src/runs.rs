//! The lock of a driver on its campaign: a row that is open while the driver lives.

use sqlx::Connection;

use crate::error::DbError;
use crate::open::Store;
use crate::process::{Owner, now_unix_s};

/// A driver's hold on a campaign. Every write names it, so a driver that was taken for dead can write no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub(crate) id: i64,
    pub(crate) campaign_id: i64,
    /// The run before this one ended without saying so (`kill -9`, a power cut).
    pub took_over: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// The campaign is done.
    Finished,
    /// Stopped by the user; `run` goes on.
    Paused,
    /// Stopped by an error; `run` tries to go on.
    Failed,
}

impl RunEnd {
    fn word(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Paused => "paused",
            Self::Failed => "failed",
        }
    }
}

impl Store {
    /// Takes the campaign for this driver. A run whose process is gone is ended and taken over.
    ///
    /// # Errors
    /// [`DbError::Busy`] when another driver is at work on it.
    pub async fn begin_run(
        &self,
        campaign: &str,
        owner: &Owner,
        version: &str,
    ) -> Result<Run, DbError> {
        let sql = |source| self.sql("taking the campaign", source);
        let now = now_unix_s();
        let campaign_id = self.campaign_id(campaign).await?;
        let mut connection = self.pool.acquire().await.map_err(sql)?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(sql)?;
        let open: Option<(i64, String, i64, Option<i64>, i64)> = sqlx::query_as(
            "SELECT id, host, pid, process_start, heartbeat_unix_s FROM runs \
             WHERE campaign_id = ? AND ended_unix_s IS NULL",
        )
        .bind(campaign_id)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(sql)?;
        let took_over = open.is_some();
        if let Some((id, host, pid, process_start, heartbeat)) = open {
            let other = Owner { host, pid, process_start };
            if other.is_alive(heartbeat, now) {
                return Err(DbError::Busy { name: campaign.to_owned(), pid, host: other.host });
            }
            sqlx::query(
                "UPDATE runs SET ended_unix_s = heartbeat_unix_s, end = 'lost' WHERE id = ?",
            )
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
        }
        let id = sqlx::query(
            "INSERT INTO runs (campaign_id, host, pid, process_start, version, started_unix_s, heartbeat_unix_s) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(campaign_id)
        .bind(&owner.host)
        .bind(owner.pid)
        .bind(owner.process_start)
        .bind(version)
        .bind(now)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(sql)?
        .last_insert_rowid();
        sqlx::query("UPDATE campaigns SET revision = revision + 1 WHERE id = ?")
            .bind(campaign_id)
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
        transaction.commit().await.map_err(sql)?;
        Ok(Run { id, campaign_id, took_over })
    }

    /// Says that the driver still lives; every few seconds.
    ///
    /// # Errors
    /// [`DbError::RunLost`] when another driver has taken the campaign over.
    pub async fn heartbeat(&self, run: &Run) -> Result<(), DbError> {
        let updated = sqlx::query(
            "UPDATE runs SET heartbeat_unix_s = ? WHERE id = ? AND ended_unix_s IS NULL",
        )
        .bind(now_unix_s())
        .bind(run.id)
        .execute(&self.pool)
        .await
        .map_err(|source| self.sql("writing the heartbeat", source))?;
        if updated.rows_affected() == 1 { Ok(()) } else { Err(DbError::RunLost) }
    }

    /// Gives the campaign back.
    ///
    /// # Errors
    /// [`DbError::RunLost`] when another driver has taken the campaign over.
    pub async fn end_run(&self, run: &Run, end: RunEnd) -> Result<(), DbError> {
        let sql = |source| self.sql("ending the run", source);
        let now = now_unix_s();
        let mut connection = self.pool.acquire().await.map_err(sql)?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(sql)?;
        let updated = sqlx::query(
            "UPDATE runs SET heartbeat_unix_s = ?, ended_unix_s = ?, end = ? WHERE id = ? AND ended_unix_s IS NULL",
        )
        .bind(now)
        .bind(now)
        .bind(end.word())
        .bind(run.id)
        .execute(&mut *transaction)
        .await
        .map_err(sql)?;
        if updated.rows_affected() != 1 {
            return Err(DbError::RunLost);
        }
        sqlx::query("UPDATE campaigns SET finished = ?, revision = revision + 1 WHERE id = ?")
            .bind(end == RunEnd::Finished)
            .bind(run.campaign_id)
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
        transaction.commit().await.map_err(sql)
    }
}
