//! A measured or computed number and how sure it is.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use litemap::LiteMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metric::Metric;

/// A number with its standard error, if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Value {
    /// The mean; finite.
    pub mean: f64,
    /// Standard error of the mean, where the worker knows it; finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
}

/// Values by name. A campaign holds such a map for each of its candidates and trainings, of a few values each: a sorted
/// vector takes a third of what a tree does.
pub type Values = LiteMap<Name, Value>;

/// The name of a value. Names are equal, and ordered, as their texts are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Name(Known);

/// Those of the table of metrics take no memory of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Metric(Metric),
    /// Of a task, an own evaluator or a black box; no metric has this name.
    Own(Box<str>),
}

impl Name {
    /// The metric that it is of; none: a value of a task, an own evaluator or a black box.
    pub fn metric(&self) -> Option<Metric> {
        match self.0 {
            Known::Metric(metric) => Some(metric),
            Known::Own(_) => None,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Known::Metric(metric) => metric.name(),
            Known::Own(name) => name,
        }
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(Metric::named(name).map_or_else(|| Known::Own(name.into()), Known::Metric))
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
