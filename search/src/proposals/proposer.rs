//! Who is asked: an algorithm with its seed.

use rand::SeedableRng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::domain::{Domain, SearchRng};
use super::model::Memory;
use super::trial::{Evidence, Known, Origin, Outcome, Proposal, Seen, Trial};
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

/// Trials under way up to which each proposal has a model of its own.
const ONE_BY_ONE: usize = 32;
/// Proposals that are made from one model where there are more.
const TOGETHER: usize = 32;

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
        let mut rng = self.rng(number);
        let seen = Seen::new(domain, trials);
        for (name, point) in &self.references {
            if seen.is_new(point) {
                return Ok(Proposal {
                    point: point.clone(),
                    origin: Origin::Reference(name.clone()),
                });
            }
        }
        let known: Vec<Known<'_, P>> = trials.iter().filter_map(Known::of).collect();
        let varied = if self.is_at_start(trials) || known.is_empty() {
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
    /// The proposals from this number on, as many as wanted, each told of those before it; `trials` grows by them, as pending ones.
    /// Where few trials are under way they are those of [`Self::propose_knowing`] one after the other. Where many are, a model
    /// serves for several proposals: to make one minds all that are under way, which would take longer than their evaluations.
    ///
    /// What is left out of as many as were wanted is not there any more: the second is why.
    pub fn propose_many<D: Domain<Point = P>>(
        &mut self,
        domain: &D,
        first: u32,
        wanted: usize,
        trials: &mut Vec<Trial<P>>,
        computed: &dyn Fn(&P) -> Vec<Option<f64>>,
    ) -> (Vec<Proposal<P>>, Option<Exhausted>) {
        let mut proposals: Vec<Proposal<P>> = Vec::new();
        while proposals.len() < wanted {
            let number = first + proposals.len() as u32;
            let left = wanted - proposals.len();
            let mut next = self.propose_together(domain, number, left, trials, computed);
            if next.is_empty() {
                match self.propose_knowing(domain, number, trials, computed) {
                    Ok(proposal) => next.push(proposal),
                    Err(exhausted) => return (proposals, Some(exhausted)),
                }
            }
            let pending = next.iter().zip(number..).map(|(proposal, number)| Trial {
                number,
                point: proposal.point.clone(),
                outcome: Outcome::Pending,
            });
            trials.extend(pending);
            proposals.append(&mut next);
        }
        (proposals, None)
    }

    /// Some proposals from one model, where that is due; else none.
    fn propose_together<D: Domain<Point = P>>(
        &mut self,
        domain: &D,
        number: u32,
        wanted: usize,
        trials: &[Trial<P>],
        computed: &dyn Fn(&P) -> Vec<Option<f64>>,
    ) -> Vec<Proposal<P>> {
        let under_way = trials.iter().filter(|trial| trial.outcome == Outcome::Pending).count();
        let are_few = under_way + wanted <= ONE_BY_ONE;
        if self.algorithm != Algorithm::Surrogate || are_few || self.is_at_start(trials) {
            return Vec::new();
        }
        let seen = Seen::new(domain, trials);
        let known: Vec<Known<'_, P>> = trials.iter().filter_map(Known::of).collect();
        if known.is_empty() || self.references.iter().any(|(_, point)| seen.is_new(point)) {
            return Vec::new();
        }
        let mut rng = self.rng(number);
        let evidence = Evidence { trials, known: &known, seen: &seen, computed };
        let count = wanted.min(TOGETHER);
        model::propose_together(domain, &evidence, &mut self.memory, count, &mut rng)
    }

    /// Whether points are drawn at random yet.
    fn is_at_start(&self, trials: &[Trial<P>]) -> bool {
        let spent = trials.iter().filter(|t| t.outcome != Outcome::Infeasible).count();
        spent < self.start as usize
    }

    /// The random numbers of a proposal.
    fn rng(&self, number: u32) -> SearchRng {
        let mut rng = SearchRng::seed_from_u64(self.seed);
        rng.set_stream(u64::from(number));
        rng
    }
}
