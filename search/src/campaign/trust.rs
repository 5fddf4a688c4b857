//! Which extra trainings tell how far a front is to be trusted: members of the front from other seeds, where noise could
//! change it, and candidates of every quality for longer, to see whether the proxy ranks as a longer training does.

use std::collections::BTreeMap;

use serde::Serialize;

use super::candidate::{Candidate, CandidateState};
use super::drawn::memberships;
use super::front::Contenders;
use super::measured::seed_deviations;
use super::settings::Settings;
use super::tasks::Training;
use crate::objective::Objective;

pub use super::settings::Plan;

/// Seeds that a candidate is trained from at most.
const SEEDS: usize = 5;
/// A candidate that is on a smaller part of the drawn fronts, or off one, keeps its place.
pub const DOUBT: f64 = 0.05;
/// Repeats, as pairs of one candidate, that it takes to say how much seeds matter.
const KNOWN: usize = 3;

/// Trainings beside those that candidates are judged by, in full trainings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Extra {
    /// Those that are over.
    pub done: f64,
    /// Those to come, at most: repeats end when noise cannot change the front any more.
    pub left: f64,
}

impl Plan {
    /// What these rows have had of it and what is to come, where a full training takes so many tokens and so many candidates will
    /// have had one.
    pub fn extra<'a>(
        &self,
        tokens: u64,
        rows: impl Iterator<Item = &'a Candidate>,
        to_the_end: f64,
    ) -> Extra {
        let full = |of: u64| of as f64 / tokens.max(1) as f64;
        let is_extra =
            |row: &Candidate, of: u64, seed: u64| of == tokens && seed != row.seed || of > tokens;
        let done = rows
            .flat_map(|row| row.trained.iter().map(move |of| (row, of)))
            .filter(|(row, of)| is_extra(row, of.tokens, of.seed))
            .map(|(_, of)| full(of.tokens))
            .sum();
        let seeds = to_the_end * f64::from(self.seeds.saturating_sub(1));
        let is_longer = self.longer_tokens > tokens;
        let longer =
            if is_longer { f64::from(self.longer) * full(self.longer_tokens) } else { 0.0 };
        let all = seeds + f64::from(self.repeats) + longer;
        Extra { done, left: (all - done).max(0.0) }
    }
}

/// How far one more training from another seed could matter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Doubt {
    /// The candidate.
    pub number: u32,
    /// The chance that it belongs to the front, given the noise.
    pub membership: f64,
}

impl Doubt {
    /// Whether it may belong to the front, for all that the noise says.
    pub fn is_possible(&self) -> bool {
        self.membership >= DOUBT
    }
}

/// How sure the place of each candidate is, by drawing fronts from the noise of all of them together.
pub fn doubts(contenders: &Contenders<'_>, seed: u64) -> Vec<Doubt> {
    let memberships = memberships(&contenders.points, &contenders.noises(), seed);
    let numbers = contenders.rows.iter().map(|row| row.number);
    numbers.zip(memberships).map(|(number, membership)| Doubt { number, membership }).collect()
}

/// The extra training to begin next, when all candidates are judged; none when there is none, or when what is wanted
/// depends on those in `running`.
pub(super) fn next(
    settings: &Settings,
    rows: &BTreeMap<u32, Candidate>,
    running: &[Training],
    is_given_up: impl Fn(&Training) -> bool,
) -> Option<Training> {
    let (plan, full) = (&settings.trust, settings.tokens);
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
        while let Some(number) = repeat(rows.values(), settings, seed, &busy) {
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
    longer(rows.values(), settings)
        .into_iter()
        .map(|number| Training { number, tokens: plan.longer_tokens, seed: rows[&number].seed })
        .find(is_open)
}

/// The candidate whose training from another seed says most about the front; none when noise cannot change it.
/// Candidates in `busy` are being trained already.
fn repeat<'a>(
    rows: impl Iterator<Item = &'a Candidate> + Clone,
    settings: &'a Settings,
    seed: u64,
    busy: &[u32],
) -> Option<u32> {
    let tokens = settings.tokens;
    let contenders = Contenders::at(rows, &settings.objectives, tokens, settings.target_tokens);
    let members = contenders.front();
    let doubts = doubts(&contenders, seed);
    let all = contenders.rows;
    let deviations = seed_deviations(&all.iter().copied(), &settings.objectives, tokens);
    let freedom = deviations.iter().map(|(_, n)| *n).max().unwrap_or(0);
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
    rows: impl Iterator<Item = &'a Candidate> + Clone,
    settings: &'a Settings,
) -> Vec<u32> {
    let (tokens, objectives) = (settings.tokens, settings.objectives.as_slice());
    // In the order of what was measured, which no longer training moves.
    let rows = Contenders::at(rows, objectives, tokens, tokens).rows;
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
    let count = (settings.trust.longer as usize).min(order.len());
    (0..count)
        .map(|i| {
            let place = i as f64 * (order.len() - 1) as f64 / (count.max(2) - 1) as f64;
            order[place.round() as usize].number
        })
        .collect()
}
