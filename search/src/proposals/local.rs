//! Pareto local search (Paquete et al. 2004; for architectures White et al., arXiv 2005.02960): a random member of the
//! front, one gene changed, never a repeat.

use rand::RngExt;

use super::domain::{Domain, SearchRng};
use super::trial::{Known, Origin, Proposal, Seen};
use crate::pareto::{Objectives, front};

/// Neighbours tried before a random point is taken instead.
const TRIES: usize = 256;

pub(super) fn propose<D: Domain>(
    domain: &D,
    known: &[Known<'_, D::Point>],
    seen: &Seen<'_, D>,
    rng: &mut SearchRng,
) -> Option<Proposal<D::Point>> {
    let points: Vec<Objectives> = known.iter().map(|k| k.objectives.clone()).collect();
    let front = front(&points);
    for _ in 0..TRIES {
        let parent = &known[front[rng.random_range(0..front.len())]];
        if let Some((point, change)) = domain.mutate(parent.point, rng)
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
