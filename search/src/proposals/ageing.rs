//! Regularised evolution (Real et al. 2019, arXiv 1802.01548) for several objectives: the population is the latest
//! trials, so that the oldest leave however good they were; parents win a tournament by Pareto rank and crowding; a
//! child is one mutation away from its parent, or from a recombination of two parents.

use rand::RngExt;

use super::domain::{Domain, SearchRng};
use super::select::{preference, tournament};
use super::trial::{Known, Origin, Proposal, Seen};

/// Trials that can be parents.
const POPULATION: usize = 25;
/// Draws of a tournament.
const TOURNAMENT: usize = 5;
/// Share of the children that have two parents.
const RECOMBINED: f64 = 0.3;
/// Children tried before a random point is taken instead.
const TRIES: usize = 64;

pub(super) fn propose<D: Domain>(
    domain: &D,
    known: &[Known<'_, D::Point>],
    seen: &Seen<'_, D>,
    rng: &mut SearchRng,
) -> Option<Proposal<D::Point>> {
    let population: Vec<&Known<'_, D::Point>> = known.iter().rev().take(POPULATION).collect();
    let best_first = preference(&population);
    (0..TRIES).find_map(|_| {
        child(domain, &population, &best_first, TOURNAMENT, rng).filter(|c| seen.is_new(&c.point))
    })
}

/// A child of tournament winners.
pub(super) fn child<D: Domain>(
    domain: &D,
    population: &[&Known<'_, D::Point>],
    best_first: &[usize],
    draws: usize,
    rng: &mut SearchRng,
) -> Option<Proposal<D::Point>> {
    let a = population[best_first[tournament(best_first.len(), draws, rng)]];
    let b = population[best_first[tournament(best_first.len(), draws, rng)]];
    if a.number != b.number && rng.random_bool(RECOMBINED) {
        let of = (a.number, b.number);
        let point = domain.recombine(a.point, b.point, rng)?;
        // Half of them are mutated too: parents that are alike have few children without it.
        if rng.random_bool(0.5) {
            let (point, change) = domain.mutate(&point, rng)?;
            return Some(Proposal {
                point,
                origin: Origin::Recombination { of, change: Some(change) },
            });
        }
        return Some(Proposal { point, origin: Origin::Recombination { of, change: None } });
    }
    let (point, change) = domain.mutate(a.point, rng)?;
    Some(Proposal { point, origin: Origin::Mutation { of: a.number, change } })
}
