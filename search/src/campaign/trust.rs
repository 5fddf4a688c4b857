//! Which extra trainings tell how far a front is to be trusted: members of the front from other seeds, where noise could
//! change it, and candidates of every quality for longer, to see whether the proxy ranks as a longer training does.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::candidate::{Candidate, CandidateState};
use super::front::Contenders;
use super::settings::Settings;
use super::tasks::Training;
use crate::objective::Objective;
use crate::pareto::{Frontier, Objectives, front};
use crate::proposals::SearchRng;

pub use super::settings::Plan;

/// Seeds that a candidate is trained from at most.
const SEEDS: usize = 5;
/// Fronts drawn to see how sure a place on it is.
const DRAWS: u32 = 400;
/// A candidate that is on a smaller part of the drawn fronts, or off one, keeps its place.
pub const DOUBT: f64 = 0.05;
/// Repeats, as pairs of one candidate, that it takes to say how much seeds matter.
const KNOWN: usize = 3;

/// How far one more training from another seed could matter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Doubt {
    /// The candidate.
    pub number: u32,
    /// The chance that it belongs to the front, given the noise.
    pub membership: f64,
}

/// The standard deviation between seeds of each objective, pooled over all candidates with several, and its degrees of
/// freedom. Zero for values that no trainer reports.
pub fn seed_deviations(
    rows: &[&Candidate],
    objectives: &[Objective],
    tokens: u64,
) -> Vec<(f64, usize)> {
    objectives
        .iter()
        .map(Objective::name)
        .map(|name| {
            let (mut squares, mut freedom) = (0.0, 0);
            for row in rows {
                let of_seeds: Vec<f64> = row
                    .trained
                    .iter()
                    .filter(|t| t.tokens == tokens)
                    .filter_map(|t| Some(t.values.get(name)?.mean))
                    .collect();
                let mean = of_seeds.iter().sum::<f64>() / of_seeds.len().max(1) as f64;
                squares += of_seeds.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
                freedom += of_seeds.len().saturating_sub(1);
            }
            (if freedom == 0 { 0.0 } else { (squares / freedom as f64).sqrt() }, freedom)
        })
        .collect()
}

/// How sure the place of each candidate is, by drawing fronts from the noise between seeds; before that is known, from the
/// standard errors that trainers report.
pub fn doubts<'a>(
    rows: impl Iterator<Item = &'a Candidate>,
    objectives: &[Objective],
    tokens: u64,
    seed: u64,
) -> Vec<Doubt> {
    let Contenders { rows, points, .. } = Contenders::at(rows, objectives, tokens);
    let deviations = seed_deviations(&rows, objectives, tokens);
    let errors: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            objectives
                .iter()
                .map(Objective::name)
                .zip(&deviations)
                .map(|(name, &(deviation, freedom))| {
                    let is_trained = row.trained.iter().any(|t| t.values.contains_key(name));
                    if !is_trained {
                        0.0
                    } else if freedom > 0 {
                        deviation / (row.seeds(tokens).max(1) as f64).sqrt()
                    } else {
                        row.values.get(name).and_then(|v| v.standard_error).unwrap_or(0.0)
                    }
                })
                .collect()
        })
        .collect();
    let memberships = memberships(&points, &errors, seed);
    rows.iter()
        .zip(memberships)
        .map(|(row, membership)| Doubt { number: row.number, membership })
        .collect()
}

/// On which part of the fronts drawn each point is, of which each value has an error.
pub(super) fn memberships(points: &[Objectives], errors: &[Vec<f64>], seed: u64) -> Vec<f64> {
    let open = contested(points, errors);
    let is_certain = open.iter().all(|&index| errors[index].iter().all(|&error| error == 0.0));
    // Where nothing is in doubt, one draw tells what all would.
    let draws = if is_certain { 1 } else { DRAWS };
    let mut rng = SearchRng::seed_from_u64(seed);
    let words_a_row = WORDS_A_NORMAL * errors.first().map_or(0, Vec::len) as u128;
    let mut on_front = vec![0_u32; points.len()];
    for draw in 0..u128::from(draws) {
        let mut drawn: Vec<Objectives> = Vec::with_capacity(open.len());
        for &index in &open {
            // Those left out have their place in the stream too: what the others draw does not depend on them.
            let at = words_a_row * (draw * points.len() as u128 + index as u128);
            if rng.get_word_pos() != at {
                rng.set_word_pos(at);
            }
            let moved: Vec<f64> = points[index]
                .values()
                .iter()
                .zip(&errors[index])
                .map(|(value, error)| value + error * normal(&mut rng))
                .collect();
            drawn.push(Objectives::new(moved).unwrap_or_else(|_| points[index].clone()));
        }
        for place in front(&drawn) {
            on_front[open[place]] += 1;
        }
    }
    on_front.into_iter().map(|count| f64::from(count) / f64::from(draws)).collect()
}

/// Those that a draw could put on a front: all but those that another dominates however both are drawn. Only these need
/// drawing, as who is dominated keeps nobody else off a front.
fn contested(points: &[Objectives], errors: &[Vec<f64>]) -> Vec<usize> {
    // Further off than a normal of doubles ever is: √(−2 ln 2⁻⁵³) = 8.57.
    const REACH: f64 = 8.6;
    let corner = |index: usize, sign: f64| {
        let moved = points[index].values().iter().zip(&errors[index]);
        Objectives::new(moved.map(|(v, error)| v + sign * REACH * error).collect::<Vec<_>>()).ok()
    };
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

/// The extra training to begin next, when all candidates are judged; none when there is none, or when what is wanted
/// depends on those in `running`.
pub(super) fn next(
    settings: &Settings,
    rows: &BTreeMap<u32, Candidate>,
    running: &[Training],
    is_given_up: impl Fn(&Training) -> bool,
) -> Option<Training> {
    let (plan, full, objectives) =
        (&settings.trust, settings.tokens, settings.objectives.as_slice());
    let is_open = |training: &Training| {
        let key = (training.tokens, training.seed);
        !is_given_up(training)
            && !running.contains(training)
            && !rows[&training.number].trained.iter().any(|t| (t.tokens, t.seed) == key)
    };
    let done = || rows.values().filter(|r| r.state == CandidateState::Done && r.fidelity == full);
    let with_seed = |row: &Candidate, index: u64| Training {
        number: row.number,
        tokens: full,
        seed: row.seed.wrapping_add(index),
    };
    // Of all, the second seed before the third: a comparison that is stopped is a fair one.
    let of_all = (1..u64::from(plan.seeds))
        .find_map(|index| done().map(|row| with_seed(row, index)).find(is_open));
    if of_all.is_some() {
        return of_all;
    }
    let is_repeat = |tokens: u64, seed: u64, row: &Candidate| tokens == full && seed != row.seed;
    let repeated: usize = done()
        .flat_map(|row| row.trained.iter().filter(|t| is_repeat(t.tokens, t.seed, row)))
        .count()
        + running.iter().filter(|t| is_repeat(t.tokens, t.seed, &rows[&t.number])).count();
    let of_all: usize = done().count() * plan.seeds.saturating_sub(1) as usize;
    if repeated < of_all + plan.repeats as usize {
        let mut busy: Vec<u32> = running.iter().map(|t| t.number).collect();
        let seed = settings.seed.wrapping_add(repeated as u64);
        while let Some(number) = repeat(rows.values(), objectives, full, seed, &busy) {
            let row = &rows[&number];
            let next = (1..u64::from(u32::MAX)).map(|index| with_seed(row, index));
            match next.take(32).find(is_open) {
                Some(training) if !running.iter().any(|t| t.number == number) => {
                    return Some(training);
                }
                _ => busy.push(number),
            }
        }
    }
    let is_longer = |tokens: u64| tokens == plan.longer_tokens && tokens > full;
    let has_longer = |row: &&Candidate| row.trained.iter().any(|t| is_longer(t.tokens));
    let tried = rows.values().filter(has_longer).count()
        + running.iter().filter(|t| is_longer(t.tokens)).count();
    if tried >= plan.longer as usize || !is_longer(plan.longer_tokens) {
        return None;
    }
    longer(rows.values(), objectives, full, plan.longer)
        .into_iter()
        .map(|number| Training { number, tokens: plan.longer_tokens, seed: rows[&number].seed })
        .find(is_open)
}

/// The candidate whose training from another seed says most about the front; none when noise cannot change it.
/// Candidates in `busy` are being trained already.
fn repeat<'a>(
    rows: impl Iterator<Item = &'a Candidate> + Clone,
    objectives: &[Objective],
    tokens: u64,
    seed: u64,
    busy: &[u32],
) -> Option<u32> {
    let contenders = Contenders::at(rows.clone(), objectives, tokens);
    let members = contenders.front();
    let all = contenders.rows;
    let deviations = seed_deviations(&all, objectives, tokens);
    let freedom = deviations.iter().map(|(_, n)| *n).max().unwrap_or(0);
    let doubts = doubts(rows, objectives, tokens, seed);
    let mut best: Option<(f64, u32)> = None;
    for (row, doubt) in all.iter().zip(&doubts) {
        let seeds = row.seeds(tokens);
        if seeds >= SEEDS || busy.contains(&row.number) {
            continue;
        }
        let p = doubt.membership;
        let mut worth =
            if p > DOUBT && p < 1.0 - DOUBT { p * (1.0 - p) / seeds as f64 } else { 0.0 };
        // Until it is known how much seeds matter, members of the front are repeated to learn it.
        if freedom < KNOWN && members.contains(&row.number) {
            worth += 1.0 / seeds as f64;
        }
        if worth > best.map_or(0.0, |(worth, _)| worth) {
            best = Some((worth, row.number));
        }
    }
    best.map(|(_, number)| number)
}

/// The candidates to train for longer: from best to worst, spread evenly over the order of the first objective that a trainer
/// reports.
fn longer<'a>(
    rows: impl Iterator<Item = &'a Candidate>,
    objectives: &[Objective],
    tokens: u64,
    count: u32,
) -> Vec<u32> {
    let rows = Contenders::at(rows, objectives, tokens).rows;
    let is_trained = |objective: &&Objective| {
        rows.iter().any(|row| row.trained.iter().any(|t| t.values.contains_key(objective.name())))
    };
    let Some(objective) = objectives.iter().find(is_trained) else {
        return Vec::new();
    };
    // As they stood before repeats moved the means, so that the choice stays.
    let value = |row: &&Candidate| {
        let first = row.trained.iter().find(|t| t.tokens == tokens && t.seed == row.seed);
        first.and_then(|t| objective.minimised(&t.values)).unwrap_or(f64::INFINITY)
    };
    let mut order = rows;
    order.sort_by(|a, b| value(a).total_cmp(&value(b)).then(a.number.cmp(&b.number)));
    let count = (count as usize).min(order.len());
    (0..count)
        .map(|i| {
            let place = i as f64 * (order.len() - 1) as f64 / (count.max(2) - 1) as f64;
            order[place.round() as usize].number
        })
        .collect()
}

/// Words of the random stream that a [`normal`] takes: two doubles.
const WORDS_A_NORMAL: u128 = 4;

/// A draw from the standard normal distribution (Box and Muller 1958).
fn normal(rng: &mut SearchRng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every point drawn each time, one after the other.
    fn all_drawn(points: &[Objectives], errors: &[Vec<f64>], seed: u64) -> Vec<f64> {
        let mut rng = SearchRng::seed_from_u64(seed);
        let mut on_front = vec![0_u32; points.len()];
        for _ in 0..DRAWS {
            let moved = |(point, errors): (&Objectives, &Vec<f64>)| {
                let values = point.values().iter().zip(errors);
                let moved: Vec<f64> = values.map(|(v, e)| v + e * normal(&mut rng)).collect();
                Objectives::new(moved).unwrap_or_else(|_| point.clone())
            };
            let drawn: Vec<Objectives> = points.iter().zip(errors).map(moved).collect();
            for index in front(&drawn) {
                on_front[index] += 1;
            }
        }
        on_front.into_iter().map(|count| f64::from(count) / f64::from(DRAWS)).collect()
    }

    #[test]
    fn who_cannot_be_on_a_front_is_not_drawn_and_nothing_else_changes() {
        let mut rng = SearchRng::seed_from_u64(3);
        for (objectives, scale) in [(1, 0.01), (2, 0.01), (2, 0.0), (3, 0.02), (2, 1e300)] {
            let mut row = |scale: f64| -> Vec<f64> {
                (0..objectives).map(|_| scale * rng.random::<f64>()).collect()
            };
            let points: Vec<Objectives> =
                (0..120).map(|_| Objectives::new(row(1.0)).expect("finite")).collect();
            let errors: Vec<Vec<f64>> = (0..120).map(|_| row(scale)).collect();
            assert_eq!(memberships(&points, &errors, 5), all_drawn(&points, &errors, 5));
            let drawn = contested(&points, &errors).len();
            assert!(drawn < 120 || scale > 1.0, "{drawn} are drawn of {objectives} objectives");
        }
        assert!(memberships(&[], &[], 5).is_empty());
    }
}
