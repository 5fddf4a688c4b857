//! A campaign as a study of Optuna's, in a new SQLite file that its programs open: `optuna-dashboard` shows the Pareto plot.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use crate::error::DbError;

const TABLES: &str = include_str!("optuna.sql");

/// A study.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// Its name.
    pub name: String,
    /// What is optimised, and whether more of it is better.
    pub objectives: Vec<(String, bool)>,
    /// Its trials, in the order of their numbers.
    pub trials: Vec<Trial>,
}

/// A trial: one candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Where it stands.
    pub state: TrialState,
    /// What it is, by the names of parameters.
    pub parameters: Vec<(String, Parameter)>,
    /// Its objectives, where it is complete.
    pub values: Vec<f64>,
    /// All else that is known of it, as JSON.
    pub attributes: Vec<(String, serde_json::Value)>,
    /// Unix time, s.
    pub begun_s: f64,
    /// How long it took.
    pub seconds: f64,
}

/// Where a trial stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialState {
    /// It has values.
    Complete,
    /// It failed.
    Failed,
    /// It was dropped before it had values.
    Pruned,
    /// It is under way.
    Running,
}

impl TrialState {
    fn word(self) -> &'static str {
        match self {
            Self::Complete => "COMPLETE",
            Self::Failed => "FAIL",
            Self::Pruned => "PRUNED",
            Self::Running => "RUNNING",
        }
    }
}

/// A parameter's value, and which others there are.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// A whole number of a range.
    Whole {
        /// The value.
        value: i64,
        /// The least and the largest one.
        range: (i64, i64),
    },
    /// One of a list.
    Choice {
        /// Its place in the list.
        index: usize,
        /// The list.
        choices: Vec<serde_json::Value>,
    },
}

impl Parameter {
    /// As Optuna keeps it: a number, and the distribution as JSON.
    fn kept(&self) -> (f64, String) {
        let (value, name, attributes) = match self {
            Self::Whole { value, range: (low, high) } => (
                *value as f64,
                "IntDistribution",
                serde_json::json!({ "log": false, "step": 1, "low": low, "high": high }),
            ),
            Self::Choice { index, choices } => (
                *index as f64,
                "CategoricalDistribution",
                serde_json::json!({ "choices": choices }),
            ),
        };
        (value, serde_json::json!({ "name": name, "attributes": attributes }).to_string())
    }
}

impl Study {
    /// Writes it into a file that is not there yet.
    ///
    /// # Errors
    /// When SQLite cannot write.
    pub async fn write(&self, path: &Path) -> Result<(), DbError> {
        let error = |source| DbError::sql("writing a study", path, source);
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut file = SqliteConnection::connect_with(&options).await.map_err(error)?;
        self.fill(&mut file).await.map_err(error)?;
        file.close().await.map_err(error)
    }

    async fn fill(&self, file: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let mut all = file.begin().await?;
        sqlx::raw_sql(TABLES).execute(&mut *all).await?;
        sqlx::query("INSERT INTO studies VALUES (1, ?)")
            .bind(&self.name)
            .execute(&mut *all)
            .await?;
        let names: Vec<&String> = self.objectives.iter().map(|(name, _)| name).collect();
        sqlx::query("INSERT INTO study_system_attributes VALUES (1, 1, 'study:metric_names', ?)")
            .bind(serde_json::json!(names).to_string())
            .execute(&mut *all)
            .await?;
        for (index, (_, is_maximised)) in self.objectives.iter().enumerate() {
            sqlx::query(
                "INSERT INTO study_directions (direction, study_id, objective) VALUES (?, 1, ?)",
            )
            .bind(if *is_maximised { "MAXIMIZE" } else { "MINIMIZE" })
            .bind(index as i64)
            .execute(&mut *all)
            .await?;
        }
        for (index, trial) in self.trials.iter().enumerate() {
            let id = index as i64 + 1;
            let is_over = trial.state != TrialState::Running;
            sqlx::query(
                "INSERT INTO trials VALUES (?, ?, 1, ?, strftime('%Y-%m-%d %H:%M:%f', ?, 'unixepoch'),
                     strftime('%Y-%m-%d %H:%M:%f', ?, 'unixepoch'))",
            )
            .bind(id)
            .bind(index as i64)
            .bind(trial.state.word())
            .bind(trial.begun_s)
            .bind(is_over.then_some(trial.begun_s + trial.seconds))
            .execute(&mut *all)
            .await?;
            for (name, parameter) in &trial.parameters {
                let (value, distribution) = parameter.kept();
                sqlx::query(
                    "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
                )
                .bind(id)
                .bind(name)
                .bind(value)
                .bind(distribution)
                .execute(&mut *all)
                .await?;
            }
            for (objective, value) in trial.values.iter().enumerate() {
                sqlx::query(
                    "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, ?, ?, 'FINITE')",
                )
                .bind(id)
                .bind(objective as i64)
                .bind(value)
                .execute(&mut *all)
                .await?;
            }
            for (key, value) in &trial.attributes {
                sqlx::query("INSERT INTO trial_user_attributes (trial_id, \"key\", value_json) VALUES (?, ?, ?)")
                    .bind(id)
                    .bind(key)
                    .bind(value.to_string())
                    .execute(&mut *all)
                    .await?;
            }
        }
        all.commit().await
    }
}
