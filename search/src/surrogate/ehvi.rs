//! The expected growth of the dominated volume by one further point whose objectives are independent normals.
//!
//! A point y adds the volume of what it dominates and nobody dominates yet, inside the reference. By exchanging
//! expectation and integral (Emmerich et al. 2006 in other words), the expected growth is
//!
//! ```text
//! ∫ over the free region of Π_j P(y_j ≤ p_j) dp,   P(y_j ≤ p_j) = Φ((p_j − μ_j)/σ_j)
//! ```
//!
//! For two objectives the free region is a staircase of strips and the integral is exact. For more it is a sum over a
//! low-discrepancy sample of the free region, the same for all candidates.

use std::sync::LazyLock;

use super::normal::{cdf, cdf_integral};
use super::process::Prediction;
use crate::pareto::{Objectives, front};

/// Points drawn for three and more objectives.
const DRAWN: u32 = 2048;

/// The free region, prepared for many candidates.
#[derive(Debug, Clone)]
pub struct ExpectedImprovement {
    region: Region,
}

#[derive(Debug, Clone)]
enum Region {
    /// One objective: everything below.
    Line(f64),
    /// Strips (from, to, below): the first objective within, the second under `below`.
    Strips(Vec<(f64, f64, f64)>),
    /// Points, row-major `[samples, objectives]`, and the volume that each stands for.
    Sample { points: Vec<f64>, objectives: usize, weights: Vec<f64> },
}

impl ExpectedImprovement {
    /// For the points known so far and a reference point; what is not better than the reference plays no part.
    pub fn new(points: &[Objectives], reference: &[f64]) -> Self {
        let inside: Vec<Objectives> = points
            .iter()
            .filter(|p| p.values().iter().zip(reference).all(|(v, r)| v < r))
            .cloned()
            .collect();
        let mut members: Vec<&[f64]> =
            front(&inside).into_iter().map(|i| inside[i].values()).collect();
        members.sort_by(|a, b| a[0].total_cmp(&b[0]));
        members.dedup();
        let region = match reference.len() {
            1 => Region::Line(members.first().map_or(reference[0], |m| m[0])),
            2 => Region::Strips(strips(&members, reference)),
            _ => sample(&members, reference),
        };
        Self { region }
    }

    /// The expected growth by a point with these predictions, one for each objective.
    pub fn of(&self, predictions: &[Prediction]) -> f64 {
        match &self.region {
            Region::Line(best) => integral(&predictions[0], *best),
            Region::Strips(strips) => {
                let (first, second) = (&predictions[0], &predictions[1]);
                let mut total = 0.0;
                let mut lower = 0.0;
                for &(_, to, below) in strips {
                    let upper = integral(first, to);
                    total += (upper - lower).max(0.0) * integral(second, below);
                    lower = upper;
                }
                total
            }
            Region::Sample { points, objectives, weights } => points
                .chunks_exact(*objectives)
                .zip(weights)
                .map(|(p, weight)| {
                    weight
                        * p.iter().zip(predictions).fold(1.0, |chance, (p, y)| {
                            if chance < 1e-12 {
                                0.0
                            } else {
                                chance * rough_cdf((p - y.mean) / y.deviation)
                            }
                        })
                })
                .sum(),
        }
    }
}

/// Φ on a grid of 64ths from −8 to 8: a sum over a sample needs no more than its three digits.
static GRID: LazyLock<Vec<f64>> =
    LazyLock::new(|| (0..=1024).map(|i| cdf(f64::from(i) / 64.0 - 8.0)).collect());

fn rough_cdf(u: f64) -> f64 {
    let place = ((u + 8.0) * 64.0).clamp(0.0, 1023.0);
    let index = place as usize;
    GRID[index] + (place - index as f64) * (GRID[index + 1] - GRID[index])
}

/// ∫ Φ((p − μ)/σ) dp from −∞ to `to`: the expected amount by which y falls below `to`.
fn integral(y: &Prediction, to: f64) -> f64 {
    y.deviation * cdf_integral((to - y.mean) / y.deviation)
}

/// The free region of two objectives: from −∞ to the first member everything below the reference, then under each
/// member up to the next, the last up to the reference.
fn strips(members: &[&[f64]], reference: &[f64]) -> Vec<(f64, f64, f64)> {
    let mut strips = Vec::with_capacity(members.len() + 1);
    let mut from = f64::NEG_INFINITY;
    let mut below = reference[1];
    for member in members {
        strips.push((from, member[0], below));
        (from, below) = (member[0], member[1]);
    }
    strips.push((from, reference[0], below));
    strips
}

/// Points of the free region with the volume that each stands for. A quarter is drawn from the whole box between the
/// ideal point, half a range lower, and the reference; the others from small boxes around the members, because that is
/// where points can be: on a long front the growth by one more point is smaller than the gaps of an even sample. Each
/// point is weighted by the density of the mixture that it is drawn from (the balance heuristic of Veach and Guibas
/// 1995). Low-discrepancy numbers are those of the additive recurrence of the generalised golden ratio (Roberts 2018).
fn sample(members: &[&[f64]], reference: &[f64]) -> Region {
    let objectives = reference.len();
    let low: Vec<f64> = (0..objectives)
        .map(|j| {
            let ideal = members.iter().map(|m| m[j]).fold(reference[j], f64::min);
            ideal - 0.5 * (reference[j] - ideal).max(1e-12)
        })
        .collect();
    // As far as from one member to the next, were they spread evenly.
    let gap = 1.5 * (members.len().max(1) as f64).powf(-1.0 / (objectives as f64 - 1.0));
    let reach: Vec<f64> =
        (0..objectives).map(|j| gap.min(1.0) * (reference[j] - low[j]) / 1.5).collect();
    let volume: f64 = low.iter().zip(reference).map(|(l, r)| r - l).product();
    let small_volume: f64 = reach.iter().map(|r| 2.0 * r).product();
    let whole_share = if members.is_empty() { 1.0 } else { 0.25 };
    // The root of x^(d+1) = x + 1.
    let ratio = (0..30).fold(1.5_f64, |x, _| (1.0 + x).powf(1.0 / (objectives as f64 + 1.0)));
    let steps: Vec<f64> = (0..objectives).map(|j| ratio.powf(-(j as f64 + 1.0))).collect();
    let (mut points, mut weights) = (Vec::new(), Vec::new());
    for drawn in 0..DRAWN {
        let unit = |j: usize| (0.5 + f64::from(drawn + 1) * steps[j]).fract();
        let centre = match drawn % 4 {
            0 => None,
            _ => members.get((drawn as usize * 3 / 4) % members.len().max(1)),
        };
        let point: Vec<f64> = (0..objectives)
            .map(|j| match centre {
                None => low[j] + unit(j) * (reference[j] - low[j]),
                Some(centre) => centre[j] + (2.0 * unit(j) - 1.0) * reach[j],
            })
            .collect();
        let is_outside =
            point.iter().zip(low.iter().zip(reference)).any(|(p, (l, r))| p < l || p >= r);
        let is_dominated =
            members.iter().any(|m| m.iter().zip(&point).all(|(member, p)| member <= p));
        if is_outside || is_dominated {
            continue;
        }
        let around = members
            .iter()
            .filter(|m| {
                m.iter().zip(&point).zip(&reach).all(|((member, p), r)| (member - p).abs() <= *r)
            })
            .count();
        let small = around as f64 / (members.len().max(1) as f64 * small_volume);
        let density = whole_share / volume + (1.0 - whole_share) * small;
        weights.push(1.0 / (density * f64::from(DRAWN)));
        points.extend(point);
    }
    Region::Sample { points, objectives, weights }
}
