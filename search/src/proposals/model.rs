//! Surrogate-assisted evolution: many cheap children of the best trials, ranked by a Gaussian process for each
//! objective, and the one that is expected to enlarge the dominated volume most is evaluated.
//!
//! Objectives are modelled on the scale of the current front: 0 at its best value, 1 at its worst, compressed far above,
//! because how bad a bad point is decides nothing. Each proposal draws the length scales that it believes anew. Failed and
//! infeasible trials teach a model of feasibility. Pending trials count as seen with the value that the model expects of
//! them, so that many workers get different points. Where there are very many workers, one model and one pool of children
//! serve for several proposals ([`propose_together`]).

mod learnt;
mod observed;
mod scale;
mod together;

use std::collections::HashSet;

use rand::RngExt;

use self::learnt::{Model, OBSERVED, encoded};
use super::domain::{Domain, SearchRng};
use super::local;
use super::select::preference;
use super::trial::{Evidence, Known, Origin, Proposal, Seen};

pub(super) use self::learnt::Memory;

/// Of the proposals after as many as half of what a model sees, one in so many is a plain step from the front.
const STEP_EVERY: usize = 4;
/// Trials that become parents.
const PARENTS: usize = 40;
/// Children of each kind in the first pool.
const MUTANTS: usize = 300;
const RECOMBINED: usize = 150;
const RANDOM: usize = 150;
/// Rounds of local search on the acquisition, the points that each starts from, and the neighbours of one.
const ROUNDS: usize = 4;
const CLIMBERS: usize = 6;
const NEIGHBOURS: usize = 16;

pub(super) fn propose<D: Domain>(
    domain: &D,
    evidence: &Evidence<'_, D>,
    memory: &mut Memory,
    rng: &mut SearchRng,
) -> Option<Proposal<D::Point>> {
    let &Evidence { trials, known, seen, .. } = evidence;
    // A model of many points sees a part of them. Steps from the front need none, and find what it has overlooked.
    if known.len() > OBSERVED / 2
        && trials.len() % STEP_EVERY == 0
        && let Some(step) = local::propose(domain, known, seen, rng)
    {
        return Some(step);
    }
    let model = Model::new(domain, evidence, memory, rng);
    let pool = Pool::grown(domain, evidence, &model, HashSet::new(), CLIMBERS, rng);
    // Without any hope of growth the model has nothing to say.
    pool.best().or_else(|| local::propose(domain, known, seen, rng))
}

/// Up to so many proposals from one model and one pool of children; fewer where the pool holds no more hope.
///
/// Whoever is taken counts as evaluated with what is expected of it, so the next is another: the model stays, and only what it
/// is unsure of shrinks.
pub(super) fn propose_together<D: Domain>(
    domain: &D,
    evidence: &Evidence<'_, D>,
    memory: &mut Memory,
    count: usize,
    rng: &mut SearchRng,
) -> Vec<Proposal<D::Point>> {
    let &Evidence { trials, known, seen, computed } = evidence;
    let is_step = |place: usize| (trials.len() + place).is_multiple_of(STEP_EVERY);
    let steps =
        if known.len() > OBSERVED / 2 { (0..count).filter(|&at| is_step(at)).count() } else { 0 };
    let mut met = HashSet::new();
    let mut proposals: Vec<Proposal<D::Point>> = (0..steps)
        .filter_map(|_| local::propose(domain, known, seen, rng))
        .filter(|step| met.insert(domain.id(&step.point)))
        .collect();
    let left = count - proposals.len();
    let model = Model::new(domain, evidence, memory, rng);
    let pool = Pool::grown(domain, evidence, &model, met, CLIMBERS.max(left / 2), rng);
    let members = pool.members;
    proposals.extend(together::taken(domain, model, members, computed, left));
    proposals
}

/// Candidates with their scores.
struct Pool<'a, D: Domain> {
    domain: &'a D,
    seen: &'a Seen<'a, D>,
    computed: &'a dyn Fn(&D::Point) -> Vec<Option<f64>>,
    model: &'a Model,
    met: HashSet<D::Id>,
    members: Vec<(f64, Proposal<D::Point>)>,
}

impl<'a, D: Domain> Pool<'a, D> {
    /// Children of the best, and what climbed from the most promising of them. `met`: who is not wanted again.
    fn grown(
        domain: &'a D,
        evidence: &Evidence<'a, D>,
        model: &'a Model,
        met: HashSet<D::Id>,
        climbers: usize,
        rng: &mut SearchRng,
    ) -> Self {
        let &Evidence { known, seen, computed, .. } = evidence;
        let mut pool = Pool { domain, seen, computed, model, met, members: Vec::new() };
        let all: Vec<&Known<'_, D::Point>> = known.iter().collect();
        let parents: Vec<&Known<'_, D::Point>> =
            preference(&all).into_iter().take(PARENTS).map(|index| all[index]).collect();
        pool.breed(&parents, rng);
        for _ in 0..ROUNDS {
            pool.climb(climbers, rng);
        }
        pool
    }

    fn breed(&mut self, parents: &[&Known<'_, D::Point>], rng: &mut SearchRng) {
        let mut children = Vec::new();
        // The better half of the parents has most of the children.
        let draw = |rng: &mut SearchRng| {
            let a = rng.random_range(0..parents.len());
            parents[a.min(rng.random_range(0..parents.len()))]
        };
        for _ in 0..MUTANTS {
            let parent = draw(rng);
            if let Some((mut point, mut change)) = self.domain.mutate(parent.point, rng) {
                while rng.random_bool(0.3) {
                    let Some((next, more)) = self.domain.mutate(&point, rng) else { break };
                    (point, change) = (next, format!("{change}, {more}"));
                }
                children.push(Proposal {
                    point,
                    origin: Origin::Mutation { of: parent.number, change },
                });
            }
        }
        for _ in 0..RECOMBINED {
            let (a, b) = (draw(rng), draw(rng));
            if a.number == b.number {
                continue;
            }
            if let Some(point) = self.domain.recombine(a.point, b.point, rng) {
                let of = (a.number, b.number);
                children
                    .push(Proposal { point, origin: Origin::Recombination { of, change: None } });
            }
        }
        for _ in 0..RANDOM {
            if let Some(point) = self.domain.sample(rng) {
                children.push(Proposal { point, origin: Origin::Random });
            }
        }
        self.add(children);
    }

    /// Adds the neighbours of the best members.
    fn climb(&mut self, climbers: usize, rng: &mut SearchRng) {
        let mut neighbours = Vec::new();
        for (_, member) in self.members.iter().take(climbers) {
            for _ in 0..NEIGHBOURS {
                if let Some((point, step)) = self.domain.mutate(&member.point, rng) {
                    let origin = member.origin.clone().then(&step);
                    neighbours.push(Proposal { point, origin });
                }
            }
        }
        self.add(neighbours);
    }

    /// Scores those that are new and keeps the members sorted, best first.
    fn add(&mut self, children: Vec<Proposal<D::Point>>) {
        let new: Vec<Proposal<D::Point>> = children
            .into_iter()
            .filter(|c| self.seen.is_new(&c.point) && self.met.insert(self.domain.id(&c.point)))
            .collect();
        let encoded = encoded(self.domain, new.iter().map(|child| &child.point));
        let computed: Vec<Vec<Option<f64>>> =
            new.iter().map(|child| (self.computed)(&child.point)).collect();
        self.members.extend(self.model.scores(&encoded, &computed).into_iter().zip(new));
        self.members.sort_by(|a, b| b.0.total_cmp(&a.0));
    }

    fn best(self) -> Option<Proposal<D::Point>> {
        self.members.into_iter().next().filter(|(score, _)| *score > 0.0).map(|(_, best)| best)
    }
}
