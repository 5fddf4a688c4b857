//! Weights, and what is left of results: all of it, or bf16.

use kernels::activation::silu;
use kernels::cuda::{bf16_bits, bf16_value};
use kernels::short_conv;

/// What is left of the results of an operation.
pub(super) type Keep = fn(Vec<f64>) -> Vec<f64>;

pub(super) fn exact(values: Vec<f64>) -> Vec<f64> {
    values
}

pub(super) fn bf16(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|x| f64::from(bf16_value(bf16_bits(x as f32)))).collect()
}

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// W x, `[rows]`.
pub(super) fn product(matrix: &[f32], x: &[f64]) -> Vec<f64> {
    matrix
        .chunks_exact(x.len())
        .map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum())
        .collect()
}

/// The short convolution of one mixer, with SiLU.
#[derive(Debug)]
pub(super) struct Convolution {
    /// `[C, 4]`
    pub taps: Vec<f64>,
    pub bias: Option<Vec<f64>>,
    /// `[3, C]`
    pub past: Vec<f64>,
}

impl Convolution {
    pub(super) fn new(taps: Vec<f64>, bias: Option<Vec<f64>>) -> Self {
        let past = vec![0.0; taps.len() / 4 * 3];
        Self { taps, bias, past }
    }

    /// Of the `x` of this position, `[C]`.
    pub(super) fn step(&mut self, x: &[f64], keep: Keep) -> Vec<f64> {
        let y = short_conv::definition(x, &self.taps, self.bias.as_deref(), &mut self.past);
        keep(y.into_iter().map(silu).collect())
    }
}
