//! Candidates that a process goes on to predict while it is told, of one after the other, that it is what is expected of it.
//!
//! Such a point moves no mean, and takes from the variance of another what the two have in common:
//! σ²(x) − c(x, x′)² / (σ²(x′) + noise), with c the covariance that is left (Rasmussen and Williams 2006, section 2.2). That is one
//! more row of the process's triangular factor, without making it anew.

use super::cholesky::dot;
use super::kernel::Encoded;
use super::process::{GaussianProcess, Prediction};

/// Candidates, and what a process says of them.
#[derive(Debug, Clone)]
pub struct Following<'a> {
    process: &'a GaussianProcess,
    candidates: Encoded,
    predictions: Vec<Prediction>,
    /// L⁻¹ k of each candidate, longer by a number with each point that is believed.
    projected: Vec<Vec<f64>>,
}

impl GaussianProcess {
    /// Predicts candidates, and goes on to do so.
    pub fn follow(&self, candidates: &Encoded) -> Following<'_> {
        let mut projected = Vec::with_capacity(candidates.len());
        self.project(candidates, |lanes, _, columns| {
            projected.extend((0..lanes).map(|lane| columns.iter().map(|c| c[lane]).collect()));
        });
        let predictions = self.predict(candidates);
        Following { process: self, candidates: candidates.clone(), predictions, projected }
    }
}

impl Following<'_> {
    /// What is expected of a candidate by now.
    pub fn prediction(&self, index: usize) -> Prediction {
        self.predictions[index]
    }

    /// Takes what is expected of a candidate for observed.
    pub fn believe(&mut self, index: usize) {
        let Self { process, candidates, predictions, projected } = self;
        let scale = process.scale();
        let variance = |prediction: &Prediction| (prediction.deviation / scale).powi(2);
        let own = projected[index].clone();
        let deviation = (variance(&predictions[index]) + process.noise()).sqrt();
        for (other, (prediction, projected)) in predictions.iter_mut().zip(projected).enumerate() {
            let alone = process.covariance(candidates.row(other), candidates.row(index));
            let shared = (alone - dot(projected, &own)) / deviation;
            let left = (variance(prediction) - shared * shared).max(process.least_variance());
            prediction.deviation = scale * left.sqrt();
            projected.push(shared);
        }
    }
}
