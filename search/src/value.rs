//! A measured or computed number and how sure it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number with its standard error, if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Value {
    /// The mean; finite.
    pub mean: f64,
    /// Standard error of the mean, where the worker knows it; finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
}
