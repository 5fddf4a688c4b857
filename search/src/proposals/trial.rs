//! What was proposed, how it was made, and what became of it.

use std::collections::HashSet;
use std::fmt;

use super::domain::Domain;
use crate::pareto::Objectives;

/// One point that was proposed, with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial<P> {
    /// Its number, from 1.
    pub number: u32,
    /// What was proposed.
    pub point: P,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Nothing yet.
    Pending,
    /// Evaluated.
    Known(Objectives),
    /// Evaluated at a lower fidelity than the known ones: what they are expected to be there.
    Estimated {
        /// Expected values.
        objectives: Objectives,
        /// Standard deviation of each.
        deviations: Vec<f64>,
    },
    /// Outside a limit that is known only by trying; nothing was spent on it.
    Infeasible,
    /// Tried and failed.
    Failed,
}

/// A point to evaluate.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal<P> {
    /// What to evaluate.
    pub point: P,
    /// How it was made.
    pub origin: Origin,
}

/// How a proposal was made. Its text form is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Given by the user, with its name.
    Reference(String),
    /// Drawn from the whole domain.
    Random,
    /// One gene of a trial changed.
    Mutation {
        /// Number of the parent.
        of: u32,
        /// What changed.
        change: String,
    },
    /// Parts of two trials.
    Recombination {
        /// Numbers of the parents.
        of: (u32, u32),
        /// What changed besides, if anything.
        change: Option<String>,
    },
}

impl Origin {
    /// The origin of a point that is one mutation away from one with this origin.
    pub(super) fn then(self, step: &str) -> Self {
        match self {
            Self::Reference(_) | Self::Random => Self::Random,
            Self::Mutation { of, change } => {
                Self::Mutation { of, change: format!("{change}, {step}") }
            }
            Self::Recombination { of, change } => {
                let change = change.map_or(step.to_owned(), |change| format!("{change}, {step}"));
                Self::Recombination { of, change: Some(change) }
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(name) => write!(f, "reference {name}"),
            Self::Random => f.write_str("random"),
            Self::Mutation { of, change } => write!(f, "mutation of {of}: {change}"),
            Self::Recombination { of: (a, b), change: None } => {
                write!(f, "recombination of {a} and {b}")
            }
            Self::Recombination { of: (a, b), change: Some(change) } => {
                write!(f, "recombination of {a} and {b}, then {change}")
            }
        }
    }
}

/// A trial whose objectives are known, or estimated from a lower fidelity.
pub(super) struct Known<'a, P> {
    pub(super) number: u32,
    pub(super) point: &'a P,
    pub(super) objectives: &'a Objectives,
    /// Standard deviation of each objective where it is an estimate; none: as it was evaluated.
    pub(super) deviations: Option<&'a [f64]>,
}

impl<'a, P> Known<'a, P> {
    pub(super) fn of(trial: &'a Trial<P>) -> Option<Self> {
        let (number, point) = (trial.number, &trial.point);
        match &trial.outcome {
            Outcome::Known(objectives) => {
                Some(Self { number, point, objectives, deviations: None })
            }
            Outcome::Estimated { objectives, deviations } => {
                Some(Self { number, point, objectives, deviations: Some(deviations) })
            }
            Outcome::Pending | Outcome::Infeasible | Outcome::Failed => None,
        }
    }
}

/// What was proposed already.
pub(super) struct Seen<'a, D: Domain> {
    domain: &'a D,
    ids: HashSet<D::Id>,
}

impl<'a, D: Domain> Seen<'a, D> {
    pub(super) fn new(domain: &'a D, trials: &[Trial<D::Point>]) -> Self {
        Self { domain, ids: trials.iter().map(|t| domain.id(&t.point)).collect() }
    }

    pub(super) fn is_new(&self, point: &D::Point) -> bool {
        !self.ids.contains(&self.domain.id(point))
    }
}

/// What proposals are made from.
pub(super) struct Evidence<'a, D: Domain> {
    pub(super) trials: &'a [Trial<D::Point>],
    pub(super) known: &'a [Known<'a, D::Point>],
    pub(super) seen: &'a Seen<'a, D>,
    /// Objectives of a point that need not be learnt, in their order; empty: none.
    pub(super) computed: &'a dyn Fn(&D::Point) -> Vec<Option<f64>>,
}
