//! An objective by its name: `decode_us` is minimised; `-accuracy` is the value `accuracy`, maximised, which is to
//! say that its negative is minimised.

use std::collections::BTreeMap;

use crate::wire::Value;

/// The name of the value that an objective is about.
pub fn value_name(objective: &str) -> &str {
    objective.strip_prefix('-').unwrap_or(objective)
}

/// The objective as it is minimised.
pub fn read(values: &BTreeMap<String, Value>, objective: &str) -> Option<Value> {
    let value = *values.get(value_name(objective))?;
    let is_maximised = objective.starts_with('-');
    Some(Value { mean: if is_maximised { -value.mean } else { value.mean }, ..value })
}
