//! Fronts drawn from the noise of all points together: how often each is on one.

mod normal;
mod shared;

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};

use normal::{BYTES_A_NORMAL, Normal, REACH, WORDS_A_NORMAL};
use shared::Shared;

use super::noise::Noise;
use crate::pareto::{Frontier, Objectives, front};
use crate::proposals::SearchRng;

/// Fronts drawn to see how sure a place on it is.
const DRAWS: u32 = 400;

/// Points that are drawn at once, if so many are open.
const AT_ONCE: usize = 256;

/// On which part of the fronts drawn each point is, of which each value has an error.
pub(super) fn memberships(points: &[Objectives], noises: &[Vec<Noise>], seed: u64) -> Vec<f64> {
    let shared = Shared::drawn(noises, DRAWS, seed);
    let all: Vec<usize> = (0..points.len()).collect();
    let open = contested(points, noises, &shared, &all);
    let is_certain =
        open.iter().all(|&index| noises[index].iter().all(|noise| noise.total() == 0.0));
    // Where nothing is in doubt, one draw tells what all would.
    let draws = if is_certain { 1 } else { DRAWS };
    let mut stream = Stream::new(points, noises, &shared, seed);
    let bounds = bounds(&mut stream, &open, front(points), draws);
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

/// Hands over the points, by index, as they would be, `draws` times: but those that one of `against` dominates then, as far
/// as that is seen at a glance.
pub(super) fn drawn(
    points: &[Objectives],
    noises: &[Vec<Noise>],
    against: &[usize],
    (seed, draws): (u64, u32),
    mut each: impl FnMut(&[(usize, Objectives)]),
) {
    let shared = Shared::drawn(noises, draws, seed);
    let open = contested(points, noises, &shared, against);
    let means: Vec<Objectives> = against.iter().map(|&index| points[index].clone()).collect();
    let best: Vec<usize> = front(&means).into_iter().map(|place| against[place]).collect();
    let mut stream = Stream::new(points, noises, &shared, seed);
    let bounds = bounds(&mut stream, &open, best, draws);
    let mut drawn = Vec::new();
    for draw in 0..draws {
        drawn.clear();
        stream.draw(draw, &bounds, |index, point| drawn.push((index, point)));
        each(&drawn);
    }
}

/// Points as they would be from other seeds.
struct Stream<'a> {
    points: &'a [Objectives],
    noises: &'a [Vec<Noise>],
    shared: &'a Shared,
    rng: SearchRng,
    /// Of the stream, what belongs to the points in hand.
    bytes: Vec<u8>,
}

impl<'a> Stream<'a> {
    fn new(
        points: &'a [Objectives],
        noises: &'a [Vec<Noise>],
        shared: &'a Shared,
        seed: u64,
    ) -> Self {
        let rng = SearchRng::seed_from_u64(seed);
        Self { points, noises, shared, rng, bytes: Vec::new() }
    }

    /// Hands over those of the points `of`, by index, of which a number `u` that moves a value is above its bound in this
    /// draw.
    fn draw(&mut self, draw: u32, of: &[(usize, f64)], mut take: impl FnMut(usize, Objectives)) {
        let (count, width) = (self.points.len(), self.noises.first().map_or(0, Vec::len));
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
                if let Some(point) = self.point(draw, index, normals, bound) {
                    take(index, point);
                }
            }
        }
    }

    fn point(&self, draw: u32, index: usize, normals: &[u8], bound: f64) -> Option<Objectives> {
        let (point, noises) = (&self.points[index], &self.noises[index]);
        let normals = normals.as_chunks().0.iter().map(Normal::of);
        let is_near = |(normal, noise): (Normal, &Noise)| normal.u <= bound || noise.own == 0.0;
        if bound > NEVER && normals.clone().zip(noises).all(is_near) {
            return None;
        }
        let own = |noise: &Noise, normal: Normal| {
            // most latencies have no error, and logarithms are dear
            if noise.own == 0.0 { 0.0 } else { noise.own * normal.value() }
        };
        let values = point.values().iter().zip(noises).zip(normals).enumerate();
        let values = values.map(|(at, ((value, noise), normal))| {
            value + own(noise, normal) + self.shared.moved(noise, at, draw)
        });
        Some(Objectives::new(values).unwrap_or_else(|_| point.clone()))
    }
}

/// The `open` points, each with a bound of its numbers `u`: in a draw in which none is above it the point is off the front,
/// since it is so near its mean that one of the `best`, the front of the means, dominates it, wherever that is in these
/// draws. Those that are off it in all of these draws are left out.
fn bounds(
    stream: &mut Stream<'_>,
    open: &[usize],
    mut best: Vec<usize>,
    draws: u32,
) -> Vec<(usize, f64)> {
    // Radii that are tried, and the bound below which the radius √(−2 ln(1 − u)) is less by a hair.
    let radii: Vec<(f64, f64)> = (1..=12)
        .map(|half| f64::from(half) / 2.0)
        .map(|radius| (radius, 1.0 - (-0.5 * (radius - 0.01).powi(2)).exp()))
        .collect();
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
    let bound = |&index: &usize| {
        let (point, noises) = (&stream.points[index], &stream.noises[index]);
        let shared: Vec<f64> = noises
            .iter()
            .enumerate()
            .map(|(at, noise)| stream.shared.least(noise, at, draws))
            .collect();
        let is_out = |radius: f64| {
            let corner = moved(point, |at| shared[at] - radius * noises[at].own);
            corner.is_some_and(|corner| worst.dominates(&corner))
        };
        if is_out(REACH) {
            return None;
        }
        let count = radii.partition_point(|(radius, _)| is_out(*radius));
        Some((index, count.checked_sub(1).map_or(NEVER, |last| radii[last].1)))
    };
    open.iter().filter_map(bound).collect()
}

/// Below every number of a [`Normal`].
const NEVER: f64 = -1.0;

/// The point with each value moved; none where that is no number.
fn moved(point: &Objectives, by: impl Fn(usize) -> f64) -> Option<Objectives> {
    let moved = point.values().iter().enumerate().map(|(at, value)| value + by(at));
    Objectives::new(moved).ok()
}

/// Those that a draw could put on a front: all but those that one of `against` dominates however both are drawn. Only these
/// need drawing, as who is dominated keeps nobody else off a front.
fn contested(
    points: &[Objectives],
    noises: &[Vec<Noise>],
    shared: &Shared,
    against: &[usize],
) -> Vec<usize> {
    let corner = |index: usize, sign: f64| {
        let noises = &noises[index];
        let reach = |at: usize| REACH * noises[at].own + shared.reach(&noises[at], at);
        moved(&points[index], |at| sign * reach(at))
    };
    let mut worst = Frontier::default();
    for &index in against {
        if let Some(corner) = corner(index, 1.0) {
            worst.insert(&corner);
        }
    }
    (0..points.len())
        .filter(|&index| corner(index, -1.0).is_none_or(|best| !worst.dominates(&best)))
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    /// Every point drawn each time, one after the other.
    fn all_drawn(points: &[Objectives], noises: &[Vec<Noise>], seed: u64) -> Vec<f64> {
        let shared = Shared::drawn(noises, DRAWS, seed);
        let mut rng = SearchRng::seed_from_u64(seed);
        let mut normal = || Normal { u: rng.random(), v: rng.random() }.value();
        let mut on_front = vec![0_u32; points.len()];
        for draw in 0..DRAWS {
            let mut moved = |(point, noises): (&Objectives, &Vec<Noise>)| {
                let values = point.values().iter().zip(noises).enumerate();
                let moved: Vec<f64> = values
                    .map(|(at, (v, e))| v + e.own * normal() + shared.moved(e, at, draw))
                    .collect();
                Objectives::new(moved).unwrap_or_else(|_| point.clone())
            };
            let drawn: Vec<Objectives> = points.iter().zip(noises).map(&mut moved).collect();
            for index in front(&drawn) {
                on_front[index] += 1;
            }
        }
        on_front.into_iter().map(|count| f64::from(count) / f64::from(DRAWS)).collect()
    }

    #[test]
    fn who_cannot_be_on_a_front_is_not_drawn_and_nothing_else_changes() {
        let mut rng = SearchRng::seed_from_u64(3);
        for (objectives, scale, shared) in [
            (1, 0.01, 0),
            (1, 0.3, 0),
            (2, 0.01, 0),
            (2, 0.01, 3),
            (2, 0.1, 0),
            (2, 0.1, 3),
            (2, 0.0, 0),
            (2, 0.0, 2),
            (3, 0.02, 2),
            (3, 0.1, 0),
            (2, 1e300, 0),
        ] {
            let mut row = |count: usize, scale: f64| -> Vec<f64> {
                (0..count).map(|_| scale * rng.random::<f64>()).collect()
            };
            let points: Vec<Objectives> =
                (0..120).map(|_| Objectives::new(row(objectives, 1.0)).expect("finite")).collect();
            let mut noises: Vec<Vec<Noise>> = (0..120)
                .map(|_| {
                    let own = row(objectives, scale);
                    own.into_iter().map(|own| Noise { own, shared: row(shared, 0.01) }).collect()
                })
                .collect();
            assert_eq!(memberships(&points, &noises, 5), all_drawn(&points, &noises, 5));
            // A latency, which no seed moves.
            for noises in &mut noises {
                noises[0] = Noise::default();
            }
            assert_eq!(memberships(&points, &noises, 5), all_drawn(&points, &noises, 5));
            let (points, noises) = (points.as_slice(), noises.as_slice());
            let of_all = Shared::drawn(noises, DRAWS, 5);
            let mut stream = Stream::new(points, noises, &of_all, 5);
            let all: Vec<usize> = (0..120).collect();
            let open = bounds(&mut stream, &all, front(points), DRAWS);
            let settled = 120 - open.iter().filter(|(_, u)| *u <= 0.9).count();
            assert!(settled > 20 || scale > 0.05, "{settled} are settled at a glance");
            let drawn = contested(points, noises, &of_all, &all).len();
            assert!(drawn < 120 || scale > 0.05, "{drawn} are drawn of {objectives} objectives");
        }
        assert!(memberships(&[], &[], 5).is_empty());
    }

    #[test]
    fn only_who_is_dominated_is_not_handed_over() {
        let mut rng = SearchRng::seed_from_u64(4);
        let mut value = || rng.random::<f64>();
        let points: Vec<Objectives> =
            (0..90).map(|_| Objectives::new([value(), value()]).expect("finite")).collect();
        let noises: Vec<Vec<Noise>> = (0..90)
            .map(|_| vec![Noise { own: 0.05 * value(), shared: vec![0.02] }, Noise::default()])
            .collect();
        let (against, all): (Vec<usize>, Vec<usize>) = ((0..30).collect(), (0..90).collect());
        let mut of_all = Vec::new();
        drawn(&points, &noises, &[], (7, 50), |drawn| of_all.push(drawn.to_vec()));
        let (mut draw, mut left_out) = (0, 0);
        drawn(&points, &noises, &against, (7, 50), |some| {
            let every: &[(usize, Objectives)] = &of_all[draw];
            assert!(every.iter().map(|(index, _)| *index).eq(all.iter().copied()));
            let mut front = Frontier::default();
            for &index in &against {
                front.insert(&every[index].1);
            }
            for (index, point) in every {
                let found = some.iter().find(|(of, _)| of == index);
                assert!(found.map_or(front.dominates(point), |(_, same)| same == point));
                left_out += u32::from(found.is_none());
            }
            draw += 1;
        });
        assert!(left_out > 50 * 40, "{left_out} of 4500 are left out");
    }

    #[test]
    fn an_error_that_all_share_moves_nobody_off_a_front() {
        let point = |loss: f64, us: f64| Objectives::new([loss, us]).expect("finite");
        let points = [point(1.50, 9.0), point(1.51, 9.5), point(1.60, 5.0)];
        let of_text = |own| {
            let loss = Noise { own, shared: vec![0.1, 0.05] };
            vec![loss, Noise::default()]
        };
        let all = |own| [of_text(own), of_text(own), of_text(own)];
        assert_eq!(memberships(&points, &all(0.0), 1), [1.0, 0.0, 1.0]);
        let own = memberships(&points, &all(0.01), 1);
        // P(1.51 + 0.01 a < 1.50 + 0.01 b) = P(N > 1/√2) = 0.24
        assert!((own[1] - 0.24).abs() < 0.06, "{own:?}");
    }
}
