//! What a candidate of a campaign is: a stack, or a point of a space of plain parameters that a black box evaluates.
//!
//! Campaign, store and screens keep subjects; only what times, trains or draws a stack asks for the stack in it.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::architecture::{Architecture, ArchitectureId};
use crate::parameters::ParameterSpace;
use crate::proposals::Domain;
use crate::space::Space;

pub use crate::parameters::Assignment;

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
