//! Ranks of non-domination and the distance to the neighbours inside a rank (Deb et al. 2002, NSGA-II).

use std::cmp::Ordering;

use super::Objectives;

/// The rank of each point: 0 for the points that none dominates, 1 for those that only rank 0 dominates, and so on.
/// Equal points have equal ranks.
///
/// In lexicographic order nothing is dominated by what stands behind it, so each point needs comparing with the points
/// before it only, and goes to the first rank none of whose members dominates it. What a rank dominates the ranks before it
/// dominate too, so that rank is found by halving (ENS-BS, Zhang et al. 2015); of one or two objectives the last member of
/// a rank speaks for all, and the whole costs a sort.
pub fn ranks(points: &[Objectives]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| lexicographic(&points[a], &points[b]));
    let mut fronts: Vec<Vec<usize>> = Vec::new();
    let mut ranks = vec![0; points.len()];
    for index in order {
        let rank = fronts.partition_point(|members| is_dominated(points, index, members));
        if rank == fronts.len() {
            fronts.push(Vec::new());
        }
        fronts[rank].push(index);
        ranks[index] = rank as u32;
    }
    ranks
}

/// Indices of the points that none dominates, in their given order. Of equal points all are members.
pub fn front(points: &[Objectives]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| lexicographic(&points[a], &points[b]));
    let mut members: Vec<usize> = Vec::new();
    for index in order {
        if !is_dominated(points, index, &members) {
            members.push(index);
        }
    }
    members.sort_unstable();
    members
}

/// Whether a point is dominated by one of those that stand before it in lexicographic order and dominate none of each other.
fn is_dominated(points: &[Objectives], index: usize, members: &[usize]) -> bool {
    let point = &points[index];
    // The latest are the nearest, hence the likeliest to dominate.
    let asked = if point.is_in_a_plane() { 1 } else { members.len() };
    members.iter().rev().take(asked).any(|&other| points[other].dominates(point))
}

/// The crowding distance of each point among all of `points`: the perimeter of the box that its neighbours span, each
/// objective in units of its range; infinite at the ends. Repeats of a point count once and share its distance, so a
/// crowd of copies does not look sparse at its edge.
pub fn crowding_distances(points: &[Objectives]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| lexicographic(&points[a], &points[b]));
    // `group[i]`: index into `distinct` of the point that i equals.
    let mut distinct: Vec<usize> = Vec::new();
    let mut group = vec![0; points.len()];
    for index in order {
        if distinct.last().is_none_or(|&last| points[last] != points[index]) {
            distinct.push(index);
        }
        group[index] = distinct.len() - 1;
    }
    let objectives = points.first().map_or(0, |p| p.values().len());
    let mut distances = vec![0.0_f64; distinct.len()];
    for objective in 0..objectives {
        let value = |g: usize| points[distinct[g]].values()[objective];
        let mut along: Vec<usize> = (0..distinct.len()).collect();
        along.sort_by(|&a, &b| value(a).total_cmp(&value(b)));
        let (first, last) = (along[0], along[along.len() - 1]);
        distances[first] = f64::INFINITY;
        distances[last] = f64::INFINITY;
        let range = value(last) - value(first);
        if range > 0.0 {
            for w in along.windows(3) {
                distances[w[1]] += (value(w[2]) - value(w[0])) / range;
            }
        }
    }
    group.into_iter().map(|g| distances[g]).collect()
}

pub(super) fn lexicographic(a: &Objectives, b: &Objectives) -> Ordering {
    a.values()
        .iter()
        .zip(b.values())
        .map(|(x, y)| x.total_cmp(y))
        .find(|&order| order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}
