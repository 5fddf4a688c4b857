//! A layer of the stack: x += mixer(norm x), then x += ffn(norm x), or x += norm(mixer x) and so on; either may be absent.

use search::architecture::Layer;
use tch::Tensor;

use crate::OperatorError;
use crate::ffn::Ffn;
use crate::mixer::{self, Mixer, MixerState};
use crate::ops::norm::rms_norm;
use crate::retrieval::{LayerReads, Reads};
use crate::weights::Weights;

/// A built layer.
#[derive(Debug)]
pub(crate) struct Block {
    mixer: Option<(Tensor, Box<dyn Mixer>)>,
    ffn: Option<(Tensor, Ffn)>,
    /// Whether the norms stand behind them.
    norms_after: bool,
}

impl Block {
    pub(crate) fn new(layer: &Layer, weights: &mut Weights) -> Result<Self, OperatorError> {
        let mixer = match &layer.mixer {
            Some(gene) => {
                let norm = weights.take("mixer_norm.weight")?;
                Some((norm, mixer::build(gene, &mut weights.below("mixer"))?))
            }
            None => None,
        };
        let ffn = match layer.ffn {
            Some(ffn) => {
                let norm = weights.take("ffn_norm.weight")?;
                Some((norm, Ffn::new(ffn.kind, &mut weights.below("ffn"))?))
            }
            None => None,
        };
        Ok(Self { mixer, ffn, norms_after: layer.norms_after() })
    }

    /// x `[B, T, d]` → `[B, T, d]`; to `balance` as [`Ffn::forward`].
    pub(crate) fn forward(
        &self,
        x: Tensor,
        state: Option<&mut MixerState>,
        balance: Option<&mut Vec<Tensor>>,
    ) -> Tensor {
        self.apply(x, |mixer, x| mixer.forward(x, state), balance)
    }

    /// x `[B, d]` → `[B, d]`; `state` is there when the layer has a mixer.
    pub(crate) fn step(&self, x: Tensor, state: Option<&mut MixerState>) -> Tensor {
        let step = |mixer: &dyn Mixer, x: &Tensor| {
            mixer.step(x, state.expect("a layer with a mixer has a state"))
        };
        self.apply(x, step, None)
    }

    fn apply(
        &self,
        mut x: Tensor,
        mix: impl FnOnce(&dyn Mixer, &Tensor) -> Tensor,
        balance: Option<&mut Vec<Tensor>>,
    ) -> Tensor {
        if let Some((norm, mixer)) = &self.mixer {
            x = &x + self.normed(&x, norm, |x| mix(mixer.as_ref(), x));
        }
        if let Some((norm, ffn)) = &self.ffn {
            x = &x + self.normed(&x, norm, |x| ffn.forward(x, balance));
        }
        x
    }

    /// f(norm x), or norm(f x).
    fn normed(&self, x: &Tensor, norm: &Tensor, f: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        if self.norms_after { rms_norm(&f(x), norm) } else { f(&rms_norm(x, norm)) }
    }

    /// What its memories give back of x `[B, T, d]`, that of the mixer after the first n positions for each of
    /// `positions`; and what the layer makes of x.
    pub(crate) fn reads(&self, x: &Tensor, positions: &[i64]) -> (LayerReads, Tensor) {
        let before = |x: &Tensor, norm: &Tensor| {
            if self.norms_after { x.shallow_clone() } else { rms_norm(x, norm) }
        };
        let mut x = x.shallow_clone();
        let mut reads = LayerReads { mixer: None, ffn: None };
        if let Some((norm, mixer)) = &self.mixer {
            let own = before(&x, norm);
            let read = |n: i64, asked| mixer.retrieval(&own.narrow(1, 0, n), asked);
            reads.mixer = Reads::of_positions(positions, read);
            x = &x + self.normed(&x, norm, |x| mixer.forward(x, None));
        }
        if let Some((norm, ffn)) = &self.ffn {
            let own = before(&x, norm);
            reads.ffn = Reads::of_network(|asked| ffn.retrieval(&own, asked));
            x = &x + self.normed(&x, norm, |x| ffn.forward(x, None));
        }
        (reads, x)
    }

    pub(crate) fn state(&self, batch: i64) -> Option<MixerState> {
        self.mixer.as_ref().map(|(_, mixer)| mixer.state(batch))
    }
}
