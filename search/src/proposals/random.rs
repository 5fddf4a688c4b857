//! Random search without repeats, and the last resort of every other algorithm.

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::domain::{Domain, SearchRng};
use super::trial::{Origin, Proposal, Seen, Trial};

/// Draws before a domain counts as nearly used up.
const DRAWS: usize = 256;

/// Domains up to this size are listed when draws find nothing new.
const LISTED: usize = 1 << 16;

/// An unseen point: drawn, or a neighbour of what was seen, or taken from a list of all points. None means that the
/// domain is exhausted, or so large a part of it that no way to an unseen point was found.
pub(super) fn propose<D: Domain>(
    domain: &D,
    trials: &[Trial<D::Point>],
    seen: &Seen<'_, D>,
    rng: &mut SearchRng,
) -> Option<Proposal<D::Point>> {
    for _ in 0..DRAWS {
        if let Some(point) = domain.sample(rng)
            && seen.is_new(&point)
        {
            return Some(Proposal { point, origin: Origin::Random });
        }
    }
    if let Some(all) = domain.enumerate(LISTED) {
        let unseen: Vec<D::Point> = all.into_iter().filter(|point| seen.is_new(point)).collect();
        return unseen
            .choose(rng)
            .map(|point| Proposal { point: point.clone(), origin: Origin::Random });
    }
    for _ in 0..DRAWS * 16 {
        if trials.is_empty() {
            return None;
        }
        let parent = &trials[rng.random_range(0..trials.len())];
        if let Some((point, change)) = domain.mutate(&parent.point, rng)
            && seen.is_new(&point)
        {
            return Some(Proposal {
                point,
                origin: Origin::Mutation { of: parent.number, change },
            });
        }
    }
    None
}
