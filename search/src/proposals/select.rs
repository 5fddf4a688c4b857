//! Selection by rank of non-domination, then by crowding, as NSGA-II orders its population.

use std::cmp::Ordering;

use rand::RngExt;

use super::domain::SearchRng;
use super::trial::Known;
use crate::pareto::{Objectives, crowding_distances, ranks};

/// The order of preference of some trials: position 0 is the best. Sparse comes before crowded within a rank; equal
/// ones keep their order.
pub(super) fn preference<P>(members: &[&Known<'_, P>]) -> Vec<usize> {
    let points: Vec<Objectives> = members.iter().map(|m| m.objectives.clone()).collect();
    let ranks = ranks(&points);
    let mut crowding = vec![0.0; points.len()];
    for rank in 0..=ranks.iter().copied().max().unwrap_or(0) {
        let of_rank: Vec<usize> = (0..points.len()).filter(|&i| ranks[i] == rank).collect();
        let of_rank_points: Vec<Objectives> = of_rank.iter().map(|&i| points[i].clone()).collect();
        for (&index, distance) in of_rank.iter().zip(crowding_distances(&of_rank_points)) {
            crowding[index] = distance;
        }
    }
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| match ranks[a].cmp(&ranks[b]) {
        Ordering::Equal => crowding[b].total_cmp(&crowding[a]),
        unequal => unequal,
    });
    order
}

/// The best of `size` draws from a population that is given best first.
pub(super) fn tournament(population: usize, size: usize, rng: &mut SearchRng) -> usize {
    debug_assert!(population > 0 && size > 0);
    let draws = (0..size).map(|_| rng.random_range(0..population));
    draws.min().expect("a tournament has at least one draw")
}
