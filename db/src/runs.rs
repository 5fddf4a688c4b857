//! The lock of a driver on its campaign: a row that is open while the driver lives.

use std::time::{Duration, Instant};

use sqlx::{Connection, SqliteConnection};

use crate::error::DbError;
use crate::open::Store;
use crate::process::{Life, Owner, WATCH_S, now_unix_s};

/// A driver's hold on a campaign. Every write names it, so a driver that was taken for dead can write no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub(crate) id: i64,
    pub(crate) campaign_id: i64,
    /// The run before this one ended without saying so (`kill -9`, a power cut).
    pub took_over: bool,
}

impl Run {
    /// The number of its first request: beyond those of all runs before it.
    pub fn first_request(&self) -> u64 {
        (self.id.unsigned_abs() << 32) + 1
    }
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

/// A run that has no end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenRun {
    id: i64,
    owner: Owner,
    heartbeat_unix_s: i64,
}

impl OpenRun {
    fn life(&self) -> Life {
        self.owner.life(self.heartbeat_unix_s, now_unix_s())
    }
}

async fn open_run(
    connection: &mut SqliteConnection,
    campaign_id: i64,
) -> Result<Option<OpenRun>, sqlx::Error> {
    let row: Option<(i64, String, i64, Option<i64>, i64)> = sqlx::query_as(
        "SELECT id, host, pid, process_start, heartbeat_unix_s FROM runs WHERE campaign_id = ? AND ended_unix_s IS NULL",
    )
    .bind(campaign_id)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(id, host, pid, process_start, heartbeat_unix_s)| OpenRun {
        id,
        owner: Owner { host, pid, process_start },
        heartbeat_unix_s,
    }))
}

impl Store {
    /// The machine of a run that did not end, of which one look cannot tell whether it lives: [`Store::begin_run`] then
    /// watches it for [`WATCH_S`] seconds.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn unclear_run(&self, campaign: &str) -> Result<Option<String>, DbError> {
        let sql = |source| self.sql("looking for other runs", source);
        let campaign_id = self.campaign_id(campaign).await?;
        let mut connection = self.pool.acquire().await.map_err(sql)?;
        let open = open_run(&mut connection, campaign_id).await.map_err(sql)?;
        let unclear = open.filter(|open| open.life() == Life::Unclear);
        Ok(unclear.map(|open| open.owner.host))
    }

    /// Watches a run that may live or not: gives it if it gave no sign of life.
    async fn watch(&self, campaign_id: i64) -> Result<Option<OpenRun>, DbError> {
        let sql = |source| self.sql("watching another run", source);
        let mut first = None;
        let begin = Instant::now();
        loop {
            let mut connection = self.pool.acquire().await.map_err(sql)?;
            let open = open_run(&mut connection, campaign_id).await.map_err(sql)?;
            drop(connection);
            let Some(open) = open.filter(|open| open.life() == Life::Unclear) else {
                return Ok(None);
            };
            let watched = first.get_or_insert_with(|| open.clone());
            if *watched != open {
                return Ok(None);
            }
            if begin.elapsed() >= Duration::from_secs(WATCH_S) {
                return Ok(first);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Takes the campaign for this driver. A run whose process is gone is ended and taken over; one on another machine
    /// whose clock may differ is watched first, and taken over if its heartbeat does not change.
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
        let campaign_id = self.campaign_id(campaign).await?;
        let silent = self.watch(campaign_id).await?;
        let now = now_unix_s();
        let mut connection = self.pool.acquire().await.map_err(sql)?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(sql)?;
        let open = open_run(&mut transaction, campaign_id).await.map_err(sql)?;
        let took_over = open.is_some();
        if let Some(open) = open {
            let is_dead = open.life() == Life::Dead || silent.as_ref() == Some(&open);
            let OpenRun { id, owner: Owner { host, pid, .. }, .. } = open;
            if !is_dead {
                return Err(DbError::Busy { name: campaign.to_owned(), pid, host });
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
    /// [`DbError::RunLost`] when another driver has taken the campaign over, [`DbError::Gone`] when the file is not at its
    /// path any more.
    pub async fn heartbeat(&self, run: &Run) -> Result<(), DbError> {
        self.still_there().await?;
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
    /// [`DbError::RunLost`] when another driver has taken the campaign over, [`DbError::Gone`] when the file is not at its
    /// path any more.
    pub async fn end_run(&self, run: &Run, end: RunEnd) -> Result<(), DbError> {
        self.still_there().await?;
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
