//! Making a campaign.

use search::config::LatencyConfig;
use search::objective::Objective;

use crate::error::{DbError, finite};
use crate::open::Store;
use crate::process::now_unix_s;
use crate::row;
use crate::snapshot::CampaignKind;

/// What a campaign is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCampaign {
    /// Unique in the store.
    pub name: String,
    /// The campaign file as it was given.
    pub config_toml: String,
    /// The folder it lay in.
    pub config_folder: String,
    /// The seed of its proposals.
    pub seed: u64,
    /// Candidates to evaluate.
    pub evaluations: u32,
    /// Tokens of a full evaluation.
    pub tokens: u64,
    /// The tokens that count.
    pub target_tokens: u64,
    /// What its candidates are.
    pub kind: CampaignKind,
    /// What spans its front.
    pub objectives: Vec<Objective>,
    /// What is timed, where, and the decode budget.
    pub latency: LatencyConfig,
}

impl Store {
    /// Makes a campaign without candidates.
    ///
    /// # Errors
    /// When the name is taken or a number is not finite.
    pub async fn create_campaign(&self, new: &NewCampaign) -> Result<(), DbError> {
        if let Some(budget) = new.latency.decode_budget_us {
            finite(|| "the decode budget".to_owned(), budget)?;
        }
        let result = sqlx::query(
            "INSERT INTO campaigns (name, config_toml, config_folder, kind, seed, evaluations, tokens, target_tokens, \
             objectives, latency, created_unix_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&new.name)
        .bind(&new.config_toml)
        .bind(&new.config_folder)
        .bind(new.kind.word())
        .bind(new.seed.cast_signed())
        .bind(new.evaluations)
        .bind(new.tokens.cast_signed())
        .bind(new.target_tokens.cast_signed())
        .bind(row::json(&new.objectives))
        .bind(row::json(&new.latency))
        .bind(now_unix_s())
        .execute(&self.pool)
        .await;
        match result {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_database_error()
                    .is_some_and(sqlx::error::DatabaseError::is_unique_violation) =>
            {
                Err(DbError::CampaignExists { name: new.name.clone(), path: self.path.clone() })
            }
            Err(error) => Err(self.sql("making the campaign", error)),
        }
    }
}
