//! The gated short convolution layer by layer.

use kernels::cuda::chunked::Rows;
use kernels::cuda::{Error, gated_conv};
use search::architecture::GatedConv;

use super::pass::{Kind, Recorder, Sublayer};
use super::weights::{Builder, Matrix};
use crate::cuda::shapes::Load;

#[derive(Debug)]
pub(super) struct GatedConvLayer {
    channels: usize,
    taps: usize,
    /// To B, C, x̃.
    projection: Matrix,
    out: Matrix,
    weight: u64,
    ring: u64,
}

impl GatedConvLayer {
    pub(super) fn new(on: &mut Builder<'_>, shape: GatedConv, load: Load) -> Result<Self, Error> {
        let [channels, taps] = [shape.channels, shape.kernel_width].map(|n| n as usize);
        let d = on.d_model;
        Ok(Self {
            channels,
            taps,
            projection: on.matrix(load, &[("in.weight", 3 * channels)], d)?,
            out: on.matrix(load, &[("out.weight", d)], channels)?,
            weight: on.vector(load, "conv.weight", channels * taps)?,
            ring: on.past(4 * on.batch * (taps - 1) * channels)?,
        })
    }
}

impl Sublayer for GatedConvLayer {
    fn record(&self, on: &mut Recorder<'_>, u: Rows) -> Result<(), Error> {
        let &Self { channels, taps, weight, ring, .. } = self;
        let (batch, tokens) = (on.batch, on.tokens);
        let conv = gated_conv::GatedConv { batch, tokens, channels, taps, wide: false };
        conv.check()?;
        let rows = on.project("projected", self.projection, u)?;
        let y = on.room("read", 2 * on.rows * channels)?;
        on.launch(match on.kind {
            Kind::Prefill { .. } => conv.forward(rows, weight, y, ring),
            Kind::Step { .. } => conv.step(rows, weight, ring, on.positions, y),
        });
        on.add(self.out, Rows { address: y, stride: channels })
    }
}
