//! The values of parameters, one or those of a whole point, as a black box gets them and the store keeps them.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value of a parameter: a word, a number or a truth value. A black box gets it as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Setting {
    /// True or false.
    Flag(bool),
    /// Whole or not.
    Number(serde_json::Number),
    /// Text.
    Word(String),
}

/// By hand, as a campaign has a hundred thousand of them: serde's own way tries one variant after the other, and makes an
/// error of each that does not fit.
impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Setting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(CHOICE)
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Setting, E> {
                Ok(Setting::Flag(flag))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Setting, E> {
                Ok(Setting::Number(number.into()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Setting, E> {
                Ok(Setting::Number(number.into()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Setting, E> {
                let number = serde_json::Number::from_f64(number);
                number.map(Setting::Number).ok_or_else(|| E::custom(CHOICE))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Setting, E> {
                Ok(Setting::Word(word.to_owned()))
            }

            fn visit_string<E: Error>(self, word: String) -> Result<Setting, E> {
                Ok(Setting::Word(word))
            }

            fn visit_unit<E: Error>(self) -> Result<Setting, E> {
                Err(E::custom(CHOICE))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Setting, A::Error> {
                Err(A::Error::custom(CHOICE))
            }

            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Setting, A::Error> {
                Err(A::Error::custom(CHOICE))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// What a choice that is something else is told.
const CHOICE: &str = "a choice is a word, a number, true or false";

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// The values of the parameters that are present, in the order of their space. Its text form is a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment(pub Vec<(String, Setting)>);

impl Assignment {
    /// For people: `model=net units=64`.
    pub(crate) fn words(&self) -> String {
        let words: Vec<String> =
            self.0.iter().map(|(name, setting)| format!("{name}={setting}")).collect();
        words.join(" ")
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Assignment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, setting) in &self.0 {
            map.serialize_entry(name, setting)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Assignment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Assignment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Assignment, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Assignment(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
