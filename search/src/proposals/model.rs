//! Surrogate-assisted evolution: many cheap children of the best trials, ranked by a Gaussian process for each
//! objective, and the one that is expected to enlarge the dominated volume most is evaluated.
//!
//! Objectives are modelled on the scale of the current front: 0 at its best value, 1 at its worst, compressed far above,
//! because how bad a bad point is decides nothing. Each proposal draws the length scales that it believes anew. Failed and
//! infeasible trials teach a model of feasibility. Pending trials count as seen with the value that the model expects of
//! them, so that many workers get different points.

use std::collections::HashSet;

use rand::RngExt;

use super::domain::{Domain, SearchRng};
use super::local;
use super::select::preference;
use super::trial::{Known, Origin, Outcome, Proposal, Seen, Trial};
use crate::pareto::{Objectives, front};
use crate::surrogate::{
    Encoded, ExpectedImprovement, GaussianProcess, Hyperparameters, Prediction, moments, normal_cdf,
};

/// Observations that a process sees; beyond, the best, the latest and an even sample of all.
const OBSERVED: usize = 400;
/// Of the proposals after that many, one in so many is a plain step from the front.
const STEP_EVERY: usize = 4;
/// Evaluations of the likelihood in a fit.
const FIT_EVALUATIONS: usize = 30;
/// Observations that hyperparameters are fitted to.
const FITTED: usize = 200;
/// Trials that become parents.
const PARENTS: usize = 40;
/// Children of each kind in the first pool.
const MUTANTS: usize = 300;
const RECOMBINED: usize = 150;
const RANDOM: usize = 150;
/// Rounds of local search on the acquisition, the points that each starts from, and the neighbours of one.
const ROUNDS: usize = 4;
const CLIMBERS: usize = 6;
const NEIGHBOURS: usize = 16;
/// The reference point on the scale of the front is at least this.
const LEAST_REFERENCE: f64 = 1.25;
/// The deviation, on the scale of the front, of what is computed.
const CERTAIN: f64 = 1e-6;
/// A front of two objectives with more members is trusted to span the range of the true one, the more the longer it is.
const FEW_MEMBERS: f64 = 5.0;

/// Hyperparameters of the latest fit, kept because a fit costs more than a proposal. Forgetting it changes no proposal.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Vec<(Encoded, Vec<f64>, Hyperparameters)>);

/// What proposals are made from.
pub(super) struct Evidence<'a, D: Domain> {
    pub(super) trials: &'a [Trial<D::Point>],
    pub(super) known: &'a [Known<'a, D::Point>],
    pub(super) seen: &'a Seen<'a, D>,
    /// Objectives of a point that need not be learnt, in their order; empty: none.
    pub(super) computed: &'a dyn Fn(&D::Point) -> Vec<Option<f64>>,
}

pub(super) fn propose<D: Domain>(
    domain: &D,
    evidence: &Evidence<'_, D>,
    memory: &mut Memory,
    rng: &mut SearchRng,
) -> Option<Proposal<D::Point>> {
    let &Evidence { trials, known, seen, computed } = evidence;
    // A model of many points sees a part of them. Steps from the front need none, and find what it has overlooked.
    if known.len() > OBSERVED / 2
        && trials.len() % STEP_EVERY == 0
        && let Some(step) = local::propose(domain, known, seen, rng)
    {
        return Some(step);
    }
    let model = Model::new(domain, evidence, memory, rng);
    let mut pool =
        Pool { domain, seen, computed, model: &model, met: HashSet::new(), members: Vec::new() };
    let all: Vec<&Known<'_, D::Point>> = known.iter().collect();
    let parents: Vec<&Known<'_, D::Point>> =
        preference(&all).into_iter().take(PARENTS).map(|index| all[index]).collect();
    pool.breed(&parents, rng);
    for _ in 0..ROUNDS {
        pool.climb(rng);
    }
    // Without any hope of growth the model has nothing to say.
    pool.best().or_else(|| local::propose(domain, known, seen, rng))
}

/// Candidates with their scores.
struct Pool<'a, D: Domain> {
    domain: &'a D,
    seen: &'a Seen<'a, D>,
    computed: &'a dyn Fn(&D::Point) -> Vec<Option<f64>>,
    model: &'a Model,
    met: HashSet<D::Id>,
    members: Vec<(f64, Proposal<D::Point>)>,
}

impl<D: Domain> Pool<'_, D> {
    fn breed(&mut self, parents: &[&Known<'_, D::Point>], rng: &mut SearchRng) {
        let mut children = Vec::new();
        // The better half of the parents has most of the children.
        let draw = |rng: &mut SearchRng| {
            let a = rng.random_range(0..parents.len());
            parents[a.min(rng.random_range(0..parents.len()))]
        };
        for _ in 0..MUTANTS {
            let parent = draw(rng);
            if let Some((mut point, mut change)) = self.domain.mutate(parent.point, rng) {
                while rng.random_bool(0.3) {
                    let Some((next, more)) = self.domain.mutate(&point, rng) else { break };
                    (point, change) = (next, format!("{change}, {more}"));
                }
                children.push(Proposal {
                    point,
                    origin: Origin::Mutation { of: parent.number, change },
                });
            }
        }
        for _ in 0..RECOMBINED {
            let (a, b) = (draw(rng), draw(rng));
            if a.number == b.number {
                continue;
            }
            if let Some(point) = self.domain.recombine(a.point, b.point, rng) {
                let of = (a.number, b.number);
                children
                    .push(Proposal { point, origin: Origin::Recombination { of, change: None } });
            }
        }
        for _ in 0..RANDOM {
            if let Some(point) = self.domain.sample(rng) {
                children.push(Proposal { point, origin: Origin::Random });
            }
        }
        self.add(children);
    }

    /// Adds the neighbours of the best members.
    fn climb(&mut self, rng: &mut SearchRng) {
        let mut neighbours = Vec::new();
        for (_, member) in self.members.iter().take(CLIMBERS) {
            for _ in 0..NEIGHBOURS {
                if let Some((point, step)) = self.domain.mutate(&member.point, rng) {
                    let origin = member.origin.clone().then(&step);
                    neighbours.push(Proposal { point, origin });
                }
            }
        }
        self.add(neighbours);
    }

    /// Scores those that are new and keeps the members sorted, best first.
    fn add(&mut self, children: Vec<Proposal<D::Point>>) {
        let new: Vec<Proposal<D::Point>> = children
            .into_iter()
            .filter(|c| self.seen.is_new(&c.point) && self.met.insert(self.domain.id(&c.point)))
            .collect();
        let encoded = encoded(self.domain, new.iter().map(|child| &child.point));
        let computed: Vec<Vec<Option<f64>>> =
            new.iter().map(|child| (self.computed)(&child.point)).collect();
        self.members.extend(self.model.scores(&encoded, &computed).into_iter().zip(new));
        self.members.sort_by(|a, b| b.0.total_cmp(&a.0));
    }

    fn best(self) -> Option<Proposal<D::Point>> {
        self.members.into_iter().next().filter(|(score, _)| *score > 0.0).map(|(_, best)| best)
    }
}

/// What the trials say about all other points.
struct Model {
    scales: Vec<Scale>,
    objectives: Vec<GaussianProcess>,
    feasibility: Option<GaussianProcess>,
    improvement: ExpectedImprovement,
}

impl Model {
    fn new<D: Domain>(
        domain: &D,
        evidence: &Evidence<'_, D>,
        memory: &mut Memory,
        rng: &mut SearchRng,
    ) -> Self {
        let &Evidence { trials, known, computed, .. } = evidence;
        let scales = scales(known);
        let head = &known[..fitted(known.len())];
        let head_scales = self::scales(head);
        let head_chosen = chosen(head, FITTED);
        let head_points = encoded(domain, head_chosen.iter().map(|&index| head[index].point));
        let chosen = chosen(known, OBSERVED);
        let points = encoded(domain, chosen.iter().map(|&index| known[index].point));
        let pending = trials.iter().filter(|t| t.outcome == Outcome::Pending).map(|t| &t.point);
        let observed = chosen.iter().map(|&index| known[index].point).chain(pending.clone());
        let exact: Vec<Vec<Option<f64>>> = observed.map(computed).collect();
        let pending = encoded(domain, pending);
        let mut objectives = Vec::new();
        let mut smoothed: Vec<Vec<f64>> = vec![Vec::new(); points.len() + pending.len()];
        for (objective, scale) in scales.iter().enumerate() {
            let values =
                |of: &[Known<'_, D::Point>], chosen: &[usize], scale: &Scale| -> Vec<f64> {
                    chosen.iter().map(|&i| scale.of(of[i].objectives.values()[objective])).collect()
                };
            let head_values = values(head, &head_chosen, &head_scales[objective]);
            let hyperparameters = memory
                .fit(objective, head_points.clone(), &head_values)
                .draw_about(head.len(), rng);
            let values = values(known, &chosen, scale);
            let mut noise: Vec<f64> = chosen
                .iter()
                .map(|&index| {
                    let Known { objectives, deviations, .. } = &known[index];
                    let deviation = deviations.map_or(0.0, |of| of[objective]);
                    (deviation * scale.slope(objectives.values()[objective])).powi(2)
                })
                .collect();
            let mut process =
                GaussianProcess::with_noise(points.clone(), &values, &noise, &hyperparameters);
            if !pending.is_empty() {
                let expected = process.predict(&pending);
                let mut together = points.clone();
                together.rows.extend_from_slice(&pending.rows);
                let values: Vec<f64> =
                    values.into_iter().chain(expected.iter().map(|p| p.mean)).collect();
                noise.resize(values.len(), 0.0);
                process = GaussianProcess::with_noise(together, &values, &noise, &hyperparameters);
            }
            let mut observed = points.clone();
            observed.rows.extend_from_slice(&pending.rows);
            let predictions = process.predict(&observed);
            for ((row, prediction), exact) in smoothed.iter_mut().zip(predictions).zip(&exact) {
                let exact = exact.get(objective).copied().flatten();
                row.push(exact.map_or(prediction.mean, |value| scale.of(value)));
            }
            objectives.push(process);
        }
        let points: Vec<Objectives> =
            smoothed.into_iter().filter_map(|row| Objectives::new(row).ok()).collect();
        let improvement = ExpectedImprovement::new(&points, &reference(known, &scales));
        let feasibility = feasibility(domain, trials, memory, scales.len());
        Self { scales, objectives, feasibility, improvement }
    }

    /// `computed`: of each candidate, the objectives that are known.
    fn scores(&self, candidates: &Encoded, computed: &[Vec<Option<f64>>]) -> Vec<f64> {
        let predictions: Vec<Vec<Prediction>> =
            self.objectives.iter().map(|process| process.predict(candidates)).collect();
        let feasible = self.feasibility.as_ref().map(|process| process.predict(candidates));
        (0..candidates.len())
            .map(|index| {
                let of: Vec<Prediction> = predictions
                    .iter()
                    .enumerate()
                    .map(|(j, p)| match computed[index].get(j).copied().flatten() {
                        Some(value) => {
                            Prediction { mean: self.scales[j].of(value), deviation: CERTAIN }
                        }
                        None => p[index],
                    })
                    .collect();
                let chance = feasible.as_ref().map_or(1.0, |p| chance(&p[index]));
                // `max` of a number and NaN is the number.
                (self.improvement.of(&of) * chance).max(0.0)
            })
            .collect()
    }
}

/// The chance that a point is feasible, from a process on labels 1 and 0.
fn chance(label: &Prediction) -> f64 {
    // The labels' own scatter about the mean is part of what is not known.
    let deviation = (label.deviation.powi(2) + 0.01).sqrt();
    normal_cdf((label.mean - 0.5) / deviation)
}

fn feasibility<D: Domain>(
    domain: &D,
    trials: &[Trial<D::Point>],
    memory: &mut Memory,
    slot: usize,
) -> Option<GaussianProcess> {
    let labelled: Vec<(&D::Point, f64)> = trials
        .iter()
        .filter_map(|trial| match trial.outcome {
            Outcome::Known(_) | Outcome::Estimated { .. } => Some((&trial.point, 1.0)),
            Outcome::Infeasible | Outcome::Failed => Some((&trial.point, 0.0)),
            Outcome::Pending => None,
        })
        .collect();
    if labelled.iter().all(|(_, label)| *label > 0.5) {
        return None;
    }
    let of = |labelled: &[(&D::Point, f64)], most: usize| {
        let kept = balanced(labelled, most);
        let labels: Vec<f64> = kept.iter().map(|&index| labelled[index].1).collect();
        (encoded(domain, kept.iter().map(|&index| labelled[index].0)), labels)
    };
    let (head_points, head_labels) = of(&labelled[..fitted(labelled.len())], FITTED);
    let hyperparameters = memory.fit(slot, head_points, &head_labels);
    let (points, labels) = of(&labelled, OBSERVED);
    Some(GaussianProcess::new(points, &labels, &hyperparameters))
}

/// At most so many of the labelled points, ascending: the latest, and of neither label so few that it is forgotten.
fn balanced<P>(labelled: &[(P, f64)], most: usize) -> Vec<usize> {
    if labelled.len() <= most {
        return (0..labelled.len()).collect();
    }
    let (good, bad): (Vec<usize>, Vec<usize>) =
        (0..labelled.len()).partition(|&index| labelled[index].1 > 0.5);
    let bad_kept = bad.len().min(most / 2).max(most.saturating_sub(good.len()));
    let good_kept = most - bad_kept;
    let mut kept = good[good.len() - good_kept..].to_vec();
    kept.extend(&bad[bad.len() - bad_kept..]);
    kept.sort_unstable();
    kept
}

fn encoded<'a, D: Domain>(domain: &D, points: impl Iterator<Item = &'a D::Point>) -> Encoded
where
    D::Point: 'a,
{
    let mut encoded = Encoded::new(domain.features());
    for point in points {
        encoded.push(&domain.encode(point));
    }
    encoded
}

impl Memory {
    /// The hyperparameters for these observations.
    fn fit(&mut self, slot: usize, points: Encoded, values: &[f64]) -> Hyperparameters {
        let (mean, scale) = moments(values);
        let standard: Vec<f64> = values.iter().map(|v| (v - mean) / scale).collect();
        if let Some((known_points, known_values, hyperparameters)) = self.0.get(slot)
            && *known_points == points
            && *known_values == standard
        {
            return hyperparameters.clone();
        }
        let hyperparameters = Hyperparameters::fit(&points, &standard, FIT_EVALUATIONS);
        let entry = (points, standard, hyperparameters.clone());
        if slot < self.0.len() {
            self.0[slot] = entry;
        } else {
            self.0.push(entry);
        }
        hyperparameters
    }
}

/// How many of the first observations hyperparameters are fitted to: grows in steps, so that most proposals find them
/// fitted, and is a function of the observations alone.
fn fitted(observations: usize) -> usize {
    let mut count = observations.min(4);
    while count + (count / 12).max(1) <= observations {
        count += (count / 12).max(1);
    }
    count
}

/// The observations that the model sees, ascending.
fn chosen<P>(known: &[Known<'_, P>], most: usize) -> Vec<usize> {
    if known.len() <= most {
        return (0..known.len()).collect();
    }
    let all: Vec<&Known<'_, P>> = known.iter().collect();
    let mut chosen: HashSet<usize> = preference(&all).into_iter().take(most / 2).collect();
    // The latest say where the search is; an even sample of all says where it need not go.
    let latest = (0..known.len()).rev().take(most / 4);
    let spread = (0..most).map(|index| index * known.len() / most);
    for index in latest.chain(spread).chain((0..known.len()).rev()) {
        if chosen.len() == most {
            break;
        }
        chosen.insert(index);
    }
    let mut chosen: Vec<usize> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}

/// The scale of an objective: 0 at the best of the front, 1 at its worst.
struct Scale {
    best: f64,
    range: f64,
}

/// Above this, values of an objective are compressed: a training that diverged must not set the scale of all others.
/// Nearer ones are not: what makes a bad point half as bad is what makes a good one better.
const LINEAR: f64 = 4.0;
const BEND: f64 = 4.0;

impl Scale {
    fn of(&self, value: f64) -> f64 {
        let z = (value - self.best) / self.range;
        if z <= LINEAR { z } else { LINEAR + BEND * (1.0 + (z - LINEAR) / BEND).ln() }
    }

    /// The derivative of [`Scale::of`].
    fn slope(&self, value: f64) -> f64 {
        let z = (value - self.best) / self.range;
        if z <= LINEAR {
            self.range.recip()
        } else {
            (self.range * (1.0 + (z - LINEAR) / BEND)).recip()
        }
    }
}

/// The reference point on the scales. A front is often found at one end first, so that while it has few members the
/// reference lies as far out as values were seen; later it draws near, because a far one prizes the ends of the front
/// above its middle.
fn reference<P>(known: &[Known<'_, P>], scales: &[Scale]) -> Vec<f64> {
    let points: Vec<Objectives> = known.iter().map(|k| k.objectives.clone()).collect();
    // Of points with many objectives most are members: it takes more of them.
    let few = FEW_MEMBERS.powi(scales.len() as i32 - 1);
    let share = (few / front(&points).len().max(1) as f64).min(1.0);
    let of = |(j, scale): (usize, &Scale)| {
        let seen = points.iter().map(|point| scale.of(point.values()[j]));
        let farthest = seen.fold(LEAST_REFERENCE, f64::max);
        LEAST_REFERENCE + share * (farthest - LEAST_REFERENCE)
    };
    scales.iter().enumerate().map(of).collect()
}

fn scales<P>(known: &[Known<'_, P>]) -> Vec<Scale> {
    let points: Vec<Objectives> = known.iter().map(|k| k.objectives.clone()).collect();
    let members = front(&points);
    let objectives = points.first().map_or(0, |p| p.values().len());
    (0..objectives)
        .map(|j| {
            let of_front = members.iter().map(|&index| points[index].values()[j]);
            let best = of_front.clone().fold(f64::INFINITY, f64::min);
            let worst = of_front.fold(f64::NEG_INFINITY, f64::max);
            let mut all: Vec<f64> = points.iter().map(|p| p.values()[j]).collect();
            all.sort_by(f64::total_cmp);
            // A front of few points says little about the range that a front can have.
            let least = all[all.len() / 2] - best;
            let range = (worst - best).max(least);
            Scale { best, range: if range > 0.0 { range } else { 1.0 } }
        })
        .collect()
}
