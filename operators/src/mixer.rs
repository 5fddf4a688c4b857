//! Token mixers as modules: one file each, one trait, and the one `match` from gene to module.

mod attention;
mod delta;
mod mamba2;
mod phases;
mod sliding_window;

use std::collections::HashMap;
use std::fmt::Debug;

use search::Architecture;
use search::architecture::{Attention, Layer, Mixer as Gene};
use search::tensors::mixer_tensors;
use tch::{Device, Kind, Tensor, nn};

pub use phases::PhaseState;

use crate::OperatorError;
use crate::ops::log_linear::Levels;
use crate::retrieval::Retrieval;
use crate::weights::{Variable, Weights, all_taken, create};

/// A built token mixer. It reads the normed hidden state and returns what is added to the residual stream.
pub trait Mixer: Debug + Send {
    /// All positions in parallel: x `[B, T, d]` → `[B, T, d]`. With a state, x follows what the state has seen, and
    /// the state is moved past x; without one, x is the beginning.
    fn forward(&self, x: &Tensor, state: Option<&mut MixerState>) -> Tensor;

    /// One position: x `[B, d]` → `[B, d]`.
    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor;

    /// The state before the first position.
    fn state(&self, batch: i64) -> MixerState;

    /// What reading every stored key gives after all positions of x `[B, T, d]`: a diagnosis, not a part of the model.
    fn retrieval(&self, x: &Tensor) -> Retrieval;
}

/// What a mixer remembers between positions.
#[derive(Debug)]
pub enum MixerState {
    /// Attention's keys (rotated) and values.
    Cache(Cache),
    /// The matrix of a linear mixer and the window of its convolution.
    Recurrent(Recurrent),
}

/// Keys and values of the past, or of what a window still needs of it.
#[derive(Debug)]
pub struct Cache {
    /// `[B, H_kv, positions, K]`
    pub k: Tensor,
    /// `[B, H_kv, positions, K]`
    pub v: Tensor,
    /// Number of positions seen, those forgotten included.
    pub position: i64,
    /// Of attention with Selective RoPE.
    pub phases: Option<PhaseState>,
}

/// The state of a linear mixer, in f32 or f64.
#[derive(Debug)]
pub struct Recurrent {
    /// `[B, H, K, V]`; of a log-linear mixer one for each level, `[B, H, L, K, V]`
    pub memory: Tensor,
    /// Number of positions seen.
    pub position: i64,
    /// The last three inputs of the short convolution, oldest first: `[B, 3, C]`
    pub conv: Tensor,
    /// Of a mixer with Selective RoPE.
    pub phases: Option<PhaseState>,
}

impl MixerState {
    fn cache(&mut self) -> &mut Cache {
        match self {
            Self::Cache(cache) => cache,
            Self::Recurrent(_) => {
                panic!("attention got the state of a linear mixer; use the layer's own state()")
            }
        }
    }

    fn recurrent(&mut self) -> &mut Recurrent {
        match self {
            Self::Recurrent(state) => state,
            Self::Cache(_) => {
                panic!("a linear mixer got attention's cache; use the layer's own state()")
            }
        }
    }
}

impl Cache {
    fn new(batch: i64, heads: i64, width: i64, options: (Kind, Device)) -> Self {
        let empty = || Tensor::zeros([batch, heads, 0, width], options);
        Self { k: empty(), v: empty(), position: 0, phases: None }
    }
}

impl Recurrent {
    /// memory: B, H, K, V.
    fn new(memory: [i64; 4], levels: Option<u32>, channels: i64, options: (Kind, Device)) -> Self {
        let [b, h, k, v] = memory;
        let memory = match levels {
            Some(levels) => Tensor::zeros([b, h, levels.into(), k, v], options),
            None => Tensor::zeros([b, h, k, v], options),
        };
        Self { memory, position: 0, conv: Tensor::zeros([b, 3, channels], options), phases: None }
    }

    /// Runs a log-linear rule on the memory, which moves on.
    fn through(&mut self, run: impl FnOnce(&mut Levels) -> Tensor) -> Tensor {
        let mut levels = Levels { memory: self.memory.shallow_clone(), position: self.position };
        let o = run(&mut levels);
        self.memory = levels.memory;
        o
    }
}

/// Builds the module of a gene from its weights.
pub(crate) fn build(gene: &Gene, weights: &mut Weights) -> Result<Box<dyn Mixer>, OperatorError> {
    Ok(match gene {
        Gene::Attention(gene @ Attention { window: None, .. }) => {
            Box::new(attention::FullAttention::new(gene, weights)?)
        }
        Gene::Attention(gene @ Attention { window: Some(window), .. }) => {
            Box::new(sliding_window::SlidingWindow::new(gene, *window, weights)?)
        }
        Gene::Delta(shape) => Box::new(delta::Delta::new(*shape, gene.phases(), weights)?),
        Gene::Mamba2(gene) => Box::new(mamba2::Mamba2::new(gene, weights)?),
    })
}

/// A mixer outside any model, for tests, timings and comparisons with other code. Its variables stand below `path` with
/// the names they have after `layers.0.mixer.` in a model.
///
/// # Errors
/// When the gene is impossible, or as [`crate::Model::new`].
pub fn alone(
    path: &nn::Path,
    d_model: u32,
    gene: Gene,
    seed: u64,
) -> Result<(Box<dyn Mixer>, Vec<Variable>), OperatorError> {
    let layer = Layer { mixer: Some(gene), ffn_width: None };
    Architecture::new(d_model, 1, true, vec![layer])?; // checks the gene
    let mut variables = Vec::new();
    let mut untaken = HashMap::new();
    for spec in mixer_tensors(d_model.into(), &gene) {
        let tensor = create(path, &spec, Some(&gene), seed)?;
        untaken.insert(spec.name.clone(), tensor.shallow_clone());
        variables.push(Variable { spec, tensor });
    }
    let mixer = build(&gene, &mut Weights::root(&mut untaken))?;
    all_taken(&untaken)?;
    Ok((mixer, variables))
}
