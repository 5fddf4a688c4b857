//! Reading the latency table.

use search::latency::LatencyEntry;

use crate::error::DbError;
use crate::open::Store;
use crate::row;

impl Store {
    /// The latency table: all devices, conditions and versions of the kernels, a later measurement after an earlier
    /// one of the same key.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn latencies(&self) -> Result<Vec<LatencyEntry>, DbError> {
        let sql = |source| self.sql("reading the latency table", source);
        let rows = sqlx::query("SELECT * FROM latencies ORDER BY key, measured_unix_s")
            .fetch_all(&self.pool)
            .await
            .map_err(sql)?;
        rows.iter()
            .map(|entry| {
                let key: String = sqlx::Row::try_get(entry, "key_json").map_err(sql)?;
                let key =
                    serde_json::from_str(&key).map_err(|error| self.corrupt("a latency", error))?;
                Ok(LatencyEntry { key, timing: row::timing(entry).map_err(sql)? })
            })
            .collect()
    }
}
