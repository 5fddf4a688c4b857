//! What to evaluate next: ask/tell without memory. A [`Proposer`] is asked with all trials so far and answers with the
//! next point; the answer is a pure function of its settings, the number asked for, and the trials. Whoever keeps the
//! trials can therefore stop, resume, or ask for many points at once, and no state of the proposer has to be stored.
//!
//! No point is ever proposed twice, whatever became of it: failed, infeasible and pending ones count as seen.
//!
//! One file per algorithm; all of them work on any [`Domain`], architectures and black boxes alike.

mod ageing;
mod architectures;
mod local;
mod model;
mod nsga2;
mod random;
mod select;

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;

use rand::SeedableRng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pareto::Objectives;
use crate::surrogate::Feature;
use model::Memory;

/// The generator of all random choices: portable, and one independent stream per proposal.
pub type SearchRng = rand::rngs::ChaCha8Rng;

/// A set of points that can be sampled and varied.
///
/// `None` from a method means that it found nothing in the number of tries it allows itself.
pub trait Domain {
    /// An element.
    type Point: Clone;
    /// Identity of an element: equal points, and only they, have equal ids.
    type Id: Clone + Eq + Hash;

    /// The identity of a point.
    fn id(&self, point: &Self::Point) -> Self::Id;

    /// A random element.
    fn sample(&self, rng: &mut SearchRng) -> Option<Self::Point>;

    /// A neighbour that differs in one gene, and what changed, for people.
    fn mutate(&self, point: &Self::Point, rng: &mut SearchRng) -> Option<(Self::Point, String)>;

    /// An element made of parts of two.
    fn recombine(
        &self,
        a: &Self::Point,
        b: &Self::Point,
        rng: &mut SearchRng,
    ) -> Option<Self::Point>;

    /// What the coordinates of an encoded point are.
    fn features(&self) -> Vec<Feature>;

    /// A point as coordinates in which likeness shows, one for each feature.
    fn encode(&self, point: &Self::Point) -> Vec<f64>;

    /// All elements, if they can be listed and are at most `limit`.
    fn enumerate(&self, _limit: usize) -> Option<Vec<Self::Point>> {
        None
    }
}

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
    fn then(self, step: &str) -> Self {
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

/// How proposals are made, by the name that stands in campaign files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Evolution whose children are ranked by a model before one is evaluated.
    #[default]
    Surrogate,
    /// Regularised evolution with Pareto ranking.
    Evolution,
    /// NSGA-II.
    Nsga2,
    /// Pareto local search: one gene of a front member changed.
    LocalSearch,
    /// Without repeats.
    Random,
}

impl Algorithm {
    /// Every algorithm, the default first.
    pub const ALL: [Self; 5] =
        [Self::Surrogate, Self::Evolution, Self::Nsga2, Self::LocalSearch, Self::Random];

    /// The name in campaign files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Surrogate => "surrogate",
            Self::Evolution => "evolution",
            Self::Nsga2 => "nsga2",
            Self::LocalSearch => "local-search",
            Self::Random => "random",
        }
    }
}

/// Nothing is left to propose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the space holds nothing that was not proposed already ({seen} proposals): widen its choices or its limits"
)]
pub struct Exhausted {
    /// Number of proposals so far.
    pub seen: usize,
}

/// Proposes points of a domain.
#[derive(Debug, Clone)]
pub struct Proposer<P> {
    /// How.
    pub algorithm: Algorithm,
    /// Seed of all choices.
    pub seed: u64,
    /// Points drawn at random (references among them) before the algorithm begins; infeasible ones are replaced.
    pub start: u32,
    /// Points to begin with, by name.
    pub references: Vec<(String, P)>,
    /// Saves work from one proposal to the next. What it holds follows from the trials, so losing it changes nothing.
    memory: Memory,
}

impl<P: Clone> Proposer<P> {
    /// The usual start: as many random points as show the shape of a space to a search of about a hundred.
    pub const START: u32 = 10;

    /// A proposer at its beginning.
    pub fn new(algorithm: Algorithm, seed: u64, start: u32, references: Vec<(String, P)>) -> Self {
        Self { algorithm, seed, start, references, memory: Memory::default() }
    }

    /// The proposal with this number, given all trials so far in the order of their numbers.
    ///
    /// # Errors
    /// When no point is left that was not proposed before.
    pub fn propose<D: Domain<Point = P>>(
        &mut self,
        domain: &D,
        number: u32,
        trials: &[Trial<P>],
    ) -> Result<Proposal<P>, Exhausted> {
        debug_assert!(trials.is_sorted_by(|a, b| a.number < b.number));
        let mut rng = SearchRng::seed_from_u64(self.seed);
        rng.set_stream(u64::from(number));
        let seen = Seen::new(domain, trials);
        for (name, point) in &self.references {
            if seen.is_new(point) {
                return Ok(Proposal {
                    point: point.clone(),
                    origin: Origin::Reference(name.clone()),
                });
            }
        }
        let spent = trials.iter().filter(|t| t.outcome != Outcome::Infeasible).count();
        let known: Vec<Known<'_, P>> = trials.iter().filter_map(Known::of).collect();
        let varied = if spent < self.start as usize || known.is_empty() {
            None
        } else {
            match self.algorithm {
                Algorithm::Random => None,
                Algorithm::Surrogate => {
                    model::propose(domain, trials, &known, &seen, &mut self.memory, &mut rng)
                }
                Algorithm::Evolution => ageing::propose(domain, &known, &seen, &mut rng),
                Algorithm::Nsga2 => nsga2::propose(domain, &known, &seen, &mut rng),
                Algorithm::LocalSearch => local::propose(domain, &known, &seen, &mut rng),
            }
        };
        varied
            .or_else(|| random::propose(domain, trials, &seen, &mut rng))
            .ok_or(Exhausted { seen: trials.len() })
    }
}

/// A trial whose objectives are known, or estimated from a lower fidelity.
struct Known<'a, P> {
    number: u32,
    point: &'a P,
    objectives: &'a Objectives,
    /// Standard deviation of each objective where it is an estimate; none: as it was evaluated.
    deviations: Option<&'a [f64]>,
}

impl<'a, P> Known<'a, P> {
    fn of(trial: &'a Trial<P>) -> Option<Self> {
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
struct Seen<'a, D: Domain> {
    domain: &'a D,
    ids: HashSet<D::Id>,
}

impl<'a, D: Domain> Seen<'a, D> {
    fn new(domain: &'a D, trials: &[Trial<D::Point>]) -> Self {
        Self { domain, ids: trials.iter().map(|t| domain.id(&t.point)).collect() }
    }

    fn is_new(&self, point: &D::Point) -> bool {
        !self.ids.contains(&self.domain.id(point))
    }
}
