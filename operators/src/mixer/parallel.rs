//! Parallel heads: attention beside another mixer, each normed and added (Hymba, arXiv 2411.13676), or added as they are
//! (Falcon-H1, arXiv 2507.22448).

use tch::Tensor;

use super::{Mixer, MixerState};
use crate::ops::norm::rms_norm;
use crate::retrieval::{Asked, Retrieval};

/// Two mixers that read the same input.
#[derive(Debug)]
pub(super) struct Parallel {
    attention: Branch,
    beside: Branch,
}

/// A mixer and the norm behind it, `[d]`, if there is one.
#[derive(Debug)]
struct Branch {
    mixer: Box<dyn Mixer>,
    norm: Option<Tensor>,
}

impl Branch {
    /// What is added of what the mixer says.
    fn added(&self, y: Tensor) -> Tensor {
        match &self.norm {
            Some(norm) => rms_norm(&y, norm),
            None => y,
        }
    }
}

impl Parallel {
    /// Of two mixers with the norms behind them: attention, and what stands beside it.
    pub(super) fn new(branches: [(Box<dyn Mixer>, Option<Tensor>); 2]) -> Self {
        let [attention, beside] = branches.map(|(mixer, norm)| Branch { mixer, norm });
        Self { attention, beside }
    }
}

impl Mixer for Parallel {
    fn forward(&self, x: &Tensor, state: Option<&mut MixerState>) -> Tensor {
        let [first, second] = match state.map(MixerState::both) {
            Some([first, second]) => [Some(first), Some(second)],
            None => [None, None],
        };
        self.attention.added(self.attention.mixer.forward(x, first))
            + self.beside.added(self.beside.mixer.forward(x, second))
    }

    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor {
        let [first, second] = state.both();
        self.attention.added(self.attention.mixer.step(x, first))
            + self.beside.added(self.beside.mixer.step(x, second))
    }

    fn state(&self, batch: i64) -> MixerState {
        MixerState::Both(Box::new([&self.attention, &self.beside].map(|of| of.mixer.state(batch))))
    }

    /// Of the two memories that of attention, which keeps its pairs apart.
    fn retrieval(&self, x: &Tensor, asked: Asked) -> Option<Retrieval> {
        self.attention.mixer.retrieval(x, asked)
    }
}
