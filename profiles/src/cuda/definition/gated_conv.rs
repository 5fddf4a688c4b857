//! The gated short convolution.

use kernels::cuda::decode::Storage;
use kernels::gated_conv;
use search::architecture::GatedConv;

use super::weights::{Keep, product, wide};
use crate::cuda::shapes::Load;

#[derive(Debug)]
pub(super) struct Token {
    taps: usize,
    /// B, C, x̃: `[3·C, d]`.
    projection: Vec<f32>,
    out: Vec<f32>,
    /// `[C, k]`
    weight: Vec<f64>,
    /// `[k − 1, C]`
    past: Vec<f64>,
}

impl Token {
    pub(super) fn new(shape: GatedConv, d: usize, (storage, load): (Storage, Load)) -> Self {
        let [channels, taps] = [shape.channels, shape.kernel_width].map(|n| n as usize);
        Self {
            taps,
            projection: storage.kept(load("in.weight", 3 * channels * d), d),
            out: storage.kept(load("out.weight", d * channels), channels),
            weight: wide(&load("conv.weight", channels * taps)),
            past: vec![0.0; (taps - 1) * channels],
        }
    }
}

impl super::token::Token for Token {
    fn step(&mut self, u: &[f64], _: usize, keep: Keep) -> Vec<f64> {
        let row = keep(product(&self.projection, u));
        let y = gated_conv::definition(&row, &self.weight, self.taps, &mut self.past);
        product(&self.out, &keep(y))
    }
}
