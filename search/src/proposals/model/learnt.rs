//! What the trials teach: a process for each objective on the scale of the front, one of feasibility, and what a further point is
//! expected to add.

use super::super::domain::{Domain, SearchRng};
use super::super::trial::{Evidence, Known, Outcome, Trial};
use super::observed::{balanced, chosen, fitted};
use super::scale::{Scale, reference, scales};
use crate::pareto::Objectives;
use crate::surrogate::{
    Encoded, ExpectedImprovement, GaussianProcess, Hyperparameters, Prediction, moments, normal_cdf,
};

/// Observations that a process sees; beyond, the best, the latest and an even sample of all.
pub(super) const OBSERVED: usize = 400;
/// Pending trials that a process sees; beyond, those that are expected to add most: near the others nobody looks anyway.
const PENDING: usize = 200;
/// Evaluations of the likelihood in a fit.
const FIT_EVALUATIONS: usize = 30;
/// Observations that hyperparameters are fitted to.
const FITTED: usize = 200;
/// The deviation, on the scale of the front, of what is computed.
const CERTAIN: f64 = 1e-6;

/// Hyperparameters of the latest fit, kept because a fit costs more than a proposal. Forgetting it changes no proposal.
#[derive(Debug, Clone, Default)]
pub(in crate::proposals) struct Memory(Vec<(Encoded, Vec<f64>, Hyperparameters)>);

/// What the trials say about all other points.
pub(super) struct Model {
    scales: Vec<Scale>,
    pub(super) objectives: Vec<GaussianProcess>,
    feasibility: Option<GaussianProcess>,
    /// What is known, and expected of what is under way.
    points: Vec<Objectives>,
    reference: Vec<f64>,
    improvement: ExpectedImprovement,
}

impl Model {
    pub(super) fn new<D: Domain>(
        domain: &D,
        evidence: &Evidence<'_, D>,
        memory: &mut Memory,
        rng: &mut SearchRng,
    ) -> Self {
        let &Evidence { trials, known, computed, .. } = evidence;
        let scales = scales(known);
        let reference = reference(known, &scales);
        let head = &known[..fitted(known.len())];
        let head_scales = self::scales(head);
        let head_chosen = chosen(head, FITTED);
        let head_points = encoded(domain, head_chosen.iter().map(|&index| head[index].point));
        let chosen = chosen(known, OBSERVED);
        let points = encoded(domain, chosen.iter().map(|&index| known[index].point));
        let of_known: Vec<OfKnown> = scales
            .iter()
            .enumerate()
            .map(|(objective, scale)| {
                let values =
                    |of: &[Known<'_, D::Point>], chosen: &[usize], scale: &Scale| -> Vec<f64> {
                        let value = |&i: &usize| scale.of(of[i].objectives.values()[objective]);
                        chosen.iter().map(value).collect()
                    };
                let head_values = values(head, &head_chosen, &head_scales[objective]);
                let hyperparameters = memory
                    .fit(objective, head_points.clone(), &head_values)
                    .draw_about(head.len(), rng);
                let values = values(known, &chosen, scale);
                let noise: Vec<f64> = chosen
                    .iter()
                    .map(|&index| {
                        let Known { objectives, deviations, .. } = &known[index];
                        let deviation = deviations.map_or(0.0, |of| of[objective]);
                        (deviation * scale.slope(objectives.values()[objective])).powi(2)
                    })
                    .collect();
                let process =
                    GaussianProcess::with_noise(points.clone(), &values, &noise, &hyperparameters);
                OfKnown { hyperparameters, values, noise, process }
            })
            .collect();
        let pending = promising(domain, evidence, &scales, &reference, &of_known);
        let observed = chosen.iter().map(|&index| known[index].point).chain(pending.clone());
        let exact: Vec<Vec<Option<f64>>> = observed.map(computed).collect();
        let pending = encoded(domain, pending.into_iter());
        let mut together = points;
        together.rows.extend_from_slice(&pending.rows);
        let mut objectives = Vec::new();
        let mut smoothed: Vec<Vec<f64>> = vec![Vec::new(); together.len()];
        for (objective, (of_known, scale)) in of_known.into_iter().zip(&scales).enumerate() {
            let process = of_known.with(&pending, &together);
            let predictions = process.predict(&together);
            for ((row, prediction), exact) in smoothed.iter_mut().zip(predictions).zip(&exact) {
                let exact = exact.get(objective).copied().flatten();
                row.push(exact.map_or(prediction.mean, |value| scale.of(value)));
            }
            objectives.push(process);
        }
        let points: Vec<Objectives> =
            smoothed.into_iter().filter_map(|row| Objectives::new(row).ok()).collect();
        let improvement = ExpectedImprovement::new(&points, &reference);
        let feasibility = feasibility(domain, trials, memory, scales.len());
        Self { scales, objectives, feasibility, points, reference, improvement }
    }

    /// `computed`: of each candidate, the objectives that are known.
    pub(super) fn scores(&self, candidates: &Encoded, computed: &[Vec<Option<f64>>]) -> Vec<f64> {
        let predictions: Vec<Vec<Prediction>> =
            self.objectives.iter().map(|process| process.predict(candidates)).collect();
        let chances = self.chances(candidates);
        (0..candidates.len())
            .map(|index| {
                let of = predictions.iter().map(|p| p[index]);
                self.score(&self.knowing(of, &computed[index]), chances[index])
            })
            .collect()
    }

    /// What is expected of a candidate, where some of its objectives are known.
    pub(super) fn knowing(
        &self,
        predictions: impl Iterator<Item = Prediction>,
        computed: &[Option<f64>],
    ) -> Vec<Prediction> {
        let certain = |(j, scale): (usize, &Scale)| {
            let value = computed.get(j).copied().flatten()?;
            Some(Prediction { mean: scale.of(value), deviation: CERTAIN })
        };
        let known = self.scales.iter().enumerate().map(certain);
        predictions.zip(known).map(|(prediction, known)| known.unwrap_or(prediction)).collect()
    }

    /// What a candidate is worth, never less than nothing.
    pub(super) fn score(&self, predictions: &[Prediction], chance: f64) -> f64 {
        // `max` of a number and NaN is the number.
        (self.improvement.of(predictions) * chance).max(0.0)
    }

    /// The chances that candidates are feasible.
    pub(super) fn chances(&self, candidates: &Encoded) -> Vec<f64> {
        match &self.feasibility {
            None => vec![1.0; candidates.len()],
            Some(process) => process.predict(candidates).iter().map(chance).collect(),
        }
    }

    /// Takes what is expected of a candidate for known.
    pub(super) fn believe(&mut self, predictions: &[Prediction]) {
        let expected = Objectives::new(predictions.iter().map(|of| of.mean));
        self.points.extend(expected.ok());
        self.improvement = ExpectedImprovement::new(&self.points, &self.reference);
    }
}

/// What is known of one objective.
struct OfKnown {
    hyperparameters: Hyperparameters,
    values: Vec<f64>,
    noise: Vec<f64>,
    process: GaussianProcess,
}

impl OfKnown {
    /// The process that has seen the pending points, too, with the values that it expects of them. `together`: the known ones,
    /// then these.
    fn with(self, pending: &Encoded, together: &Encoded) -> GaussianProcess {
        if pending.is_empty() {
            return self.process;
        }
        let expected = self.process.predict(pending);
        let values: Vec<f64> =
            self.values.into_iter().chain(expected.iter().map(|p| p.mean)).collect();
        let mut noise = self.noise;
        noise.resize(values.len(), 0.0);
        GaussianProcess::with_noise(together.clone(), &values, &noise, &self.hyperparameters)
    }
}

/// The pending points that a process sees, in their order.
fn promising<'a, D: Domain>(
    domain: &D,
    evidence: &Evidence<'a, D>,
    scales: &[Scale],
    reference: &[f64],
    of_known: &[OfKnown],
) -> Vec<&'a D::Point> {
    let pending = evidence.trials.iter().filter(|trial| trial.outcome == Outcome::Pending);
    let pending: Vec<&D::Point> = pending.map(|trial| &trial.point).collect();
    if pending.len() <= PENDING {
        return pending;
    }
    let scaled = |known: &Known<'_, D::Point>| {
        let values = known.objectives.values().iter().zip(scales);
        Objectives::new(values.map(|(value, scale)| scale.of(*value))).ok()
    };
    let points: Vec<Objectives> = evidence.known.iter().filter_map(scaled).collect();
    let improvement = ExpectedImprovement::new(&points, reference);
    let candidates = encoded(domain, pending.iter().copied());
    let predictions: Vec<Vec<Prediction>> =
        of_known.iter().map(|of| of.process.predict(&candidates)).collect();
    let worth = |index: usize| {
        let of: Vec<Prediction> = predictions.iter().map(|p| p[index]).collect();
        improvement.of(&of).max(0.0)
    };
    let mut order: Vec<(f64, usize)> = (0..pending.len()).map(|i| (worth(i), i)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    order.truncate(PENDING);
    let mut kept: Vec<usize> = order.into_iter().map(|(_, index)| index).collect();
    kept.sort_unstable();
    kept.into_iter().map(|index| pending[index]).collect()
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

/// Points as rows of coordinates.
pub(super) fn encoded<'a, D: Domain>(
    domain: &D,
    points: impl Iterator<Item = &'a D::Point>,
) -> Encoded
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
