//! Fronts drawn from noise: how often each point is on one.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};

use crate::pareto::{Frontier, Objectives, front};
use crate::proposals::SearchRng;

/// Fronts drawn to see how sure a place on it is.
const DRAWS: u32 = 400;

/// Words of the random stream that a [`Normal`] takes: two doubles.
const WORDS_A_NORMAL: u128 = 4;

/// The same in bytes.
const BYTES_A_NORMAL: usize = 16;

/// Points that are drawn at once, if so many are open.
const AT_ONCE: usize = 256;

/// Further off than a normal of doubles ever is: √(−2 ln 2⁻⁵³) = 8.57.
const REACH: f64 = 8.6;

/// On which part of the fronts drawn each point is, of which each value has an error.
pub(super) fn memberships(points: &[Objectives], errors: &[Vec<f64>], seed: u64) -> Vec<f64> {
    let open = contested(points, errors);
    let is_certain = open.iter().all(|&index| errors[index].iter().all(|&error| error == 0.0));
    // Where nothing is in doubt, one draw tells what all would.
    let draws = if is_certain { 1 } else { DRAWS };
    let mut stream = Stream::new(points, errors, seed);
    let bounds = bounds(&mut stream, &open, draws);
    let mut on_front = vec![0_u32; points.len()];
    for draw in 0..draws {
        let (mut drawn, mut indices) = (Vec::new(), Vec::new());
        stream.draw(draw, &bounds, |index, point| {
            drawn.push(point);
            indices.push(index);
        });
        for place in front(&drawn) {
            on_front[indices[place]] += 1;
        }
    }
    on_front.into_iter().map(|count| f64::from(count) / f64::from(draws)).collect()
}

/// Points as they would be from other seeds.
struct Stream<'a> {
    points: &'a [Objectives],
    errors: &'a [Vec<f64>],
    rng: SearchRng,
    /// Of the stream, what belongs to the points in hand.
    bytes: Vec<u8>,
}

impl<'a> Stream<'a> {
    fn new(points: &'a [Objectives], errors: &'a [Vec<f64>], seed: u64) -> Self {
        Self { points, errors, rng: SearchRng::seed_from_u64(seed), bytes: Vec::new() }
    }

    /// Hands over those of the points `of`, by index, of which a number `u` that moves a value is above its bound in this
    /// draw.
    fn draw(&mut self, draw: u32, of: &[(usize, f64)], mut take: impl FnMut(usize, Objectives)) {
        let (count, width) = (self.points.len(), self.errors.first().map_or(0, Vec::len));
        for near in of.chunk_by(|a, b| a.0 / AT_ONCE == b.0 / AT_ONCE) {
            let ([(first, _), ..], [.., (last, _)]) = (near, near) else { continue };
            // Those left out have their place in the stream too: what the others draw does not depend on them.
            let row = u128::from(draw) * count as u128 + *first as u128;
            self.rng.set_word_pos(WORDS_A_NORMAL * width as u128 * row);
            let row_bytes = BYTES_A_NORMAL * width;
            self.bytes.resize((last - first + 1) * row_bytes, 0);
            self.rng.fill_bytes(&mut self.bytes);
            for &(index, bound) in near {
                let normals = &self.bytes[(index - first) * row_bytes..][..row_bytes];
                if let Some(point) = self.point(index, normals, bound) {
                    take(index, point);
                }
            }
        }
    }

    fn point(&self, index: usize, normals: &[u8], bound: f64) -> Option<Objectives> {
        let (point, errors) = (&self.points[index], &self.errors[index]);
        let normals = normals.as_chunks().0.iter().map(Normal::of);
        let is_near = |(normal, error): (Normal, &f64)| normal.u <= bound || *error == 0.0;
        if bound > NEVER && normals.clone().zip(errors).all(is_near) {
            return None;
        }
        let moved = point.values().iter().zip(errors).zip(normals);
        let values: Vec<f64> =
            moved.map(|((value, error), normal)| value + error * normal.value()).collect();
        Some(Objectives::new(values).unwrap_or_else(|_| point.clone()))
    }
}

/// The `open` points, each with a bound of its numbers `u`: in a draw in which none is above it the point is off the front,
/// since it is so near its mean that one of the front of the means dominates it, wherever that is in these draws. Those
/// that are off it in all of these draws are left out.
fn bounds(stream: &mut Stream<'_>, open: &[usize], draws: u32) -> Vec<(usize, f64)> {
    // Radii that are tried, and the bound below which the radius √(−2 ln(1 − u)) is less by a hair.
    let radii: Vec<(f64, f64)> = (1..=12)
        .map(|half| f64::from(half) / 2.0)
        .map(|radius| (radius, 1.0 - (-0.5 * (radius - 0.01).powi(2)).exp()))
        .collect();
    let mut best = front(stream.points);
    best.sort_unstable();
    let best: Vec<(usize, f64)> = best.into_iter().map(|index| (index, NEVER)).collect();
    let mut corners: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for draw in 0..draws {
        stream.draw(draw, &best, |index, point| {
            let corner = corners.entry(index).or_insert_with(|| point.values().to_vec());
            corner.iter_mut().zip(point.values()).for_each(|(a, b)| *a = a.max(*b));
        });
    }
    let mut worst = Frontier::default();
    for corner in corners.into_values() {
        if let Ok(corner) = Objectives::new(corner) {
            worst.insert(&corner);
        }
    }
    let is_out = |index: usize, radius: f64| {
        let corner = corner(&stream.points[index], &stream.errors[index], -radius);
        corner.is_some_and(|corner| worst.dominates(&corner))
    };
    let bound = |index: usize| {
        let count = radii.partition_point(|(radius, _)| is_out(index, *radius));
        count.checked_sub(1).map_or(NEVER, |last| radii[last].1)
    };
    let is_open = |index: &&usize| !is_out(**index, REACH);
    open.iter().filter(is_open).map(|&index| (index, bound(index))).collect()
}

/// Below every number of a [`Normal`].
const NEVER: f64 = -1.0;

/// The point with each value moved by so many times its error; none where that is no number.
fn corner(point: &Objectives, errors: &[f64], times: f64) -> Option<Objectives> {
    let moved = point.values().iter().zip(errors).map(|(value, error)| value + times * error);
    Objectives::new(moved.collect::<Vec<_>>()).ok()
}

/// Those that a draw could put on a front: all but those that another dominates however both are drawn. Only these need
/// drawing, as who is dominated keeps nobody else off a front.
fn contested(points: &[Objectives], errors: &[Vec<f64>]) -> Vec<usize> {
    let corner = |index: usize, sign: f64| corner(&points[index], &errors[index], sign * REACH);
    let mut worst = Frontier::default();
    for index in 0..points.len() {
        if let Some(corner) = corner(index, 1.0) {
            worst.insert(&corner);
        }
    }
    (0..points.len())
        .filter(|&index| corner(index, -1.0).is_none_or(|best| !worst.dominates(&best)))
        .collect()
}

/// A draw from the standard normal distribution (Box and Muller 1958).
struct Normal {
    u: f64,
    v: f64,
}

impl Normal {
    /// From the next bytes of the stream: two numbers of 53 bits in [0, 1).
    fn of(bytes: &[u8; BYTES_A_NORMAL]) -> Self {
        let number = |bytes: &[u8]| {
            let bits = bytes.iter().rev().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            (bits >> 11) as f64 / 2_f64.powi(53)
        };
        let (u, v) = bytes.split_at(BYTES_A_NORMAL / 2);
        Self { u: number(u), v: number(v) }
    }

    fn value(&self) -> f64 {
        (-2.0 * (1.0 - self.u).ln()).sqrt() * (std::f64::consts::TAU * self.v).cos()
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    /// Every point drawn each time, one after the other.
    fn all_drawn(points: &[Objectives], errors: &[Vec<f64>], seed: u64) -> Vec<f64> {
        let mut rng = SearchRng::seed_from_u64(seed);
        let mut normal = || Normal { u: rng.random(), v: rng.random() }.value();
        let mut on_front = vec![0_u32; points.len()];
        for _ in 0..DRAWS {
            let mut moved = |(point, errors): (&Objectives, &Vec<f64>)| {
                let values = point.values().iter().zip(errors);
                let moved: Vec<f64> = values.map(|(v, e)| v + e * normal()).collect();
                Objectives::new(moved).unwrap_or_else(|_| point.clone())
            };
            let drawn: Vec<Objectives> = points.iter().zip(errors).map(&mut moved).collect();
            for index in front(&drawn) {
                on_front[index] += 1;
            }
        }
        on_front.into_iter().map(|count| f64::from(count) / f64::from(DRAWS)).collect()
    }

    #[test]
    fn who_cannot_be_on_a_front_is_not_drawn_and_nothing_else_changes() {
        let mut rng = SearchRng::seed_from_u64(3);
        for (objectives, scale) in
            [(1, 0.01), (1, 0.3), (2, 0.01), (2, 0.1), (2, 0.0), (3, 0.02), (3, 0.1), (2, 1e300)]
        {
            let mut row = |scale: f64| -> Vec<f64> {
                (0..objectives).map(|_| scale * rng.random::<f64>()).collect()
            };
            let points: Vec<Objectives> =
                (0..120).map(|_| Objectives::new(row(1.0)).expect("finite")).collect();
            let mut errors: Vec<Vec<f64>> = (0..120).map(|_| row(scale)).collect();
            assert_eq!(memberships(&points, &errors, 5), all_drawn(&points, &errors, 5));
            // A latency, which no seed moves.
            for errors in &mut errors {
                errors[0] = 0.0;
            }
            assert_eq!(memberships(&points, &errors, 5), all_drawn(&points, &errors, 5));
            let (points, errors) = (points.as_slice(), errors.as_slice());
            let mut stream = Stream::new(points, errors, 5);
            let all: Vec<usize> = (0..120).collect();
            let open = bounds(&mut stream, &all, DRAWS);
            let settled = 120 - open.iter().filter(|(_, u)| *u <= 0.9).count();
            assert!(settled > 20 || scale > 0.05, "{settled} are settled at a glance");
            let drawn = contested(points, errors).len();
            assert!(drawn < 120 || scale > 0.05, "{drawn} are drawn of {objectives} objectives");
        }
        assert!(memberships(&[], &[], 5).is_empty());
    }
}
