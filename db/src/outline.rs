//! A campaign in outline: what tables, plots and lists show of its candidates, without what only one at a time has room for.

use std::collections::{BTreeMap, BTreeSet};

use search::architecture::ArchitectureId;
use search::campaign;
use search::campaign::findings::agreements;
use search::campaign::prediction::backtests;
use search::metric::Metric;
use search::objective::Objective;
use search::pareto::front;
use search::subject::SubjectError;
use search::value::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::candidates::{TrainingRow, Wholes, by_candidate};
use crate::columns::{PAGE, bound, pages, value_columns, value_joins, values_from};
use crate::contenders::as_minimised;
use crate::error::DbError;
use crate::open::Store;
use crate::row;
use crate::snapshot::{Campaign, Candidate, Snapshot, Tally};

/// Columns of a candidate before those of its values.
const COLUMNS: &str = "c.number, c.id, c.architecture, c.reference, c.origin, c.state, c.reason, c.fidelity, c.seed, \
    c.tokens, c.train_seconds, c.given_up, c.hash, c.failure";
/// Places of those of the values begin here.
const VALUES: usize = 14;

impl Store {
    /// A campaign as [`Store::snapshot`] gives it, but for what only the page of one candidate shows: curves, retrieval,
    /// logs, checkpoints, counts of failed attempts, values that are neither objectives nor in tables, and trainings that are a
    /// candidate's only one are left out. [`Store::candidate`] has them.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn outline(&self, name: &str) -> Result<Snapshot, DbError> {
        let mut snapshot = self.outlined_with(name, false).await?;
        for candidate in &mut snapshot.candidates {
            if candidate.row.trained.len() == 1 {
                candidate.row.trained = Vec::new();
            }
        }
        Ok(snapshot)
    }

    /// [`Store::outline`] with what it takes to judge a front: of each candidate's only training the values that are shown, and
    /// objectives on text that nothing was selected on.
    ///
    /// # Errors
    /// As [`Store::outline`].
    pub async fn judged(&self, name: &str) -> Result<Snapshot, DbError> {
        self.outlined_with(name, true).await
    }

    /// `all`: what it takes to judge a front, too.
    async fn outlined_with(&self, name: &str, all: bool) -> Result<Snapshot, DbError> {
        let sql = |source| self.sql("reading the campaign", source);
        let campaign_id = self.campaign_id(name).await?;
        let mut connection = self.pool.acquire().await.map_err(sql)?;
        let mut transaction = connection.begin().await.map_err(sql)?;
        let (campaign, revision) = self.head_in(&mut transaction, campaign_id).await?;
        let tested = campaign.objectives.iter().map(|of| format!("{TEST}{}", of.name()));
        let tested: Vec<String> = tested.filter(|_| all).collect();
        let names: Vec<String> = shown(&campaign).into_iter().chain(tested).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (mut rows, ids) = self.outlined(&mut transaction, campaign_id, &names, None).await?;
        // Those trained once count among those trained several times; where nobody was, no lengths are compared.
        let is_compared = all || rows.iter().any(|row| !row.trained.is_empty());
        let of_trainer = if is_compared {
            self.trained_names(&mut transaction, campaign_id).await?
        } else {
            BTreeMap::new()
        };
        let mut parts = if all && of_trainer.values().any(|has_parts| *has_parts) {
            self.parts(&mut transaction, campaign_id).await?
        } else {
            BTreeMap::new()
        };
        let once = |row: &&mut campaign::Candidate| row.trained.is_empty() && row.fidelity > 0;
        for row in rows.iter_mut().filter(once).filter(|_| is_compared) {
            // Of a single training the values are those of the candidate.
            let values =
                row.values.iter().filter(|(name, _)| of_trainer.contains_key(name.as_str()));
            row.trained = vec![campaign::Trained {
                tokens: row.fidelity,
                seed: row.seed,
                values: values.map(|(name, value)| (name.clone(), *value)).collect(),
                parts: parts.remove(&row.number).unwrap_or_default(),
                seconds: row.train_seconds,
            }];
        }
        let agreements = agreements(&rows, &campaign.objectives);
        let predictions = backtests(&rows, &campaign.objectives);
        let mut candidates = Candidate::with_ids(rows, ids, &campaign);
        self.mark_disturbed(&mut transaction, (campaign_id, &campaign), &mut candidates).await?;
        let between_s = self.seconds_between(&mut transaction, campaign_id).await?;
        transaction.commit().await.map_err(sql)?;
        Ok(Snapshot { campaign, candidates, agreements, predictions, between_s, revision })
    }

    /// Values on parts of the held-out text, of the candidates that were trained once, by number.
    async fn parts(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
    ) -> Result<BTreeMap<u32, BTreeMap<String, Vec<f32>>>, DbError> {
        let rows: Vec<(u32, String, Vec<u8>)> = sqlx::query_as(
            "SELECT c.number, v.name, v.parts FROM candidates c JOIN training_values v ON v.candidate_id = c.id \
             AND v.tokens = c.fidelity AND v.seed = c.seed WHERE c.campaign_id = ? AND v.parts IS NOT NULL",
        )
        .bind(campaign_id)
        .fetch_all(connection)
        .await
        .map_err(|source| self.sql("reading the trainings", source))?;
        let mut parts: BTreeMap<u32, BTreeMap<String, Vec<f32>>> = BTreeMap::new();
        for (number, name, bytes) in rows {
            parts.entry(number).or_default().insert(name, row::numbers(&bytes));
        }
        Ok(parts)
    }

    /// The values that a campaign's trainings reported, and whether some came with those on parts of the held-out text.
    async fn trained_names(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
    ) -> Result<BTreeMap<String, bool>, DbError> {
        let names: Vec<(String, bool)> = sqlx::query_as(
            "SELECT v.name, max(v.parts IS NOT NULL) FROM candidates c JOIN training_values v ON v.candidate_id = c.id \
             WHERE c.campaign_id = ? GROUP BY v.name",
        )
        .bind(campaign_id)
        .fetch_all(connection)
        .await
        .map_err(|source| self.sql("reading the trainings", source))?;
        Ok(names.into_iter().collect())
    }

    /// What a list says of a campaign.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn tally(&self, campaign: &Campaign) -> Result<Tally, DbError> {
        let sql = |source| self.sql("counting the candidates", source);
        let campaign_id = self.campaign_id(&campaign.name).await?;
        let mut connection = self.pool.acquire().await.map_err(sql)?;
        let mut transaction = connection.begin().await.map_err(sql)?;
        let (counts, top) = self.counts(&mut transaction, campaign_id).await?;
        // The contenders of `search::campaign::front`: done at the highest fidelity, with every objective.
        let quality = Metric::BitsPerByte.name();
        let mut names: Vec<&str> = campaign.objectives.iter().map(Objective::name).collect();
        let span = names.len();
        if !names.contains(&quality) {
            names.push(quality);
        }
        let of_quality = names.iter().position(|name| *name == quality);
        let (mut points, mut best) = (Vec::new(), None::<Value>);
        self.contenders(&mut transaction, (campaign_id, top), &names, |contender| {
            let values = contender.values;
            let objectives: Option<Vec<Value>> = values[..span].iter().copied().collect();
            if let Some(objectives) = objectives
                && let Ok(point) = as_minimised(&campaign.objectives, &objectives)
            {
                points.push(point);
                let found = of_quality.and_then(|place| values[place]);
                best = best.into_iter().chain(found).min_by(|a, b| a.mean.total_cmp(&b.mean));
            }
        })
        .await?;
        transaction.commit().await.map_err(sql)?;
        drop(connection); // a viewer's file has one, which the outline takes
        let front = if campaign.aims_beyond(top) {
            let outline = self.outline(&campaign.name).await?;
            outline.candidates.iter().filter(|candidate| candidate.rank == Some(0)).count()
        } else {
            front(&points).len()
        };
        Ok(Tally { done: counts.done, failed: counts.failed, front, best_bits_per_byte: best })
    }

    /// The candidates with these of their values and their identities, by number; of some only, trainings are left out.
    pub(crate) async fn outlined(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
        names: &[&str],
        only: Option<&BTreeSet<u32>>,
    ) -> Result<(Vec<campaign::Candidate>, Vec<ArchitectureId>), DbError> {
        let sql = |source| self.sql("reading the candidates", source);
        let text = format!(
            "SELECT {COLUMNS}{} FROM candidates c{} WHERE c.campaign_id = ? AND c.number > ?{} ORDER BY c.number LIMIT ?",
            value_columns(names),
            value_joins(names),
            if only.is_some() { " AND c.number IN (SELECT value FROM json_each(?))" } else { "" },
        );
        let only = only.map(row::json);
        let mut trained = match only {
            Some(_) => BTreeMap::new(),
            None => self.trained_again(connection, campaign_id).await?,
        };
        let mut wholes = self.wholes(connection, campaign_id, (0, i64::MAX)).await?;
        let (mut candidates, mut ids) = (Vec::new(), Vec::new());
        let page = |after| {
            let query = bound(sqlx::query(AssertSqlSafe(text.clone())), names);
            let query = query.bind(campaign_id).bind(after);
            let query = if let Some(only) = &only { query.bind(only.clone()) } else { query };
            query.bind(PAGE)
        };
        pages(connection, page, sql, |row| {
            let id: i64 = row.try_get(1).map_err(sql)?;
            let outlined = self.outlined_row(row, names)?;
            // As it was computed when it was written: of many that is most of the work.
            let hash: &str = row.try_get(12).map_err(sql)?;
            ids.push(ArchitectureId::stored(hash).unwrap_or_else(|| outlined.subject.id()));
            let Wholes { whole, earlier, sums } = wholes.remove(&id).unwrap_or_default();
            candidates.push(campaign::Candidate {
                trained: trained.remove(&id).unwrap_or_default(),
                whole,
                earlier,
                sums,
                ..outlined
            });
            Ok(())
        })
        .await?;
        Ok((candidates, ids))
    }

    fn outlined_row(
        &self,
        row: &SqliteRow,
        names: &[&str],
    ) -> Result<campaign::Candidate, DbError> {
        let sql = |source| self.sql("reading the candidates", source);
        let number: u32 = row.try_get(0).map_err(sql)?;
        let text: &str = row.try_get(2).map_err(sql)?;
        let subject = text.parse().map_err(|error: SubjectError| {
            self.corrupt(format!("the architecture of candidate {number}"), error)
        })?;
        let word: &str = row.try_get(5).map_err(sql)?;
        let reason = row.try_get(6).map_err(sql)?;
        let state =
            row::state(word, row.try_get(13).map_err(sql)?, reason, None).ok_or_else(|| {
                self.corrupt(
                    format!("the state of candidate {number}"),
                    format!("unknown word `{word}`"),
                )
            })?;
        Ok(campaign::Candidate {
            number,
            subject,
            reference: row.try_get(3).map_err(sql)?,
            origin: row.try_get(4).map_err(sql)?,
            state,
            failed_attempts: 0,
            given_up: row.try_get(11).map_err(sql)?,
            values: values_from(row, VALUES, names).map_err(sql)?,
            fidelity: row.try_get::<i64, _>(7).map_err(sql)?.cast_unsigned(),
            trained: Vec::new(),
            whole: BTreeMap::new(),
            earlier: BTreeMap::new(),
            sums: BTreeMap::new(),
            curve: Vec::new(),
            retrieval: Vec::new(),
            seed: row.try_get::<i64, _>(8).map_err(sql)?.cast_unsigned(),
            tokens: row.try_get::<i64, _>(9).map_err(sql)?.cast_unsigned(),
            train_seconds: row.try_get(10).map_err(sql)?,
            checkpoint: None,
        })
    }

    /// The trainings of candidates that have several; where some have, also those of the contenders for the front, whose errors
    /// are shared.
    async fn trained_again(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
    ) -> Result<BTreeMap<i64, Vec<campaign::Trained>>, DbError> {
        let rows: Vec<TrainingRow> = sqlx::query_as(
            "WITH again AS (SELECT o.candidate_id FROM trainings o JOIN candidates c ON c.id = o.candidate_id \
             WHERE c.campaign_id = ?1 GROUP BY o.candidate_id HAVING count(*) > 1), \
             top AS (SELECT id FROM candidates WHERE campaign_id = ?1 AND EXISTS (SELECT 1 FROM again) AND fidelity = \
             (SELECT max(fidelity) FROM candidates WHERE campaign_id = ?1 AND state = 'done')) \
             SELECT t.candidate_id, t.tokens, t.seed, t.seconds, v.name, v.mean, v.standard_error, v.parts FROM trainings t \
             LEFT JOIN training_values v USING (candidate_id, tokens, seed) \
             WHERE t.candidate_id IN (SELECT candidate_id FROM again UNION SELECT id FROM top)",
        )
        .bind(campaign_id)
        .fetch_all(connection)
        .await
        .map_err(|source| self.sql("reading the trainings", source))?;
        Ok(by_candidate(rows))
    }
}

/// Before the name of an objective: its value on text that nothing was selected on.
const TEST: &str = "test_";

/// The values that tables and plots show: objectives, and what stacks have beside.
pub(crate) fn shown(campaign: &Campaign) -> Vec<String> {
    let objectives = campaign.objectives.iter().map(Objective::name);
    let mut names: Vec<String> = objectives.map(str::to_owned).collect();
    let of_stacks = [Metric::DecodeUs, Metric::PrefillUs, Metric::Parameters];
    let of_stacks = of_stacks.map(|metric| metric.name().to_owned()).into_iter();
    let of_stacks = of_stacks.chain(campaign.latency.names_of_targets());
    for name in of_stacks.filter(|_| !campaign.is_black_box()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
