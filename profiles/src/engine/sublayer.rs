//! Half a layer: `x += f(norm(x))`, f a mixer or a feed-forward network.

use kernels::cpu::matrix::Storage;
use search::Architecture;
use search::architecture::Mixer;

use super::attention::{Attention, Cache};
use super::delta::Delta;
use super::ffn::Ffn;
use super::mamba2::Mamba2;
use super::recurrent::Recurrent;
use super::scratch::Run;
use crate::weights::{SplitMix, Weights};

/// Half a layer with its pre-norm.
#[derive(Debug)]
pub(crate) struct Sublayer {
    /// `[d]`
    norm: Vec<f32>,
    function: Function,
}

#[derive(Debug)]
enum Function {
    Attention(Attention),
    Delta(Delta),
    Mamba2(Mamba2),
    Ffn(Ffn),
}

/// What one sequence left in one sublayer.
#[derive(Debug, Clone)]
pub(crate) enum Memory {
    Cache(Cache),
    Recurrent(Recurrent),
    None,
}

impl Memory {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Cache(cache) => cache.bytes(),
            Self::Recurrent(state) => state.bytes(),
            Self::None => 0,
        }
    }

    /// See [`super::State::rewind`].
    pub(crate) fn rewind(&mut self, position: usize) {
        match self {
            Self::Cache(cache) => cache.rewind(position),
            Self::Recurrent(state) => state.rewind(position),
            Self::None => {}
        }
    }

    fn cache(&mut self) -> &mut Cache {
        match self {
            Self::Cache(cache) => cache,
            _ => panic!("the state is of another engine: an attention layer needs a cache"),
        }
    }

    fn recurrent(&mut self) -> &mut Recurrent {
        match self {
            Self::Recurrent(state) => state,
            _ => panic!("the state is of another engine: a recurrent layer needs a state"),
        }
    }
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
            let mixer = layer.mixer.map(|mixer| {
                let prefix = format!("layers.{index}.mixer.");
                let function = match mixer {
                    Mixer::Attention(shape) => {
                        Function::Attention(Attention::new(weights, &prefix, d, shape, storage))
                    }
                    Mixer::Delta(shape) => Function::Delta(Delta::new(
                        weights,
                        &prefix,
                        d,
                        &shape,
                        storage,
                        mixer.phases(),
                    )),
                    Mixer::Mamba2(shape) => {
                        Function::Mamba2(Mamba2::new(weights, &prefix, d, shape, storage))
                    }
                };
                let norm = weights.get(&format!("layers.{index}.mixer_norm.weight")).to_vec();
                Sublayer { norm, function }
            });
            let ffn = layer.ffn_width.map(|width| {
                let prefix = format!("layers.{index}.ffn.");
                let norm = weights.get(&format!("layers.{index}.ffn_norm.weight")).to_vec();
                let function =
                    Function::Ffn(Ffn::new(weights, &prefix, d, width as usize, storage));
                Sublayer { norm, function }
            });
            mixer.into_iter().chain(ffn)
        })
        .collect()
}

impl Sublayer {
    /// What a sequence that has seen nothing leaves here.
    pub(crate) fn memory(&self) -> Memory {
        match &self.function {
            Function::Attention(mixer) => Memory::Cache(mixer.state()),
            Function::Delta(mixer) => Memory::Recurrent(mixer.state()),
            Function::Mamba2(mixer) => Memory::Recurrent(mixer.state()),
            Function::Ffn(_) => Memory::None,
        }
    }

    /// What a sequence of `position` positions leaves here, with values from `random` instead of its own.
    pub(crate) fn pretended(&self, position: usize, random: &mut SplitMix) -> Memory {
        let mut memory = self.memory();
        match (&mut memory, &self.function) {
            (Memory::Cache(cache), Function::Attention(mixer)) => {
                cache.pretend(position, mixer.window(), random);
            }
            (Memory::Recurrent(state), _) => state.pretend(position, random),
            _ => {}
        }
        memory
    }

    /// Bytes of its matrices.
    pub(crate) fn weight_bytes(&self) -> usize {
        match &self.function {
            Function::Attention(mixer) => mixer.weight_bytes(),
            Function::Delta(mixer) => mixer.weight_bytes(),
            Function::Mamba2(mixer) => mixer.weight_bytes(),
            Function::Ffn(ffn) => ffn.weight_bytes(),
        }
    }

    /// x `[B·T, d]` += f(norm(x)), T = `tokens`, one memory for each of the B sequences.
    pub(crate) fn forward(
        &self,
        on: &mut Run<'_>,
        tokens: usize,
        x: &mut [f32],
        memories: &mut [Memory],
    ) {
        let norm = &self.norm;
        match &self.function {
            Function::Attention(mixer) => {
                mixer.forward(on, norm, tokens, x, memories.iter_mut().map(Memory::cache));
            }
            Function::Delta(mixer) => {
                mixer.forward(on, norm, tokens, x, memories.iter_mut().map(Memory::recurrent));
            }
            Function::Mamba2(mixer) => {
                mixer.forward(on, norm, tokens, x, memories.iter_mut().map(Memory::recurrent));
            }
            Function::Ffn(ffn) => ffn.forward(on, norm, x),
        }
    }
}
