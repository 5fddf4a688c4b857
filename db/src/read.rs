//! Reading what viewers show.

use search::campaign::findings::agreements;
use search::campaign::prediction::backtests;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

use crate::error::DbError;
use crate::open::Store;
use crate::process::{Life, Owner, now_unix_s};
use crate::snapshot::{Campaign, CampaignKind, CampaignState, Candidate, Snapshot};

/// A campaign with the run that is open on it, if there is one.
const CAMPAIGNS: &str = "SELECT c.*, \
    (SELECT coalesce(sum(max(0, r.heartbeat_unix_s - r.started_unix_s)), 0) FROM runs r WHERE r.campaign_id = c.id) \
        AS active_seconds, \
    o.host AS open_host, o.pid AS open_pid, o.process_start AS open_start, o.heartbeat_unix_s AS open_heartbeat \
    FROM campaigns c LEFT JOIN runs o ON o.campaign_id = c.id AND o.ended_unix_s IS NULL \
    WHERE ?1 IS NULL OR c.id = ?1 ORDER BY c.id";

impl Store {
    /// All campaigns, the oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn campaigns(&self) -> Result<Vec<Campaign>, DbError> {
        let rows = sqlx::query(CAMPAIGNS)
            .bind(None::<i64>)
            .fetch_all(&self.pool)
            .await
            .map_err(|source| self.sql("listing the campaigns", source))?;
        rows.iter().map(|row| Ok(self.campaign_row(row)?.0)).collect()
    }

    /// One campaign.
    ///
    /// # Errors
    /// [`DbError::NoCampaign`] names those that exist.
    pub async fn campaign(&self, name: &str) -> Result<Campaign, DbError> {
        Ok(self.head(name).await?.0)
    }

    /// Everything a viewer shows of a campaign, at one moment.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn snapshot(&self, name: &str) -> Result<Snapshot, DbError> {
        let sql = |source| self.sql("reading the campaign", source);
        let campaign_id = self.campaign_id(name).await?;
        let mut connection = self.pool.acquire().await.map_err(sql)?;
        // A read transaction: all parts are of the same moment while a driver writes.
        let mut transaction = connection.begin().await.map_err(sql)?;
        let (campaign, revision) = self.head_in(&mut transaction, campaign_id).await?;
        let rows = self.candidates(&mut transaction, campaign_id).await?;
        let agreements = agreements(&rows, &campaign.objectives);
        let predictions = backtests(&rows, &campaign.objectives);
        let mut candidates = Candidate::of(rows, &campaign);
        self.mark_disturbed(&mut transaction, (campaign_id, &campaign), &mut candidates).await?;
        let between_s = self.seconds_between(&mut transaction, campaign_id).await?;
        transaction.commit().await.map_err(sql)?;
        Ok(Snapshot { campaign, candidates, agreements, predictions, between_s, revision })
    }

    /// Changes whenever [`Store::snapshot`] would show something else; cheap enough to ask ten times a second.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn revision(&self, name: &str) -> Result<i64, DbError> {
        Ok(self.head(name).await?.1)
    }

    /// The folder in which the campaign file lay.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn config_folder(&self, name: &str) -> Result<String, DbError> {
        let campaign_id = self.campaign_id(name).await?;
        sqlx::query_scalar("SELECT config_folder FROM campaigns WHERE id = ?")
            .bind(campaign_id)
            .fetch_one(&self.pool)
            .await
            .map_err(|source| self.sql("reading the campaign", source))
    }

    pub(crate) async fn campaign_id(&self, name: &str) -> Result<i64, DbError> {
        let sql = |source| self.sql("looking for the campaign", source);
        let found: Option<i64> = sqlx::query_scalar("SELECT id FROM campaigns WHERE name = ?")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(sql)?;
        if let Some(id) = found {
            return Ok(id);
        }
        let known = sqlx::query_scalar("SELECT name FROM campaigns ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .map_err(sql)?;
        Err(DbError::NoCampaign { name: name.to_owned(), path: self.path.clone(), known })
    }

    async fn head(&self, name: &str) -> Result<(Campaign, i64), DbError> {
        let campaign_id = self.campaign_id(name).await?;
        let row = sqlx::query(CAMPAIGNS)
            .bind(campaign_id)
            .fetch_one(&self.pool)
            .await
            .map_err(|source| self.sql("reading the campaign", source))?;
        self.campaign_row(&row)
    }

    /// A campaign and its revision, within a transaction.
    pub(crate) async fn head_in(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
    ) -> Result<(Campaign, i64), DbError> {
        let row = sqlx::query(CAMPAIGNS)
            .bind(campaign_id)
            .fetch_one(connection)
            .await
            .map_err(|source| self.sql("reading the campaign", source))?;
        self.campaign_row(&row)
    }

    /// A campaign and its revision.
    fn campaign_row(&self, row: &SqliteRow) -> Result<(Campaign, i64), DbError> {
        let sql = |source| self.sql("reading the campaign", source);
        let name: String = row.try_get("name").map_err(sql)?;
        let objectives: String = row.try_get("objectives").map_err(sql)?;
        let objectives = serde_json::from_str(&objectives).map_err(|error| {
            self.corrupt(format!("the list of objectives of campaign `{name}`"), error)
        })?;
        let word: String = row.try_get("kind").map_err(sql)?;
        let kind = CampaignKind::of(&word).ok_or_else(|| {
            self.corrupt(format!("the kind of campaign `{name}`"), format!("unknown word `{word}`"))
        })?;
        let latency: String = row.try_get("latency").map_err(sql)?;
        let latency = serde_json::from_str(&latency).map_err(|error| {
            self.corrupt(format!("the latency settings of campaign `{name}`"), error)
        })?;
        let open = match row.try_get::<Option<String>, _>("open_host").map_err(sql)? {
            None => false,
            Some(host) => {
                let pid = row.try_get("open_pid").map_err(sql)?;
                let process_start = row.try_get("open_start").map_err(sql)?;
                let heartbeat = row.try_get("open_heartbeat").map_err(sql)?;
                let owner = Owner { host, pid, process_start };
                owner.life(heartbeat, now_unix_s()) == Life::Alive
            }
        };
        let state = match (open, row.try_get("finished").map_err(sql)?) {
            (true, _) => CampaignState::Running,
            (false, true) => CampaignState::Finished,
            (false, false) => CampaignState::Paused,
        };
        // A driver that dies writes nothing, but the shown state changes from running to paused: that counts as half a
        // step, so the revision still only grows.
        let revision = 2 * row.try_get::<i64, _>("revision").map_err(sql)? + i64::from(!open);
        let tokens = row.try_get::<i64, _>("tokens").map_err(sql)?.cast_unsigned();
        let target: Option<i64> = row.try_get("target_tokens").map_err(sql)?;
        let campaign = Campaign {
            name,
            state,
            evaluations: row.try_get("evaluations").map_err(sql)?,
            seed: row.try_get::<i64, _>("seed").map_err(sql)?.cast_unsigned(),
            kind,
            objectives,
            latency,
            tokens,
            target_tokens: target.map_or(tokens, |target| target.cast_unsigned().max(tokens)),
            created_unix_s: row.try_get("created_unix_s").map_err(sql)?,
            active_seconds: row.try_get::<i64, _>("active_seconds").map_err(sql)? as f64,
            config_toml: row.try_get("config_toml").map_err(sql)?,
        };
        Ok((campaign, revision))
    }
}
