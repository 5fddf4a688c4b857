//! An objective: a value by its name, and which way is better.
//!
//! Its text form, in which it is stored and shown in JSON, is the name of what is minimised, `decode_us`, or with a minus
//! of what is maximised, `-accuracy`: its negative is minimised. Campaign files are read by
//! [`CampaignFile::objectives`](crate::config::CampaignFile::objectives), where a name alone means the direction that is
//! better by nature.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use crate::metric::Direction;
use crate::metric::Metric;
use crate::pareto::Objectives;
use crate::value::{Name, Value, Values};

/// A value that spans a front.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Objective {
    value: Name,
    direction: Direction,
}

/// A text that names no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an objective is the name of a value, with a minus where more of it is better; got an empty name"
)]
pub struct NoName;

impl Objective {
    /// The value `name` in this direction.
    pub fn new(name: &str, direction: Direction) -> Self {
        Self { value: name.into(), direction }
    }

    /// The name of its value.
    pub fn name(&self) -> &str {
        &self.value
    }

    /// The metric that it is about; none: a value of a task, an own evaluator or a black box.
    pub fn metric(&self) -> Option<Metric> {
        self.value.metric()
    }

    /// Whether its value is known before a token is trained.
    pub fn is_known_before_training(&self) -> bool {
        Metric::of(self.name()).is_some_and(|(metric, _)| metric.is_known_before_training())
    }

    /// Which way is better.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Whether more is better.
    pub fn is_maximised(&self) -> bool {
        self.direction == Direction::Maximize
    }

    /// A number of its value as it is minimised, and the other way round: its own inverse.
    pub fn turned(&self, number: f64) -> f64 {
        if self.is_maximised() { -number } else { number }
    }

    /// Its value as it was measured.
    pub fn value(&self, values: &Values) -> Option<Value> {
        values.get(self.name()).copied()
    }

    /// Its value as it is minimised.
    pub fn minimised(&self, values: &Values) -> Option<f64> {
        Some(self.turned(self.value(values)?.mean))
    }
}

/// All of them as they are minimised, if `values` has each.
pub fn minimised(objectives: &[Objective], values: &Values) -> Option<Objectives> {
    let all: Option<Vec<f64>> = objectives.iter().map(|o| o.minimised(values)).collect();
    Objectives::new(all?).ok()
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_maximised() { "-" } else { "" }, self.name())
    }
}

impl FromStr for Objective {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let (name, direction) = match text.strip_prefix('-') {
            Some(name) => (name, Direction::Maximize),
            None => (text, Direction::Minimize),
        };
        if name.is_empty() { Err(NoName) } else { Ok(Self::new(name, direction)) }
    }
}

impl TryFrom<String> for Objective {
    type Error = NoName;

    fn try_from(text: String) -> Result<Self, NoName> {
        text.parse()
    }
}

impl From<Objective> for String {
    fn from(objective: Objective) -> Self {
        objective.to_string()
    }
}
