//! What a candidate of a campaign is: a stack, or a point of a space of plain parameters that a black box evaluates.
//!
//! Campaign, store and screens keep subjects; only what times, trains or draws a stack asks for the stack in it.

use std::fmt;
use std::str::FromStr;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::architecture::{Architecture, ArchitectureId};
use crate::parameters::{ParameterSpace, Setting};
use crate::proposals::Domain;
use crate::space::Space;

/// What a candidate is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Subject {
    /// A stack of layers.
    Stack(Architecture),
    /// Values of parameters.
    Point(Assignment),
}

impl Subject {
    /// The stack, if it is one.
    pub fn stack(&self) -> Option<&Architecture> {
        match self {
            Self::Stack(architecture) => Some(architecture),
            Self::Point(_) => None,
        }
    }

    /// The values of parameters, if it is a point.
    pub fn assignment(&self) -> Option<&Assignment> {
        match self {
            Self::Stack(_) => None,
            Self::Point(assignment) => Some(assignment),
        }
    }

    /// For people: a stack's text, or `model=net units=64`.
    pub fn words(&self) -> String {
        match self {
            Self::Stack(architecture) => architecture.to_string(),
            Self::Point(assignment) => assignment.words(),
        }
    }

    /// The identity: equal subjects, and only they, have equal ids.
    pub fn id(&self) -> ArchitectureId {
        match self {
            Self::Stack(architecture) => architecture.id(),
            Self::Point(assignment) => ArchitectureId::of_text(&assignment.to_string()),
        }
    }
}

/// The text that parses back: a stack's own, or a JSON object.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stack(architecture) => architecture.fmt(f),
            Self::Point(assignment) => assignment.fmt(f),
        }
    }
}

/// A text that is neither a stack nor a point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SubjectError(String);

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        // No stack's text begins with a brace.
        if text.starts_with('{') {
            let assignment = serde_json::from_str(text);
            assignment.map(Self::Point).map_err(|error| SubjectError(error.to_string()))
        } else {
            text.parse().map(Self::Stack).map_err(|error| SubjectError(format!("{error}")))
        }
    }
}

/// The values of the parameters that are present, in the order of their space. Its text form is a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment(pub Vec<(String, Setting)>);

impl Assignment {
    fn words(&self) -> String {
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

/// A domain whose points are the subjects of a campaign.
pub trait Subjects: Domain {
    /// The point as it is kept and sent.
    fn subject(&self, point: &Self::Point) -> Subject;

    /// The point that is kept so; none when it is not of this domain.
    fn point(&self, subject: &Subject) -> Option<Self::Point>;
}

impl Subjects for Space {
    fn subject(&self, point: &Architecture) -> Subject {
        Subject::Stack(point.clone())
    }

    fn point(&self, subject: &Subject) -> Option<Architecture> {
        subject.stack().cloned()
    }
}

impl Subjects for ParameterSpace {
    fn subject(&self, point: &Vec<i64>) -> Subject {
        Subject::Point(self.assignment(point))
    }

    fn point(&self, subject: &Subject) -> Option<Vec<i64>> {
        match subject {
            Subject::Stack(_) => None,
            Subject::Point(assignment) => self.point_of(assignment),
        }
    }
}
