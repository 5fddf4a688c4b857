//! Half a layer: `x += f(norm(x))`, or `x += norm(f(x))`, f a mixer or a feed-forward network.

use kernels::cpu::matrix::Storage;
use kernels::norm::cpu::OfBranch;
use search::Architecture;

use super::ffn;
use super::function::Function;
pub(crate) use super::memory::Memory;
use super::mixer;
use super::scratch::Run;
use crate::weights::{SplitMix, Weights};

/// Half a layer with its norm.
#[derive(Debug)]
pub(crate) struct Sublayer {
    /// `[d]`
    norm: Vec<f32>,
    /// Whether the norm stands behind the function.
    norm_after: bool,
    function: Box<dyn Function>,
}

/// All sublayers of a model, in order.
pub(crate) fn build(
    architecture: &Architecture,
    weights: &Weights,
    storage: Storage,
) -> Vec<Sublayer> {
    let d = architecture.d_model() as usize;
    let layers = architecture.layers().iter().enumerate();
    layers
        .flat_map(|(index, layer)| {
            let norm = |of: &str| weights.get(&format!("layers.{index}.{of}_norm.weight")).to_vec();
            let mixer = layer.mixer.map(|mixer| {
                let prefix = format!("layers.{index}.mixer.");
                Sublayer {
                    norm: norm("mixer"),
                    norm_after: layer.norms_after(),
                    function: mixer::build(&mixer, weights, &prefix, d, storage),
                }
            });
            let ffn = layer.ffn.map(|ffn| {
                let prefix = format!("layers.{index}.ffn.");
                let function = ffn::build(weights, &prefix, d, ffn, storage);
                Sublayer { norm: norm("ffn"), norm_after: layer.norms_after(), function }
            });
            mixer.into_iter().chain(ffn)
        })
        .collect()
}

impl Sublayer {
    /// What a sequence that has seen nothing leaves here.
    pub(crate) fn memory(&self) -> Memory {
        self.function.memory()
    }

    /// What a sequence of `position` positions leaves here, with values from `random` instead of its own.
    pub(crate) fn pretended(&self, position: usize, random: &mut SplitMix) -> Memory {
        let mut memory = self.memory();
        memory.pretend(position, random);
        memory
    }

    /// Bytes of its matrices.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.function.weight_bytes()
    }

    /// Whether what a step reads depends on its input.
    pub(crate) fn reads_by_input(&self) -> bool {
        self.function.reads_by_input()
    }

    /// x `[B·T, d]` += f(norm(x)) or norm(f(x)), T = `tokens`, one memory for each of the B sequences.
    pub(crate) fn forward(
        &self,
        on: &mut Run<'_>,
        tokens: usize,
        x: &mut [f32],
        memories: &mut [Memory],
    ) {
        let norm = OfBranch { weight: &self.norm, after: self.norm_after };
        self.function.forward(on, norm, tokens, x, memories);
    }
}
