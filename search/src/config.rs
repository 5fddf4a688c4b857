//! The campaign file: what the user asked for, in TOML. Sections that workers need travel to them over the wire.
//!
//! [`CampaignFile::parse`] is the only way in, and what it returns is meaningful: unknown keys, wrong types, numbers
//! out of range and impossible spaces are one [`ConfigError`] each, which points into the text.

mod check;
mod error;
mod latency;
mod learning_rate;
mod preset;
mod sections;
mod tasks;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use latency::{LatencyConfig, Target, TargetConfig};
pub use learning_rate::{LearningRate, TRAINING_RULE};
pub use preset::Preset;
pub use sections::{
    DataConfig, EvaluatorConfig, NotifyConfig, Precision, SearchConfig, StorageConfig,
    TrainingConfig, TrustConfig,
};
pub use tasks::{TASKS_ERROR, TaskConfig, TaskKind};

use crate::architecture::Architecture;
use crate::campaign::trust::Plan;
use crate::limits::{Limit, Limits};
use crate::metric::{Direction, Metric};
use crate::objective::Objective;
use crate::references::Reference;
use crate::space::{Space, SpaceConfig, SpaceError};

/// The commented campaign file that a new campaign begins with: every key, with its default.
pub const TEMPLATE: &str = include_str!("config/campaign.toml");

/// The tokens that count over those of a proxy, where rungs tell how losses fall: far enough to mean a training that is no
/// proxy, near enough to foretell (docs/studies/prediction.md).
const TARGET: u64 = 4;

/// A campaign file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "deltafront campaign")]
pub struct CampaignFile {
    /// Name of the campaign, unique in its database.
    pub name: String,
    /// Seed of the proposals and of every training: the same seed and the same outcomes give the same campaign.
    #[serde(default)]
    pub seed: u64,
    /// Which architectures may be proposed.
    pub space: SpaceConfig,
    /// The text that proxies are trained on; none: `tasks` are all they are trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataConfig>,
    /// How a proxy is trained.
    #[serde(default)]
    pub training: TrainingConfig,
    /// Generated tasks that every candidate is trained on, each from the start.
    #[serde(default)]
    pub tasks: Vec<TaskConfig>,
    /// What is timed, and the budget.
    #[serde(default)]
    pub latency: LatencyConfig,
    /// How candidates are proposed, and when it ends.
    #[serde(default)]
    pub search: SearchConfig,
    /// How far results are to be trusted.
    #[serde(default)]
    pub trust: TrustConfig,
    /// Who trains the proxies.
    #[serde(default)]
    pub evaluator: EvaluatorConfig,
    /// What stays on disk.
    #[serde(default)]
    pub storage: StorageConfig,
    /// Who is told when it is over.
    #[serde(default)]
    pub notify: NotifyConfig,
}

impl CampaignFile {
    /// Parses and checks a campaign file.
    ///
    /// # Errors
    /// The first thing that is wrong, with the place in `text`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let document = error::Document::parse(text)?;
        let file: Self = document.deserialize()?;
        file.check().map_err(|wrong| document.error(&wrong.key, wrong.message))?;
        Ok(file)
    }

    /// The checked space.
    ///
    /// # Errors
    /// When no architecture is possible; a parsed file has been checked for that.
    pub fn space(&self) -> Result<Space, SpaceError> {
        Space::new(&self.space)
    }

    /// Tokens that a candidate is trained on in the end: of the text, or where there is none of all tasks together.
    pub fn tokens(&self) -> u64 {
        if self.data.is_none() && !self.tasks.is_empty() {
            return self.tasks.iter().map(|task| task.tokens).fold(0, u64::saturating_add);
        }
        self.training.tokens
    }

    /// The tokens that count: after so many, front and search want to know what a candidate is.
    pub fn target_tokens(&self) -> u64 {
        let tokens = self.tokens();
        let default = || {
            let is_foretold = self.data.is_some() && !self.search.rungs.is_empty();
            if is_foretold { tokens.saturating_mul(TARGET) } else { tokens }
        };
        self.training.target_tokens.unwrap_or_else(default)
    }

    /// What spans the front: each value towards the side that is better by nature, or with a minus towards more.
    pub fn objectives(&self) -> Vec<Objective> {
        let objective = |text: &String| match text.strip_prefix('-') {
            Some(name) => Objective::new(name, Direction::Maximize),
            None => Objective::new(text, self.nature(text)),
        };
        self.search.objectives.iter().map(objective).collect()
    }

    /// What values may be, the decode budget among them.
    pub fn limits(&self) -> Limits {
        let budget = self.latency.decode_budget_us.map(Limit::at_most);
        let budget = budget.map(|limit| (Metric::DecodeUs.name().to_owned(), limit));
        self.search.limits.clone().into_iter().chain(budget).collect()
    }

    /// The extra trainings that the file asks for.
    pub fn trust(&self) -> Plan {
        Plan {
            repeats: self.trust.repeats,
            longer: self.trust.longer,
            longer_tokens: self.tokens().saturating_mul(self.trust.longer_factor.into()),
            seeds: self.trust.seeds,
        }
    }

    /// The stacks of its own that the file names; those that do not parse, which a parsed file does not have, are left
    /// out.
    pub fn stacks(&self) -> impl Iterator<Item = (&String, Architecture)> {
        let stacks = self.search.stacks.iter();
        stacks.filter_map(|(name, text)| Some((name, text.parse().ok()?)))
    }

    /// The reference stacks that the file asks for; unknown names, which a parsed file does not have, are left out.
    pub fn references(&self) -> Vec<Reference> {
        self.search.references.iter().filter_map(|name| name.parse().ok()).collect()
    }
}

/// The JSON Schema of the campaign file, for editors.
pub fn json_schema() -> Schema {
    schemars::schema_for!(CampaignFile)
}
