//! Token mixers as modules: one file each, and the one `match` from gene to module.

mod attention;
mod delta;
mod gated_conv;
mod kda;
mod mamba2;
mod module;
mod parallel;
mod phases;
mod sliding_window;
mod state;

use std::collections::HashMap;

use search::Architecture;
use search::architecture::{Attention, Layer, Mixer as Gene};
use search::tensors::mixer_tensors;
use tch::nn;

pub use module::Mixer;
pub use phases::PhaseState;
pub use state::{Cache, MixerState, Recurrent};

use crate::OperatorError;
use crate::weights::{Variable, Weights, all_taken, create};

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
        Gene::Kda(gene) => Box::new(kda::Kda::new(*gene, weights)?),
        Gene::GatedConv(gene) => Box::new(gated_conv::GatedConv::new(*gene, weights)?),
        Gene::Parallel(shape) => {
            let mut branch = |gene: Gene, name: &str| -> Result<_, OperatorError> {
                let mixer = build(&gene, &mut weights.below(name))?;
                let norm = format!("{name}_norm.weight");
                Ok((mixer, weights.take_if(shape.branch_norms, &norm)?))
            };
            let attention = branch(shape.attention().into(), "attention")?;
            let beside = branch(shape.side().into(), "beside")?;
            Box::new(parallel::Parallel::new([attention, beside]))
        }
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
    let layer = Layer { mixer: Some(gene), ffn: None };
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
