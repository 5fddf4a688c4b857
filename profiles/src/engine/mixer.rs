//! Mixers in inference: one file each, and the one `match` from gene to layer.

mod attention;
mod delta;
mod gated_conv;
mod kda;
mod mamba2;
mod parallel;

use kernels::cpu::matrix::Storage;
use search::architecture::Mixer;

use super::function::Function;
use super::phases::Phases;
use crate::weights::Weights;
use attention::Attention;
use delta::Delta;
use gated_conv::GatedConv;
use kda::Kda;
use mamba2::Mamba2;
use parallel::Parallel;

/// The mixer of a gene, its weights below `prefix`.
pub(super) fn build(
    mixer: &Mixer,
    weights: &Weights,
    prefix: &str,
    d: usize,
    storage: Storage,
) -> Box<dyn Function> {
    let phases = mixer.phases().map(|phases| Phases::new(weights, prefix, d, phases));
    match mixer {
        Mixer::Attention(shape) => {
            Box::new(Attention::new(weights, prefix, d, shape, storage, phases))
        }
        Mixer::Delta(shape) => Box::new(Delta::new(weights, prefix, d, shape, storage, phases)),
        Mixer::Mamba2(shape) => Box::new(Mamba2::new(weights, prefix, d, shape, storage)),
        Mixer::Kda(shape) => Box::new(Kda::new(weights, prefix, d, shape, storage)),
        Mixer::GatedConv(shape) => Box::new(GatedConv::new(weights, prefix, d, *shape, storage)),
        Mixer::Parallel(shape) => {
            let branch = |mixer: Mixer, name: &str| {
                let own = build(&mixer, weights, &format!("{prefix}{name}."), d, storage);
                let norm = format!("{prefix}{name}_norm.weight");
                (own, if shape.branch_norms { weights.get(&norm).to_vec() } else { Vec::new() })
            };
            let attention = branch(shape.attention().into(), "attention");
            Box::new(Parallel::new([attention, branch(shape.side().into(), "beside")]))
        }
    }
}
