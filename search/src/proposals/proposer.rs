//! Who is asked: an algorithm with its seed.

use rand::SeedableRng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::domain::{Domain, SearchRng};
use super::model::{Evidence, Memory};
use super::trial::{Known, Origin, Outcome, Proposal, Seen, Trial};
use super::{ageing, local, model, nsga2, random};

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
        self.propose_knowing(domain, number, trials, &|_| Vec::new())
    }

    /// The same where some objectives of a point, as they are minimised, can be computed: `computed` gives those of any
    /// point, in their order, each none where it cannot, or nothing at all. Such a value is not learnt.
    ///
    /// # Errors
    /// As [`Self::propose`].
    pub fn propose_knowing<D: Domain<Point = P>>(
        &mut self,
        domain: &D,
        number: u32,
        trials: &[Trial<P>],
        computed: &dyn Fn(&P) -> Vec<Option<f64>>,
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
                    let evidence = Evidence { trials, known: &known, seen: &seen, computed };
                    model::propose(domain, &evidence, &mut self.memory, &mut rng)
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
