//! Limits of values: a candidate outside them is out.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::Values;

/// The least and the most that a value may be. In a campaign file `40`, the most alone, or `{ min = 1000 }`,
/// `{ min = 1, max = 2 }`.
#[derive(Debug, Clone, Copy, Default, PartialEq, JsonSchema)]
#[schemars(with = "Form")]
pub struct Limit {
    /// Least value allowed.
    pub min: Option<f64>,
    /// Largest value allowed.
    pub max: Option<f64>,
}

impl Limit {
    /// So much at most.
    pub fn at_most(max: f64) -> Self {
        Self { min: None, max: Some(max) }
    }

    /// So much at least.
    pub fn at_least(min: f64) -> Self {
        Self { min: Some(min), max: None }
    }

    /// Why a number is outside, in words for behind its value's name: `41 is over the limit of 40`.
    fn broken_by(&self, number: f64) -> Option<String> {
        let said =
            |word, bound| format!("{} is {word} the limit of {}", short(number), short(bound));
        match *self {
            Self { min: Some(min), .. } if number < min => Some(said("under", min)),
            Self { max: Some(max), .. } if number > max => Some(said("over", max)),
            _ => None,
        }
    }
}

/// A number for people: no decimals where they say nothing.
fn short(value: f64) -> String {
    if value.abs() >= 1000.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

/// Limits by the names of the values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits(BTreeMap<String, Limit>);

impl Limits {
    /// Adds a limit; of two on one side of a value the later one holds.
    pub fn add(&mut self, name: &str, limit: Limit) {
        let of = self.0.entry(name.to_owned()).or_default();
        of.min = limit.min.or(of.min);
        of.max = limit.max.or(of.max);
    }

    /// The values that are limited.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The sentence about the first value that is outside; values that are not known yet are inside. What must be at least
    /// something comes first.
    pub fn broken(&self, values: &Values) -> Option<String> {
        let least = self.0.iter().map(|(name, of)| (name, Limit { max: None, ..*of }));
        let most = self.0.iter().map(|(name, of)| (name, Limit { min: None, ..*of }));
        least.chain(most).find_map(|(name, limit)| {
            let reason = limit.broken_by(values.get(name.as_str())?.mean)?;
            Some(format!("{name} {reason}"))
        })
    }
}

impl FromIterator<(String, Limit)> for Limits {
    fn from_iter<I: IntoIterator<Item = (String, Limit)>>(limits: I) -> Self {
        let mut all = Self::default();
        for (name, limit) in limits {
            all.add(&name, limit);
        }
        all
    }
}

/// A limit as campaign files have it.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Form {
    /// The largest value allowed.
    Most(f64),
    /// From the least to the largest value allowed; at least one of them.
    Range(Range),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LimitRange")]
struct Range {
    /// Least value allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    /// Largest value allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self { min: None, max: Some(max) } => Form::Most(max),
            Self { min, max } => Form::Range(Range { min, max }),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrRange;
        impl<'de> Visitor<'de> for NumberOrRange {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, the largest value allowed, or { min = …, max = … }")
            }

            fn visit_f64<E>(self, max: f64) -> Result<Limit, E> {
                Ok(Limit::at_most(max))
            }

            fn visit_i64<E>(self, max: i64) -> Result<Limit, E> {
                Ok(Limit::at_most(max as f64))
            }

            fn visit_u64<E>(self, max: u64) -> Result<Limit, E> {
                Ok(Limit::at_most(max as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Limit, A::Error> {
                let Range { min, max } = Range::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Limit { min, max })
            }
        }
        deserializer.deserialize_any(NumberOrRange)
    }
}
