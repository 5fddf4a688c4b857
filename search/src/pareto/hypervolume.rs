//! The volume that a set of points dominates, up to a reference point (Zitzler and Thiele 1998).

use super::{Objectives, front};

/// The exact hypervolume dominated by `points` and bounded by `reference`. Points that are not better than the
/// reference in every objective add nothing.
///
/// One and two objectives cost a sort. Above that the volume is cut into slabs along the last objective, one
/// dimension less each (HSO, While et al. 2006): O(n² log n) for three and O(n³ log n) for four objectives, enough for
/// the fronts of some hundred members that campaigns have.
pub fn hypervolume(points: &[Objectives], reference: &[f64]) -> f64 {
    let inside: Vec<Objectives> = points
        .iter()
        .filter(|p| {
            debug_assert_eq!(p.values().len(), reference.len());
            p.values().iter().zip(reference).all(|(v, r)| v < r)
        })
        .cloned()
        .collect();
    let members: Vec<&[f64]> =
        front(&inside).into_iter().map(|index| inside[index].values()).collect();
    volume(members, reference)
}

/// The volume dominated by `points`, all inside the reference, of which the first `reference.len()` values count.
fn volume(mut points: Vec<&[f64]>, reference: &[f64]) -> f64 {
    match reference.len() {
        0 => 0.0,
        1 => points.iter().map(|p| reference[0] - p[0]).fold(0.0, f64::max),
        2 => {
            points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
            let mut ceiling = reference[1];
            let mut area = 0.0;
            for point in points {
                if point[1] < ceiling {
                    area += (reference[0] - point[0]) * (ceiling - point[1]);
                    ceiling = point[1];
                }
            }
            area
        }
        n => {
            let last = n - 1;
            points.sort_by(|a, b| a[last].total_cmp(&b[last]));
            let mut total = 0.0;
            for index in 0..points.len() {
                let above = points.get(index + 1).map_or(reference[last], |p| p[last]);
                let height = above - points[index][last];
                if height > 0.0 {
                    total += height * volume(points[..=index].to_vec(), &reference[..last]);
                }
            }
            total
        }
    }
}
