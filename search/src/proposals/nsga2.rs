//! NSGA-II (Deb et al. 2002): generations of equal size; the best of parents and children together become parents.

use super::ageing::child;
use super::domain::{Domain, SearchRng};
use super::select::preference;
use super::trial::{Known, Proposal, Seen};

/// Members of a generation.
const POPULATION: usize = 20;
/// Draws of a tournament.
const TOURNAMENT: usize = 2;
/// Children tried before a random point is taken instead.
const TRIES: usize = 64;

pub(super) fn propose<D: Domain>(
    domain: &D,
    known: &[Known<'_, D::Point>],
    seen: &Seen<'_, D>,
    rng: &mut SearchRng,
) -> Option<Proposal<D::Point>> {
    let parents = survivors(known);
    let best_first: Vec<usize> = (0..parents.len()).collect();
    (0..TRIES).find_map(|_| {
        child(domain, &parents, &best_first, TOURNAMENT, rng).filter(|c| seen.is_new(&c.point))
    })
}

/// The parents of the generation that is being made, best first: generations are the trials in their order, and one
/// that is not complete yet takes no part, unless it is the first.
fn survivors<'a, 'k, P>(known: &'a [Known<'k, P>]) -> Vec<&'a Known<'k, P>> {
    let mut survivors: Vec<&Known<'_, P>> = Vec::new();
    let complete = known.len() - known.len() % POPULATION;
    let settled = if complete == 0 { known } else { &known[..complete] };
    for generation in settled.chunks(POPULATION) {
        let together: Vec<&Known<'_, P>> = survivors.into_iter().chain(generation).collect();
        survivors =
            preference(&together).into_iter().take(POPULATION).map(|i| together[i]).collect();
    }
    survivors
}
