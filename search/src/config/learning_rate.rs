//! `learning_rate`: a number, or what the training rule was found to want.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// The training rule of the built-in trainer, by number: which initial sizes, rates and updates its tensors have and how the
/// rate goes. Losses under two rules are not to be compared.
pub const TRAINING_RULE: u32 = 2;

/// The base learning rate, of which the training rule gives each tensor its part.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum LearningRate {
    /// The one rate that serves every stack.
    #[default]
    Auto,
    /// A base rate of one's own.
    Base(f64),
}

impl Serialize for LearningRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Base(rate) => serializer.serialize_f64(rate),
        }
    }
}

impl<'de> Deserialize<'de> for LearningRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;
        impl Visitor<'_> for RateVisitor {
            type Value = LearningRate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or \"auto\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<LearningRate, E> {
                if text == "auto" {
                    Ok(LearningRate::Auto)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
            fn visit_f64<E: de::Error>(self, rate: f64) -> Result<LearningRate, E> {
                Ok(LearningRate::Base(rate))
            }
            fn visit_u64<E: de::Error>(self, rate: u64) -> Result<LearningRate, E> {
                Ok(LearningRate::Base(rate as f64))
            }
            fn visit_i64<E: de::Error>(self, rate: i64) -> Result<LearningRate, E> {
                Ok(LearningRate::Base(rate as f64))
            }
        }
        deserializer.deserialize_any(RateVisitor)
    }
}

impl JsonSchema for LearningRate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LearningRate".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The peak of the base learning rate, or \"auto\": the one rate that serves every stack.",
            "anyOf": [{ "const": "auto" }, { "type": "number", "exclusiveMinimum": 0 }]
        })
    }
}
