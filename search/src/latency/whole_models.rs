//! `latency.time_whole_models`: true, false or `"all"`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Which candidates are timed as whole models. Where one was, that is its latency, whatever its parts add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WholeModels {
    /// None.
    Never,
    /// A few at the start, which tell how far sums of parts are from whole models; front members and references at the end, and
    /// those few once more, which tell how far the machine drifts.
    #[default]
    Front,
    /// Every candidate, before it is trained; a few, the front and references once more at the end, in the same minutes.
    All,
}

impl Serialize for WholeModels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Never => serializer.serialize_bool(false),
            Self::Front => serializer.serialize_bool(true),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for WholeModels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordVisitor;
        impl Visitor<'_> for WordVisitor {
            type Value = WholeModels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"all\"")
            }
            fn visit_bool<E: de::Error>(self, are_timed: bool) -> Result<WholeModels, E> {
                Ok(if are_timed { WholeModels::Front } else { WholeModels::Never })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<WholeModels, E> {
                if text == "all" {
                    Ok(WholeModels::All)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
        }
        deserializer.deserialize_any(WordVisitor)
    }
}

impl JsonSchema for WholeModels {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WholeModels".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Which candidates are timed as whole models: none, a few at the start and the front at the end, or \"all\".",
            "anyOf": [{ "type": "boolean" }, { "const": "all" }]
        })
    }
}
