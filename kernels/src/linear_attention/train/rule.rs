//! What the plain and the log-linear form differ in.

use super::{CHUNK, Inputs, Piece, Shape};
use crate::cpu::Element;
use crate::log_linear::Lambda;
use crate::log_linear::chunks::{Bucket, absorbed, buckets};

/// The plain form, or with λ the log-linear one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule<'a, E> {
    pub(super) inputs: &'a Inputs<'a, E>,
    pub(super) lambda: Option<Lambda<'a>>,
}

impl<E: Element> Rule<'_, E> {
    pub(super) fn check(&self) {
        self.inputs.check();
        if let Some(lambda) = self.lambda {
            lambda.check(self.inputs.g.len());
        }
    }

    /// What chunk `index` sees of the past. Of the plain form one bucket, also before the first position.
    pub(super) fn buckets(&self, index: usize) -> Vec<Bucket> {
        match self.lambda {
            Some(lambda) => buckets(index, lambda.levels),
            None => vec![Bucket { end: index, level: 0 }],
        }
    }

    /// How many of them are one with chunk `index` after it.
    pub(super) fn absorbed(&self, index: usize) -> usize {
        self.lambda.map_or(1, |lambda| absorbed(index, lambda.levels))
    }

    /// λ of a position at a level.
    pub(super) fn weight(&self, row: usize, level: usize) -> f32 {
        self.lambda.map_or(1.0, |lambda| lambda.row(row)[level])
    }
}

/// How states fade over whole chunks, for the heads of a piece.
pub(super) struct Fading {
    /// Σ g before each chunk and after the last, `[heads, chunks + 1]`.
    sums: Vec<f64>,
    first_head: usize,
    stride: usize,
}

impl Fading {
    pub(super) fn new<E: Element>(inputs: &Inputs<E>, piece: Piece) -> Self {
        let Shape { tokens, heads, .. } = inputs.shape;
        let mut sums = Vec::new();
        for h in piece.heads.0..piece.heads.1 {
            let mut sum = 0.0;
            for t in 0..tokens {
                if t % CHUNK == 0 {
                    sums.push(sum);
                }
                sum += f64::from(inputs.g[(piece.sequence * tokens + t) * heads + h]);
            }
            sums.push(sum);
        }
        Self { sums, first_head: piece.heads.0, stride: inputs.shape.chunks() + 1 }
    }

    /// What is left before chunk `index` of what there was before chunk `end`.
    pub(super) fn left(&self, head: usize, end: usize, index: usize) -> f32 {
        let sums = &self.sums[(head - self.first_head) * self.stride..][..self.stride];
        (sums[index] - sums[end]).exp() as f32
    }
}
