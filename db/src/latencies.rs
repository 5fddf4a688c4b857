//! Reading the latency table.

use std::collections::HashSet;

use search::latency::{LatencyEntry, LatencyKey, Timing, keys as keys_of};
use search::metric::Metric;

use sqlx::sqlite::SqliteConnection;

use crate::error::DbError;
use crate::log::profiler_of;
use crate::open::Store;
use crate::row;
use crate::snapshot::{Campaign, Candidate};

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

    /// Says of each candidate which of its values rest on a disturbed timing.
    pub(crate) async fn mark_disturbed(
        &self,
        connection: &mut SqliteConnection,
        (campaign_id, campaign): (i64, &Campaign),
        candidates: &mut [Candidate],
    ) -> Result<(), DbError> {
        let sql = |source| self.sql("reading the latency table", source);
        // Of several timings of one key the last counts.
        let keys: Vec<String> = sqlx::query_scalar(
            "SELECT key_json FROM latencies l WHERE other_load > ? AND NOT EXISTS \
             (SELECT 1 FROM latencies m WHERE m.key = l.key AND m.measured_unix_s > l.measured_unix_s)",
        )
        .bind(Timing::QUIET_LOAD)
        .fetch_all(&mut *connection)
        .await
        .map_err(sql)?;
        let disturbed: HashSet<LatencyKey> = keys
            .iter()
            .map(|key| serde_json::from_str(key).map_err(|error| self.corrupt("a latency", error)))
            .collect::<Result<_, DbError>>()?;
        if disturbed.is_empty() {
            return Ok(());
        }
        let workers: Vec<(String, String)> = sqlx::query_as(
            "SELECT DISTINCT role, device FROM workers JOIN runs ON runs.id = run_id WHERE campaign_id = ?",
        )
        .bind(campaign_id)
        .fetch_all(&mut *connection)
        .await
        .map_err(sql)?;
        let targets = campaign.latency.targets();
        let of_role =
            |role: &str| targets.iter().find(|target| profiler_of(target.name.as_deref()) == role);
        let timed = workers.iter().filter_map(|(role, device)| Some((of_role(role)?, device)));
        for (target, device) in timed {
            let latencies = target.latencies(device);
            let throughput = target.latency.throughput(device);
            for candidate in &mut *candidates {
                let Some(stack) = candidate.row.subject.stack() else { continue };
                let step = throughput.as_ref().and_then(|throughput| throughput.under(stack).ok());
                let step = step.map(|step| (Metric::Throughput.name().to_owned(), step));
                for (name, conditions) in latencies.iter().cloned().chain(step) {
                    if keys_of(stack, &conditions).any(|key| disturbed.contains(&key)) {
                        candidate.disturbed.insert(name);
                    }
                }
            }
        }
        Ok(())
    }
}
