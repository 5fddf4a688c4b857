//! The gated short convolution of LFM2 (arXiv 2511.23404): one input projection to B, C and x̃, C ⊙ conv(B ⊙ x̃), and an
//! output projection.

use search::architecture::GatedConv as Gene;
use tch::Tensor;

use super::{Mixer, MixerState};
use crate::OperatorError;
use crate::ops::gated_conv::{gated_conv, gated_conv_step};
use crate::ops::linear::linear;
use crate::ops::wide;
use crate::retrieval::{Asked, Retrieval};
use crate::weights::Weights;

/// The layer; C channels, k taps.
#[derive(Debug)]
pub(super) struct GatedConv {
    channels: i64,
    kernel_width: i64,
    /// `[3·C, d]`
    input: Tensor,
    /// `[C, k]`
    conv: Tensor,
    /// `[d, C]`
    output: Tensor,
}

impl GatedConv {
    pub(super) fn new(gene: Gene, weights: &mut Weights) -> Result<Self, OperatorError> {
        Ok(Self {
            channels: gene.channels.into(),
            kernel_width: gene.kernel_width.into(),
            input: weights.take("in.weight")?,
            conv: weights.take("conv.weight")?,
            output: weights.take("out.weight")?,
        })
    }
}

impl Mixer for GatedConv {
    fn forward(&self, x: &Tensor, state: Option<&mut MixerState>) -> Tensor {
        let state = state.map(MixerState::window);
        linear(&gated_conv(&linear(x, &self.input), &self.conv, state), &self.output)
    }

    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor {
        let y = gated_conv_step(&linear(x, &self.input), &self.conv, state.window());
        linear(&y, &self.output)
    }

    fn state(&self, batch: i64) -> MixerState {
        let options = (wide(self.input.kind()), self.input.device());
        let shape = [batch, self.kernel_width - 1, self.channels];
        MixerState::Window(Tensor::zeros(shape, options))
    }

    /// It remembers by position, not by keys.
    fn retrieval(&self, _: &Tensor, _: Asked) -> Option<Retrieval> {
        None
    }
}
