//! The feed-forward network: SwiGLU (arXiv 2002.05202), `down(silu(gate x) · up x)`, squared ReLU (arXiv 2109.08668),
//! `down(max(up x, 0)²)`, or a mixture of experts.

mod dense;
mod moe;

use std::collections::HashMap;

use search::Architecture;
use search::architecture::{Ffn as Gene, FfnKind, Layer};
use search::tensors::tensors;
use tch::{Tensor, nn};

use crate::OperatorError;
use crate::retrieval::{Asked, Retrieval};
use crate::weights::{Variable, Weights, all_taken, create};
use dense::Dense;
use moe::Moe;

/// A feed-forward network.
#[derive(Debug)]
pub struct Ffn(Form);

#[derive(Debug)]
enum Form {
    Dense(Dense),
    Moe(Moe),
}

/// A feed-forward network outside any model, for tests and comparisons with other code. Its variables stand below `path` with
/// the names they have after `layers.0.ffn.` in a model.
///
/// # Errors
/// When the gene is impossible, or as [`crate::Model::new`].
pub fn alone(
    path: &nn::Path,
    d_model: u32,
    gene: Gene,
    seed: u64,
) -> Result<(Ffn, Vec<Variable>), OperatorError> {
    let layer = Layer { mixer: None, ffn: Some(gene) };
    let stack = Architecture::new(d_model, 1, true, vec![layer])?; // checks the gene
    let mut variables = Vec::new();
    let mut untaken = HashMap::new();
    for mut spec in tensors(&stack) {
        let Some(name) = spec.name.strip_prefix("layers.0.ffn.").map(str::to_owned) else {
            continue;
        };
        spec.name = name;
        let tensor = create(path, &spec, None, seed)?;
        untaken.insert(spec.name.clone(), tensor.shallow_clone());
        variables.push(Variable { spec, tensor });
    }
    let ffn = Ffn::new(gene.kind, &mut Weights::root(&mut untaken))?;
    all_taken(&untaken)?;
    Ok((ffn, variables))
}

impl Ffn {
    pub(crate) fn new(kind: FfnKind, weights: &mut Weights) -> Result<Self, OperatorError> {
        Ok(Self(match kind {
            FfnKind::SwiGlu => Form::Dense(Dense::new(true, weights)?),
            FfnKind::Relu2 => Form::Dense(Dense::new(false, weights)?),
            FfnKind::Moe(experts) => Form::Moe(Moe::new(experts, weights)?),
        }))
    }

    /// What the network gives back as a memory, whose pairs are its inner channels: the keys in the matrices that read, the
    /// values in the columns of the one that writes (arXiv 2505.19488, section 2.3; arXiv 2012.14913). Asked with its own
    /// keys at the length that normed inputs have, or with inputs x `[B, T, d]`. None of a mixture, which reads the
    /// pairs of a few experts only.
    pub fn retrieval(&self, x: &Tensor, asked: Asked) -> Option<Retrieval> {
        match &self.0 {
            Form::Dense(network) => Some(network.retrieval(x, asked)),
            Form::Moe(_) => None,
        }
    }

    /// x `[…, d]` → `[…, d]`. How unevenly the experts of a mixture are used ([`kernels::moe::balance_definition`]) is added to
    /// `balance`, where that is asked for.
    pub fn forward(&self, x: &Tensor, balance: Option<&mut Vec<Tensor>>) -> Tensor {
        match &self.0 {
            Form::Dense(network) => network.forward(x),
            Form::Moe(mixture) => mixture.forward(x, balance),
        }
    }
}
