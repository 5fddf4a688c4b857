//! The published form of stack files.

use super::stack_file::StackFile;

/// The JSON Schema of what `deltafront export --to json` writes.
pub(crate) fn json_schema() -> serde_json::Value {
    schemars::schema_for!(StackFile).to_value()
}
