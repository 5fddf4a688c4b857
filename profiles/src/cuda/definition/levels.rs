//! The states of a log-linear mixer.

use kernels::activation::softplus;
use kernels::cuda::decode::Storage;
use kernels::log_linear::merge;

use super::weights::{Keep, product, wide};
use crate::cuda::shapes::Load;

/// The states of all heads, and what they are weighed by.
#[derive(Debug)]
pub(super) struct Levels {
    /// `[H·L, d]`, if it does not come with the others.
    projection: Vec<f32>,
    /// L, `[H, L]`.
    scales: Vec<f64>,
    count: usize,
    /// Of each head and level, `[K, V]`.
    states: Vec<Vec<Vec<f64>>>,
}

impl Levels {
    /// Of `heads` heads with states of `size` numbers.
    pub(super) fn new((heads, levels): (usize, usize), size: usize, load: Load) -> Self {
        Self {
            projection: Vec::new(),
            scales: wide(&load("L", heads * levels)),
            count: levels,
            states: vec![vec![vec![0.0; size]; levels]; heads],
        }
    }

    /// With the projection from which λ comes.
    pub(super) fn projected(self, d: usize, (storage, load): (Storage, Load)) -> Self {
        let projection = storage.kept(load("l.weight", self.scales.len() * d), d);
        Self { projection, ..self }
    }

    /// The rows of that projection.
    pub(super) fn raw(&self, u: &[f64], keep: Keep) -> Vec<f64> {
        keep(product(&self.projection, u))
    }

    /// Σ_l λ_l · what `visit` reads of the state of level l of a head, which it moves on, at a position.
    pub(super) fn step(
        &mut self,
        (head, position): (usize, usize),
        raw: &[f64],
        mut visit: impl FnMut(usize, &mut [f64]) -> Vec<f64>,
    ) -> Vec<f64> {
        let states = &mut self.states[head];
        if let Some((upto, into)) = merge(position, self.count) {
            let mut sum = std::mem::take(&mut states[into]);
            for from in states.iter_mut().take(upto.min(self.count - 2) + 1) {
                sum.iter_mut().zip(&*from).for_each(|(sum, x)| *sum += x);
                from.fill(0.0);
            }
            states[into] = sum;
        }
        let mut o: Vec<f64> = Vec::new();
        for (level, state) in states.iter_mut().enumerate() {
            let at = head * self.count + level;
            let lambda = softplus(raw[at] * self.scales[at]);
            let read = visit(level, state);
            o.resize(read.len(), 0.0);
            o.iter_mut().zip(read).for_each(|(o, read)| *o += lambda * read);
        }
        o
    }
}
