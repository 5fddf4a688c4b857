//! Candidates between rows and [`search::campaign::Candidate`].

use std::collections::BTreeMap;

use search::campaign::{Candidate, History, Progress, Trained};
use search::latency::Timing;
use search::subject::SubjectError;
use search::value::{Value, Values};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::error::DbError;
use crate::open::Store;
use crate::process::now_unix_s;
use crate::row;

/// Candidates that are read at once: what SQLite gives of them and what is made of it are held together for so many only.
pub(crate) const PAGE: i64 = 1000;

/// Candidate, tokens, seed, seconds, and a value with its name, mean, standard error and parts.
pub(crate) type TrainingRow =
    (i64, i64, i64, f64, Option<String>, Option<f64>, Option<f64>, Option<Vec<u8>>);

impl Store {
    /// What the campaign's state machine goes on from: all its candidates, and the whole latency table.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn history(&self, name: &str) -> Result<History, DbError> {
        let sql = |source| self.sql("reading the campaign", source);
        let campaign_id = self.campaign_id(name).await?;
        let candidates = {
            let mut connection = self.pool.acquire().await.map_err(sql)?;
            let mut transaction = connection.begin().await.map_err(sql)?;
            self.candidates(&mut transaction, campaign_id).await?
        };
        Ok(History { candidates, latencies: self.latencies().await? })
    }

    /// All of one candidate; none if there is none of that number.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn candidate(&self, name: &str, number: u32) -> Result<Option<Candidate>, DbError> {
        let sql = |source| self.sql("reading the candidate", source);
        let campaign_id = self.campaign_id(name).await?;
        let mut connection = self.pool.acquire().await.map_err(sql)?;
        let mut transaction = connection.begin().await.map_err(sql)?;
        let before = i64::from(number) - 1;
        let page = self.page(&mut transaction, campaign_id, before, 1).await?;
        Ok(page.into_iter().next().filter(|candidate| candidate.number == number))
    }

    /// All candidates of a campaign, by number.
    pub(crate) async fn candidates(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
    ) -> Result<Vec<Candidate>, DbError> {
        let mut candidates: Vec<Candidate> = Vec::new();
        loop {
            let after = candidates.last().map_or(0, |last| i64::from(last.number));
            let page = self.page(connection, campaign_id, after, PAGE).await?;
            let is_last = (page.len() as i64) < PAGE;
            candidates.extend(page);
            if is_last {
                return Ok(candidates);
            }
        }
    }

    /// At most `most` candidates whose numbers are above `after`.
    async fn page(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
        after: i64,
        most: i64,
    ) -> Result<Vec<Candidate>, DbError> {
        let sql = |source| self.sql("reading the candidates", source);
        let rows = sqlx::query(
            "SELECT * FROM candidates WHERE campaign_id = ? AND number > ? ORDER BY number LIMIT ?",
        )
        .bind(campaign_id)
        .bind(after)
        .bind(most)
        .fetch_all(&mut *connection)
        .await
        .map_err(sql)?;
        let Some(last) = rows.last() else { return Ok(Vec::new()) };
        let last: i64 = last.try_get("number").map_err(sql)?;
        let value_rows: Vec<(i64, String, f64, Option<f64>)> = sqlx::query_as(
            "SELECT candidate_id, name, mean, standard_error FROM candidate_values \
             JOIN candidates ON candidates.id = candidate_id WHERE campaign_id = ? AND number > ? AND number <= ?",
        )
        .bind(campaign_id)
        .bind(after)
        .bind(last)
        .fetch_all(&mut *connection)
        .await
        .map_err(sql)?;
        let mut values: BTreeMap<i64, Values> = BTreeMap::new();
        for (id, name, mean, standard_error) in value_rows {
            values.entry(id).or_default().insert(name.into(), Value { mean, standard_error });
        }
        let points: Vec<(i64, i64, f64)> = sqlx::query_as(
            "SELECT candidate_id, p.tokens, loss FROM curve_points p JOIN candidates ON candidates.id = candidate_id \
             WHERE campaign_id = ? AND number > ? AND number <= ? ORDER BY candidate_id, p.tokens",
        )
        .bind(campaign_id)
        .bind(after)
        .bind(last)
        .fetch_all(&mut *connection)
        .await
        .map_err(sql)?;
        let mut curves: BTreeMap<i64, Vec<(u64, f64)>> = BTreeMap::new();
        for (id, tokens, loss) in points {
            curves.entry(id).or_default().push((tokens.cast_unsigned(), loss));
        }
        let mut wholes = self.wholes(connection, campaign_id, (after, last)).await?;
        let mut trained = self.trained(connection, campaign_id, (after, last)).await?;
        rows.iter()
            .map(|row| {
                let id: i64 = row.try_get("id").map_err(sql)?;
                let Wholes { whole, earlier, sums } = wholes.remove(&id).unwrap_or_default();
                Ok(Candidate {
                    trained: trained.remove(&id).unwrap_or_default(),
                    values: values.remove(&id).unwrap_or_default(),
                    whole,
                    earlier,
                    sums,
                    curve: curves.remove(&id).unwrap_or_default(),
                    ..self.candidate_row(row)?
                })
            })
            .collect()
    }

    /// The timings of whole models and what their parts add up to, by candidate, of those whose numbers are above `after` and up to `last`.
    pub(crate) async fn wholes(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
        numbers: (i64, i64),
    ) -> Result<BTreeMap<i64, Wholes>, DbError> {
        let sql = |source| self.sql("reading the timings", source);
        let mut wholes: BTreeMap<i64, Wholes> = BTreeMap::new();
        let mut of = |timing: &SqliteRow, take: &dyn Fn(&mut Wholes, String)| {
            let of_candidate = wholes.entry(timing.try_get("candidate_id")?).or_default();
            take(of_candidate, timing.try_get("name")?);
            Ok(())
        };
        for timing in self.timings(connection, "whole_timings", campaign_id, numbers).await? {
            let sum_us: Option<f64> = timing.try_get("sum_us").map_err(sql)?;
            let whole = row::timing(&timing).map_err(sql)?;
            of(&timing, &|wholes, name| {
                wholes.sums.extend(sum_us.map(|sum_us| (name.clone(), sum_us)));
                wholes.whole.insert(name, whole.clone());
            })
            .map_err(sql)?;
        }
        for timing in self.timings(connection, "earlier_timings", campaign_id, numbers).await? {
            let earlier = row::timing(&timing).map_err(sql)?;
            of(&timing, &|wholes, name| {
                wholes.earlier.insert(name, earlier.clone());
            })
            .map_err(sql)?;
        }
        Ok(wholes)
    }

    async fn timings(
        &self,
        connection: &mut SqliteConnection,
        table: &'static str,
        campaign_id: i64,
        (after, last): (i64, i64),
    ) -> Result<Vec<SqliteRow>, DbError> {
        let text = format!(
            "SELECT t.* FROM {table} t JOIN candidates ON candidates.id = candidate_id \
             WHERE campaign_id = ? AND number > ? AND number <= ?"
        );
        sqlx::query(AssertSqlSafe(text))
            .bind(campaign_id)
            .bind(after)
            .bind(last)
            .fetch_all(connection)
            .await
            .map_err(|source| self.sql("reading the timings", source))
    }

    /// Seconds between the two timings of whole models that were timed twice, on average, by the name of the latency.
    pub(crate) async fn seconds_between(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
    ) -> Result<BTreeMap<String, f64>, DbError> {
        let rows: Vec<(String, f64)> = sqlx::query_as(
            "SELECT w.name, avg(w.measured_unix_s - e.measured_unix_s) FROM candidates c \
             JOIN earlier_timings e ON e.candidate_id = c.id \
             JOIN whole_timings w ON w.candidate_id = c.id AND w.name = e.name \
             WHERE c.campaign_id = ? AND w.measured_unix_s >= e.measured_unix_s GROUP BY w.name",
        )
        .bind(campaign_id)
        .fetch_all(connection)
        .await
        .map_err(|source| self.sql("reading the timings", source))?;
        Ok(rows.into_iter().collect())
    }

    /// The finished trainings of the candidates whose numbers are above `after` and up to `last`, by candidate.
    async fn trained(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
        (after, last): (i64, i64),
    ) -> Result<BTreeMap<i64, Vec<Trained>>, DbError> {
        let sql = |source| self.sql("reading the trainings", source);
        let rows: Vec<TrainingRow> = sqlx::query_as(
            "SELECT t.candidate_id, t.tokens, t.seed, t.seconds, v.name, v.mean, v.standard_error, v.parts FROM trainings t \
             JOIN candidates ON candidates.id = t.candidate_id \
             LEFT JOIN training_values v USING (candidate_id, tokens, seed) \
             WHERE campaign_id = ? AND number > ? AND number <= ?",
        )
        .bind(campaign_id)
        .bind(after)
        .bind(last)
        .fetch_all(connection)
        .await
        .map_err(sql)?;
        Ok(by_candidate(rows))
    }

    /// The columns of one row; its values, trainings, timings and curve are left empty.
    fn candidate_row(&self, row: &SqliteRow) -> Result<Candidate, DbError> {
        let sql = |source| self.sql("reading the candidates", source);
        let number: u32 = row.try_get("number").map_err(sql)?;
        let text: String = row.try_get("architecture").map_err(sql)?;
        let subject = text.parse().map_err(|error: SubjectError| {
            self.corrupt(format!("the architecture of candidate {number}"), error)
        })?;
        let word: String = row.try_get("state").map_err(sql)?;
        let failure: Option<String> = row.try_get("failure").map_err(sql)?;
        let reason = row.try_get("reason").map_err(sql)?;
        let log = row.try_get("log").map_err(sql)?;
        let state = row::state(&word, failure.as_deref(), reason, log).ok_or_else(|| {
            self.corrupt(
                format!("the state of candidate {number}"),
                format!("unknown word `{word}`"),
            )
        })?;
        Ok(Candidate {
            number,
            subject,
            reference: row.try_get("reference").map_err(sql)?,
            origin: row.try_get("origin").map_err(sql)?,
            state,
            failed_attempts: row.try_get("failed_attempts").map_err(sql)?,
            given_up: row.try_get("given_up").map_err(sql)?,
            values: Values::new(),
            fidelity: row.try_get::<i64, _>("fidelity").map_err(sql)?.cast_unsigned(),
            trained: Vec::new(),
            whole: BTreeMap::new(),
            earlier: BTreeMap::new(),
            sums: BTreeMap::new(),
            curve: Vec::new(),
            retrieval: row::retrieval(row).map_err(|error| {
                self.corrupt(format!("the retrieval of candidate {number}"), error)
            })?,
            seed: row.try_get::<i64, _>("seed").map_err(sql)?.cast_unsigned(),
            tokens: row.try_get::<i64, _>("tokens").map_err(sql)?.cast_unsigned(),
            train_seconds: row.try_get("train_seconds").map_err(sql)?,
            checkpoint: row
                .try_get::<Option<String>, _>("checkpoint")
                .map_err(sql)?
                .map(Into::into),
        })
    }
}

/// Times of a whole model, and what its parts add up to, by name.
#[derive(Debug, Default)]
pub(crate) struct Wholes {
    pub(crate) whole: BTreeMap<String, Timing>,
    pub(crate) earlier: BTreeMap<String, Timing>,
    pub(crate) sums: BTreeMap<String, f64>,
}

/// Trainings with their values, by candidate.
pub(crate) fn by_candidate(rows: Vec<TrainingRow>) -> BTreeMap<i64, Vec<Trained>> {
    let mut by_key: BTreeMap<(i64, u64, u64), Trained> = BTreeMap::new();
    for (id, tokens, seed, seconds, name, mean, standard_error, parts) in rows {
        let (tokens, seed) = (tokens.cast_unsigned(), seed.cast_unsigned());
        let trained = by_key.entry((id, tokens, seed)).or_insert_with(|| Trained {
            tokens,
            seed,
            values: Values::new(),
            parts: BTreeMap::new(),
            seconds,
        });
        if let (Some(name), Some(mean)) = (name, mean) {
            if let Some(parts) = parts {
                trained.parts.insert(name.clone(), row::numbers(&parts));
            }
            trained.values.insert(name.into(), Value { mean, standard_error });
        }
    }
    let mut by_candidate: BTreeMap<i64, Vec<Trained>> = BTreeMap::new();
    for ((id, _, _), trained) in by_key {
        by_candidate.entry(id).or_insert_with(|| Vec::with_capacity(1)).push(trained);
    }
    by_candidate
}

/// Writes the whole candidate, new or changed.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    campaign_id: i64,
    candidate: &Candidate,
) -> Result<u64, sqlx::Error> {
    let (state, reason) = (candidate.state.word(), candidate.state.reason());
    let (failure, log) = candidate.state.failure().map(|(kind, log)| (kind.words(), log)).unzip();
    // Number, subject, reference, origin and seed never change.
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO candidates (campaign_id, number, architecture, hash, reference, origin, seed, state, reason, log, \
         failed_attempts, given_up, fidelity, tokens, train_seconds, checkpoint, retrieval, failure) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (campaign_id, number) DO UPDATE SET state = excluded.state, reason = excluded.reason, \
         log = excluded.log, failed_attempts = excluded.failed_attempts, \
         given_up = excluded.given_up, fidelity = excluded.fidelity, \
         tokens = excluded.tokens, train_seconds = excluded.train_seconds, checkpoint = excluded.checkpoint, \
         retrieval = excluded.retrieval, failure = excluded.failure RETURNING id",
    )
    .bind(campaign_id)
    .bind(candidate.number)
    .bind(candidate.subject.to_string())
    .bind(candidate.subject.id().as_str())
    .bind(&candidate.reference)
    .bind(&candidate.origin)
    .bind(candidate.seed.cast_signed())
    .bind(state)
    .bind(reason)
    .bind(log)
    .bind(candidate.failed_attempts)
    .bind(candidate.given_up)
    .bind(candidate.fidelity.cast_signed())
    .bind(candidate.tokens.cast_signed())
    .bind(candidate.train_seconds)
    .bind(candidate.checkpoint.as_ref().map(|path| path.to_string_lossy().into_owned()))
    .bind(row::json(&candidate.retrieval))
    .bind(failure)
    .fetch_one(&mut *connection)
    .await?;
    for table in [
        "DELETE FROM candidate_values WHERE candidate_id = ?",
        "DELETE FROM curve_points WHERE candidate_id = ?",
        "DELETE FROM trainings WHERE candidate_id = ?",
    ] {
        sqlx::query(table).bind(id).execute(&mut *connection).await?;
    }
    for (name, value) in &candidate.values {
        sqlx::query("INSERT INTO candidate_values (candidate_id, name, mean, standard_error) VALUES (?, ?, ?, ?)")
            .bind(id)
            .bind(name.as_str())
            .bind(value.mean)
            .bind(value.standard_error)
            .execute(&mut *connection)
            .await?;
    }
    write_wholes(connection, id, candidate).await?;
    for trained in &candidate.trained {
        let (tokens, seed) = (trained.tokens.cast_signed(), trained.seed.cast_signed());
        sqlx::query(
            "INSERT INTO trainings (candidate_id, tokens, seed, seconds) VALUES (?, ?, ?, ?)",
        )
        .bind(id)
        .bind(tokens)
        .bind(seed)
        .bind(trained.seconds)
        .execute(&mut *connection)
        .await?;
        for (name, value) in &trained.values {
            sqlx::query(
                "INSERT INTO training_values (candidate_id, tokens, seed, name, mean, standard_error, parts) \
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(id)
            .bind(tokens)
            .bind(seed)
            .bind(name.as_str())
            .bind(value.mean)
            .bind(value.standard_error)
            .bind(trained.parts.get(name.as_str()).map(|parts| row::bytes(parts)))
            .execute(&mut *connection)
            .await?;
        }
    }
    for (tokens, loss) in &candidate.curve {
        sqlx::query(
            "INSERT OR REPLACE INTO curve_points (candidate_id, tokens, loss) VALUES (?, ?, ?)",
        )
        .bind(id)
        .bind(tokens.cast_signed())
        .bind(loss)
        .execute(&mut *connection)
        .await?;
    }
    Ok(1)
}

/// Writes the timings of the whole model, each with the moment at which it was first written.
async fn write_wholes(
    connection: &mut SqliteConnection,
    id: i64,
    candidate: &Candidate,
) -> Result<(), sqlx::Error> {
    let names: Vec<&String> = candidate.whole.keys().collect();
    // Before a later timing takes its place, the first one takes its moment with it.
    for (name, timing) in &candidate.earlier {
        of_timing(
            "INSERT INTO earlier_timings (candidate_id, name, median_us, spread_us, samples, other_load, kernels, \
             millijoules, measured_unix_s) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, \
             (SELECT measured_unix_s FROM whole_timings WHERE candidate_id = ?1 AND name = ?2)) \
             ON CONFLICT (candidate_id, name) DO NOTHING",
            (id, name, timing),
        )
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query(
        "DELETE FROM whole_timings WHERE candidate_id = ? AND name NOT IN (SELECT value FROM json_each(?))",
    )
    .bind(id)
    .bind(row::json(&names))
    .execute(&mut *connection)
    .await?;
    for (name, timing) in &candidate.whole {
        of_timing(
            "INSERT INTO whole_timings (candidate_id, name, median_us, spread_us, samples, other_load, kernels, \
             millijoules, sum_us, measured_unix_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (candidate_id, name) DO UPDATE SET median_us = excluded.median_us, \
             spread_us = excluded.spread_us, samples = excluded.samples, other_load = excluded.other_load, \
             kernels = excluded.kernels, millijoules = excluded.millijoules, sum_us = excluded.sum_us, \
             measured_unix_s = CASE WHEN median_us = excluded.median_us AND spread_us = excluded.spread_us \
             THEN measured_unix_s ELSE excluded.measured_unix_s END",
            (id, name, timing),
        )
        .bind(candidate.sums.get(name))
        .bind(now_unix_s())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// A statement whose first values are those of a candidate's timing: candidate_id, name, median_us, spread_us, samples,
/// other_load, kernels, millijoules.
fn of_timing<'q>(
    statement: &'static str,
    (id, name, timing): (i64, &'q String, &'q Timing),
) -> Query<'q, Sqlite, SqliteArguments> {
    sqlx::query(statement)
        .bind(id)
        .bind(name)
        .bind(timing.median_us)
        .bind(timing.spread_us)
        .bind(timing.samples)
        .bind(timing.other_load)
        .bind(&timing.kernels)
        .bind(timing.millijoules)
}

/// Adds a point to the curve of a candidate.
pub(crate) async fn write_progress(
    connection: &mut SqliteConnection,
    campaign_id: i64,
    progress: &Progress,
    seconds: f64,
) -> Result<u64, sqlx::Error> {
    let id: Option<i64> = sqlx::query_scalar(
        "UPDATE candidates SET tokens = ?, train_seconds = ? WHERE campaign_id = ? AND number = ? RETURNING id",
    )
    .bind(progress.tokens.cast_signed())
    .bind(seconds)
    .bind(campaign_id)
    .bind(progress.number)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(id) = id else { return Ok(0) };
    sqlx::query(
        "INSERT OR REPLACE INTO curve_points (candidate_id, tokens, loss) VALUES (?, ?, ?)",
    )
    .bind(id)
    .bind(progress.tokens.cast_signed())
    .bind(progress.loss)
    .execute(connection)
    .await?;
    Ok(1)
}
