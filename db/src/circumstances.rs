//! What results depend on beside the campaign file: what the files held that it names, what it left open.

use crate::error::DbError;
use crate::open::Store;

/// One of them, as it was when the campaign began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circumstance {
    /// The key of the campaign file that it belongs to: `data.corpus`, `training.precision`.
    pub key: String,
    /// Of a file the identity of its contents; else the value that was chosen.
    pub value: String,
    /// Of a file its size and times when it was read; as long as they stay, so do its contents.
    pub stamp: String,
}

impl Store {
    /// The circumstances under which a campaign began; none of those that its program did not keep yet.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn circumstances(&self, name: &str) -> Result<Vec<Circumstance>, DbError> {
        let campaign_id = self.campaign_id(name).await?;
        let rows: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT key, value, stamp FROM circumstances WHERE campaign_id = ? ORDER BY key",
        )
        .bind(campaign_id)
        .fetch_all(&self.pool)
        .await
        .map_err(|source| self.sql("reading the circumstances", source))?;
        Ok(rows.into_iter().map(|(key, value, stamp)| Circumstance { key, value, stamp }).collect())
    }
}
