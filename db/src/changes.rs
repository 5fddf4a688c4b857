//! Writing: what one event changes, in one transaction.

use search::campaign::{Candidate, Progress};
use search::failure::FailureKind;
use search::latency::{LatencyEntry, Timing};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnection, SqliteQueryResult};

use crate::campaigns::NewCampaign;
use crate::candidates;
use crate::circumstances::Circumstance;
use crate::error::{DbError, finite};
use crate::open::Store;
use crate::process::now_unix_s;
use crate::row;
use crate::runs::Run;
use crate::trainers::{self, TrainedBy};

/// One thing that changes in a campaign.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A candidate, new or changed: the whole row with its values, timings and curve.
    Candidate(Candidate),
    /// One more point of a training curve.
    Progress {
        /// Where the training stands.
        progress: Progress,
        /// Seconds of training so far.
        seconds: f64,
    },
    /// A row of the latency table.
    Latency(LatencyEntry),
    /// A worker said hello.
    Worker {
        /// `trainer` or `profiler`.
        role: String,
        /// Name and version.
        worker: String,
        /// Device by name.
        device: String,
    },
    /// Who did a training.
    Trained(TrainedBy),
    /// The campaign file changed in something that keeps earlier results comparable. Name and kind stay.
    Settings(NewCampaign),
    /// All candidates are forgotten: the campaign begins anew. The latency table stays.
    Forget,
    /// What results depend on beside the campaign file; in the place of an earlier one of that key.
    Circumstance(Circumstance),
    /// An attempt that came to nothing, remembered as an event.
    Attempt {
        /// `failed attempt`, `late result`.
        kind: String,
        /// The candidate; none: a part was to be timed.
        number: Option<u32>,
        /// Of a failed one.
        failure: Option<FailureKind>,
        /// One sentence, and the last lines of a log.
        body: String,
    },
    /// Something to remember for people, in order.
    Event {
        /// A short word for it.
        kind: String,
        /// One sentence.
        body: String,
    },
}

impl Store {
    /// Writes what one event changes: all of it or nothing. Gives the new revision.
    ///
    /// # Errors
    /// When a number is not finite, the run was taken over, the file is gone, or SQLite cannot write (a full disk).
    pub async fn apply(&self, run: &Run, changes: &[Change]) -> Result<i64, DbError> {
        changes.iter().try_for_each(check)?;
        self.still_there().await?;
        let sql = |source| self.sql("writing to the campaign", source);
        let now = now_unix_s();
        let mut connection = self.pool.acquire().await.map_err(sql)?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(sql)?;
        let held = sqlx::query(
            "UPDATE runs SET heartbeat_unix_s = ? WHERE id = ? AND ended_unix_s IS NULL",
        )
        .bind(now)
        .bind(run.id)
        .execute(&mut *transaction)
        .await
        .map_err(sql)?;
        if held.rows_affected() != 1 {
            return Err(DbError::RunLost);
        }
        for change in changes {
            let touched = write(&mut transaction, run, now, change).await.map_err(sql)?;
            if let (0, Change::Progress { progress, .. }) = (touched, change) {
                return Err(DbError::NoCandidate { number: progress.number });
            }
        }
        let revision: i64 = sqlx::query_scalar(
            "UPDATE campaigns SET revision = revision + 1 WHERE id = ? RETURNING revision",
        )
        .bind(run.campaign_id)
        .fetch_one(&mut *transaction)
        .await
        .map_err(sql)?;
        transaction.commit().await.map_err(sql)?;
        Ok(revision)
    }
}

/// Refuses what is not finite: NaN would become NULL, and infinity would enter a front.
fn check(change: &Change) -> Result<(), DbError> {
    match change {
        Change::Candidate(candidate) => {
            let number = candidate.number;
            for (name, value) in &candidate.values {
                finite(|| format!("{name} of candidate {number}"), value.mean)?;
                finite(
                    || format!("the standard error of {name} of candidate {number}"),
                    value.standard_error.unwrap_or(0.0),
                )?;
            }
            for (name, sum_us) in &candidate.sums {
                finite(|| format!("the sum of {name} of candidate {number}"), *sum_us)?;
            }
            for (name, timing) in candidate.whole.iter().chain(&candidate.earlier) {
                check_timing(timing, || {
                    format!("{name} of the whole model of candidate {number}")
                })?;
            }
            finite(|| format!("the training time of candidate {number}"), candidate.train_seconds)?;
            for trained in &candidate.trained {
                let of = || format!("a training of candidate {number}");
                finite(|| format!("the time of {}", of()), trained.seconds)?;
                for (name, value) in &trained.values {
                    finite(|| format!("{name} of {}", of()), value.mean)?;
                    finite(
                        || format!("the standard error of {name} of {}", of()),
                        value.standard_error.unwrap_or(0.0),
                    )?;
                }
            }
            for (tokens, loss) in &candidate.curve {
                finite(|| format!("the loss of candidate {number} at {tokens} tokens"), *loss)?;
            }
            for (pairs, snr) in
                candidate.retrieval.iter().flat_map(search::wire::LayerRetrieval::points)
            {
                finite(
                    || format!("the retrieval SNR of candidate {number} at {pairs} pairs"),
                    *snr,
                )?;
            }
        }
        Change::Progress { progress, seconds } => {
            finite(|| format!("the training time of candidate {}", progress.number), *seconds)?;
            let Progress { number, tokens, loss, .. } = *progress;
            finite(|| format!("the loss of candidate {number} at {tokens} tokens"), loss)?;
        }
        Change::Latency(LatencyEntry { key, timing }) => check_timing(timing, || key.to_string())?,
        Change::Worker { .. }
        | Change::Trained(_)
        | Change::Settings(_)
        | Change::Forget
        | Change::Circumstance(_)
        | Change::Attempt { .. }
        | Change::Event { .. } => {}
    }
    Ok(())
}

fn check_timing(timing: &Timing, what: impl Fn() -> String) -> Result<(), DbError> {
    let Timing { median_us, spread_us, other_load, millijoules, .. } = *timing;
    for (part, value) in [
        ("median", median_us),
        ("spread", spread_us),
        ("load from other processes", other_load),
        ("energy", millijoules.unwrap_or(0.0)),
    ] {
        finite(|| format!("the {part} of the timing of {}", what()), value)?;
    }
    Ok(())
}

/// Writes one change; gives the number of rows it touched.
async fn write(
    connection: &mut SqliteConnection,
    run: &Run,
    now: i64,
    change: &Change,
) -> Result<u64, sqlx::Error> {
    let campaign = run.campaign_id;
    let done = match change {
        Change::Candidate(candidate) => return candidates::write(connection, campaign, candidate).await,
        Change::Progress { progress, seconds } => {
            return candidates::write_progress(connection, campaign, progress, *seconds).await;
        }
        Change::Latency(LatencyEntry { key, timing }) => {
            sqlx::query(
                "INSERT OR REPLACE INTO latencies (key, kernels, key_json, median_us, spread_us, samples, \
                 other_load, millijoules, measured_unix_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(key.to_string())
            .bind(&timing.kernels)
            .bind(row::json(key))
            .bind(timing.median_us)
            .bind(timing.spread_us)
            .bind(timing.samples)
            .bind(timing.other_load)
            .bind(timing.millijoules)
            .bind(now)
            .execute(connection)
            .await?
        }
        Change::Worker { role, worker, device } => {
            sqlx::query("INSERT OR IGNORE INTO workers (run_id, role, worker, device) VALUES (?, ?, ?, ?)")
                .bind(run.id)
                .bind(role)
                .bind(worker)
                .bind(device)
                .execute(connection)
                .await?
        }
        Change::Trained(of) => trainers::write(connection, campaign, of).await?,
        Change::Forget => {
            sqlx::query("DELETE FROM candidates WHERE campaign_id = ?")
                .bind(campaign)
                .execute(connection)
                .await?
        }
        Change::Settings(new) => {
            sqlx::query(
                "UPDATE campaigns SET config_toml = ?, config_folder = ?, seed = ?, evaluations = ?, \
                 tokens = ?, target_tokens = ?, objectives = ?, latency = ?, finished = 0 WHERE id = ?",
            )
            .bind(&new.config_toml)
            .bind(&new.config_folder)
            .bind(new.seed.cast_signed())
            .bind(new.evaluations)
            .bind(new.tokens.cast_signed())
            .bind(new.target_tokens.cast_signed())
            .bind(row::json(&new.objectives))
            .bind(row::json(&new.latency))
            .bind(campaign)
            .execute(connection)
            .await?
        }
        Change::Circumstance(Circumstance { key, value, stamp }) => {
            sqlx::query("INSERT OR REPLACE INTO circumstances (campaign_id, key, value, stamp) VALUES (?, ?, ?, ?)")
                .bind(campaign)
                .bind(key)
                .bind(value)
                .bind(stamp)
                .execute(connection)
                .await?
        }
        Change::Attempt { kind, number, failure, body } => {
            remember(connection, run, now, (kind, body), (*number, *failure)).await?
        }
        Change::Event { kind, body } => {
            remember(connection, run, now, (kind, body), (None, None)).await?
        }
    };
    Ok(done.rows_affected())
}

/// Adds an event.
async fn remember(
    connection: &mut SqliteConnection,
    run: &Run,
    now: i64,
    (kind, body): (&str, &str),
    (number, failure): (Option<u32>, Option<FailureKind>),
) -> Result<SqliteQueryResult, sqlx::Error> {
    sqlx::query(
        "INSERT INTO events (campaign_id, seq, run_id, at_unix_s, kind, body, number, failure) \
         SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7 FROM events WHERE campaign_id = ?1",
    )
    .bind(run.campaign_id)
    .bind(run.id)
    .bind(now)
    .bind(kind)
    .bind(body)
    .bind(number)
    .bind(failure.map(FailureKind::words))
    .execute(connection)
    .await
}
