//! Parameters and memory of the parts of a drawing.

use search::Architecture;
use search::architecture::{Attention, DeltaNet, GatedDeltaNet, Layer, Mamba2, Mixer};
use search::tensors::tensors;

/// The parameters of a stack, part by part.
pub(super) struct Parameters {
    pub(super) embedding: u64,
    /// Of the mixer and of the feed-forward network of each layer, each with its norm.
    pub(super) layers: Vec<(u64, u64)>,
    /// Of the final norm and the head.
    pub(super) head: u64,
}

impl Parameters {
    pub(super) fn of(architecture: &Architecture) -> Self {
        let mut all =
            Self { embedding: 0, layers: vec![(0, 0); architecture.layers().len()], head: 0 };
        for tensor in tensors(architecture) {
            let elements = tensor.elements();
            let mut parts = tensor.name.split('.');
            match (
                parts.next(),
                parts.next().and_then(|index| index.parse::<usize>().ok()),
                parts.next(),
            ) {
                (Some("layers"), Some(index), Some(part)) => {
                    let layer = &mut all.layers[index];
                    *if part.starts_with("ffn") { &mut layer.1 } else { &mut layer.0 } += elements;
                }
                (Some("embedding"), ..) => all.embedding += elements,
                _ => all.head += elements,
            }
        }
        all
    }

    pub(super) fn total(&self) -> u64 {
        self.embedding + self.head + self.layers.iter().map(|(mixer, ffn)| mixer + ffn).sum::<u64>()
    }
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
