//! Parameters and memory of the parts of a drawing.

use search::Architecture;
use search::architecture::{Attention, DeltaNet, GatedDeltaNet, Layer, Mamba2, Mixer};
use search::tensors::tensors;

pub(super) fn parameters(architecture: &Architecture) -> u64 {
    tensors(architecture).iter().map(search::tensors::TensorSpec::elements).sum()
}

fn starting_with(architecture: &Architecture, prefixes: &[&str]) -> u64 {
    tensors(architecture)
        .iter()
        .filter(|tensor| prefixes.iter().any(|prefix| tensor.name.starts_with(prefix)))
        .map(search::tensors::TensorSpec::elements)
        .sum()
}

pub(super) fn embedding_parameters(architecture: &Architecture) -> u64 {
    starting_with(architecture, &["embedding."])
}

pub(super) fn head_parameters(architecture: &Architecture) -> u64 {
    starting_with(architecture, &["head.", "final_norm."])
}

/// Of the mixer and of the feed-forward network of layer `index`, each with its norm.
pub(super) fn layer_parameters(architecture: &Architecture, index: usize) -> (u64, u64) {
    let mixer = starting_with(architecture, &[&format!("layers.{index}.mixer")]);
    (mixer, starting_with(architecture, &[&format!("layers.{index}.ffn")]))
}

pub(super) fn memory_bytes(architecture: &Architecture, context: u32) -> u64 {
    architecture.layers().iter().map(|layer| layer_memory_bytes(layer, context)).sum()
}

/// Recurrent state, convolution history and cache of one layer, fp32, one sequence.
pub(super) fn layer_memory_bytes(layer: &Layer, context: u32) -> u64 {
    let n = u64::from;
    let elements = match layer.mixer {
        None => 0,
        Some(Mixer::Attention(Attention { kv_heads, head_width, window, .. })) => {
            2 * n(kv_heads)
                * n(head_width)
                * n(window.map_or(context, |window| window.min(context)))
        }
        Some(
            Mixer::DeltaNet(DeltaNet { heads, key_width, value_width })
            | Mixer::GatedDeltaNet(GatedDeltaNet { heads, key_width, value_width }),
        ) => n(heads) * (n(key_width) * n(value_width) + 3 * (2 * n(key_width) + n(value_width))),
        Some(Mixer::Mamba2(Mamba2 { heads, head_width, state_width })) => {
            n(heads) * n(head_width) * n(state_width)
                + 3 * (n(heads) * n(head_width) + 2 * n(state_width))
        }
    };
    4 * elements
}
