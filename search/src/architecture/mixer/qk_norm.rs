//! The norms of q and k in attention: which there are, and how they stand in files.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::gene::Form;

/// What an RMSNorm with a learnt weight takes together of q and of k.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum QkNorm {
    /// There is none.
    #[default]
    None,
    /// Each head, with one weight for all of them, as in Qwen3.
    Head,
    /// All heads, as in OLMo 2 and its successors.
    Whole,
}

impl QkNorm {
    pub(super) const ALL: [Self; 3] = [Self::None, Self::Head, Self::Whole];
    /// As campaign files and JSON say them, …
    pub(super) const FORMS: [Form; 3] = [Form::Off, Form::On, Form::Named("whole")];
    /// … and as the text form does.
    pub(super) const WORDS: [&str; 3] = ["", "qknorm", "qknorm=whole"];

    /// Channels that are normed together, of so many heads of a width; none: there is no norm.
    pub fn width(self, heads: u32, head_width: u32) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Head => Some(head_width.into()),
            Self::Whole => Some(u64::from(heads) * u64::from(head_width)),
        }
    }
}

impl Serialize for QkNorm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::FORMS[*self as usize].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for QkNorm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected true, false or \"whole\"")]
        enum Word {
            Flag(bool),
            Name(String),
        }
        match Word::deserialize(deserializer)? {
            Word::Flag(false) => Ok(Self::None),
            Word::Flag(true) => Ok(Self::Head),
            Word::Name(name) if name == "whole" => Ok(Self::Whole),
            Word::Name(name) => {
                Err(de::Error::custom(format!("expected true, false or \"whole\", got {name:?}")))
            }
        }
    }
}

impl JsonSchema for QkNorm {
    fn schema_name() -> Cow<'static, str> {
        "QkNorm".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "RMSNorm of q and k: of each head, of all heads together (\"whole\"), or none.",
            "enum": Self::FORMS,
        })
    }
}
