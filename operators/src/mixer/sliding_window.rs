//! Sliding-window attention: full attention's projections, over the last w positions only.

use search::architecture::Attention;
use tch::Tensor;

use super::attention::Projections;
use super::{Mixer, MixerState};
use crate::OperatorError;
use crate::ops::attention;
use crate::retrieval::{Asked, Retrieval};
use crate::weights::Weights;

/// Softmax attention over the last `window` positions, self included.
#[derive(Debug)]
pub(super) struct SlidingWindow {
    window: i64,
    projections: Projections,
}

impl SlidingWindow {
    pub(super) fn new(
        gene: &Attention,
        window: u32,
        weights: &mut Weights,
    ) -> Result<Self, OperatorError> {
        Ok(Self { window: window.into(), projections: Projections::new(gene, weights)? })
    }
}

impl Mixer for SlidingWindow {
    fn forward(&self, x: &Tensor, state: Option<&mut MixerState>) -> Tensor {
        self.projections.forward(
            x,
            state.map(MixerState::cache),
            Some(self.window - 1),
            |q, k, v| attention::windowed(q, k, v, self.window),
        )
    }

    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor {
        self.forward(&x.unsqueeze(1), Some(state)).squeeze_dim(1)
    }

    fn state(&self, batch: i64) -> MixerState {
        MixerState::Cache(self.projections.cache(batch))
    }

    fn retrieval(&self, x: &Tensor, asked: Asked) -> Option<Retrieval> {
        Some(self.projections.retrieval(x, Some(self.window), asked))
    }
}
