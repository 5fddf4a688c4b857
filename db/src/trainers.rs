//! By whom and where trainings were done: what it takes, beside the circumstances of the campaign, to repeat them.

use sqlx::sqlite::{SqliteConnection, SqliteQueryResult};

use crate::error::DbError;
use crate::open::Store;

/// Who did a training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainedBy {
    /// The candidate.
    pub number: u32,
    /// Tokens that were asked for, from the beginning.
    pub tokens: u64,
    /// The seed of the training.
    pub seed: u64,
    /// Name and version of the worker.
    pub worker: String,
    /// Where it computed.
    pub device: String,
    /// On which machine.
    pub host: String,
}

impl Store {
    /// Who did the trainings of a candidate that came to their end, by tokens and seed; of those that its program did not keep
    /// yet, nothing.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn trained_by(&self, name: &str, number: u32) -> Result<Vec<TrainedBy>, DbError> {
        let campaign_id = self.campaign_id(name).await?;
        let rows: Vec<(i64, i64, String, String, String)> = sqlx::query_as(
            "SELECT trainers.tokens, trainers.seed, worker, device, host FROM trainers \
             JOIN trainings USING (candidate_id, tokens, seed) JOIN candidates ON candidates.id = candidate_id \
             WHERE campaign_id = ? AND number = ? ORDER BY trainers.tokens, trainers.seed",
        )
        .bind(campaign_id)
        .bind(number)
        .fetch_all(&self.pool)
        .await
        .map_err(|source| self.sql("reading the trainers", source))?;
        let of = |(tokens, seed, worker, device, host): (i64, i64, String, String, String)| {
            let (tokens, seed) = (tokens.cast_unsigned(), seed.cast_unsigned());
            TrainedBy { number, tokens, seed, worker, device, host }
        };
        Ok(rows.into_iter().map(of).collect())
    }
}

/// Writes who did a training, in the place of whoever did it before.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    campaign_id: i64,
    of: &TrainedBy,
) -> Result<SqliteQueryResult, sqlx::Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO trainers (candidate_id, tokens, seed, worker, device, host) \
         SELECT id, ?, ?, ?, ?, ? FROM candidates WHERE campaign_id = ? AND number = ?",
    )
    .bind(of.tokens.cast_signed())
    .bind(of.seed.cast_signed())
    .bind(&of.worker)
    .bind(&of.device)
    .bind(&of.host)
    .bind(campaign_id)
    .bind(of.number)
    .execute(connection)
    .await
}
