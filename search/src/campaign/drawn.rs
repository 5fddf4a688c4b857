//! Fronts drawn from noise: how often each point is on one.

use rand::{RngExt, SeedableRng};

use crate::pareto::{Frontier, Objectives, front};
use crate::proposals::SearchRng;

/// Fronts drawn to see how sure a place on it is.
const DRAWS: u32 = 400;

/// Words of the random stream that a [`Normal`] takes: two doubles.
const WORDS_A_NORMAL: u128 = 4;

/// Further off than a normal of doubles ever is: √(−2 ln 2⁻⁵³) = 8.57.
const REACH: f64 = 8.6;

/// On which part of the fronts drawn each point is, of which each value has an error.
pub(super) fn memberships(points: &[Objectives], errors: &[Vec<f64>], seed: u64) -> Vec<f64> {
    let open = contested(points, errors);
    let is_certain = open.iter().all(|&index| errors[index].iter().all(|&error| error == 0.0));
    // Where nothing is in doubt, one draw tells what all would.
    let draws = if is_certain { 1 } else { DRAWS };
    let rng = SearchRng::seed_from_u64(seed);
    let mut stream = Stream { points, errors, rng, normals: Vec::new() };
    let bounds = bounds(&mut stream, &open, draws);
    let mut on_front = vec![0_u32; points.len()];
    for draw in 0..draws {
        let (mut drawn, mut indices) = (Vec::new(), Vec::new());
        for &(index, bound) in &bounds {
            if let Some(point) = stream.point(draw, index, bound) {
                drawn.push(point);
                indices.push(index);
            }
        }
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
    /// Those of the point in hand.
    normals: Vec<Normal>,
}

impl Stream<'_> {
    /// A point of a draw; none where all of its numbers `u` that move a value are at most `bound`.
    fn point(&mut self, draw: u32, index: usize, bound: f64) -> Option<Objectives> {
        let errors = &self.errors[index];
        // Those left out have their place in the stream too: what the others draw does not depend on them.
        let words_a_row = WORDS_A_NORMAL * errors.len() as u128;
        let at = words_a_row * (u128::from(draw) * self.points.len() as u128 + index as u128);
        if self.rng.get_word_pos() != at {
            self.rng.set_word_pos(at);
        }
        self.normals.clear();
        self.normals.extend(errors.iter().map(|_| Normal::draw(&mut self.rng)));
        if self.normals.iter().zip(errors).all(|(normal, error)| normal.u <= bound || *error == 0.0)
            && bound > NEVER
        {
            return None;
        }
        let point = &self.points[index];
        let moved = point.values().iter().zip(errors).zip(&self.normals);
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
    let mut worst = Frontier::default();
    for index in front(stream.points) {
        let drawn = (0..draws).filter_map(|draw| stream.point(draw, index, NEVER));
        let corner = drawn
            .map(|point| point.values().to_vec())
            .reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a.max(*b)).collect());
        if let Some(Ok(corner)) = corner.map(Objectives::new) {
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
    fn draw(rng: &mut SearchRng) -> Self {
        Self { u: rng.random(), v: rng.random() }
    }

    fn value(&self) -> f64 {
        (-2.0 * (1.0 - self.u).ln()).sqrt() * (std::f64::consts::TAU * self.v).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every point drawn each time, one after the other.
    fn all_drawn(points: &[Objectives], errors: &[Vec<f64>], seed: u64) -> Vec<f64> {
        let mut rng = SearchRng::seed_from_u64(seed);
        let mut normal = || Normal::draw(&mut rng).value();
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
            let rng = SearchRng::seed_from_u64(5);
            let (points, errors) = (points.as_slice(), errors.as_slice());
            let mut stream = Stream { points, errors, rng, normals: Vec::new() };
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
