//! The gated short convolution in the program of a step.

use kernels::cuda::Error;
use kernels::cuda::decode::{Input, Kind, Phase};
use search::architecture::GatedConv;

use super::program::{Builder, Projected, check};
use crate::cuda::shapes::Load;

impl Builder<'_> {
    pub(super) fn gated_conv(
        &mut self,
        shape: GatedConv,
        norm: u64,
        load: Load,
    ) -> Result<(), Error> {
        let [channels, taps] = [shape.channels, shape.kernel_width].map(|n| n as usize);
        let d = self.d_model();
        check(
            channels * (self.blocks() + 1) < 1 << 32,
            "the channels of the gated short convolution",
            "below 2³² over the blocks",
            channels,
        )?;
        let Projected { now, .. } =
            self.project(&[&load("in.weight", 3 * channels * d)], norm, 0)?;
        let conv_weight = self.vector(&load("conv.weight", channels * taps))?;
        let kept = channels * (taps - 1) * 4;
        let ring = self.state(kept)?;
        self.state_bytes += kept as u64;
        let out = self.allocate(channels.next_multiple_of(4) * 4)?;
        self.push(Phase {
            kind: Kind::GatedConv,
            groups: channels as u32, // of no units: nothing is streamed
            width: taps as u32,
            ring,
            conv_weight,
            out,
            now,
            ..Phase::default()
        });
        let weight = load("out.weight", d * channels);
        self.project_back(&weight, channels, Input::Plain, Phase { x: out, ..Phase::default() })
    }
}
