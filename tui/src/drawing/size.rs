//! Parameters and memory of the parts of a drawing.

use search::Architecture;
use search::architecture::Layer;
use search::cost::{cache_bytes, part_cache_bytes, part_state_bytes, state_bytes};
use search::latency::{Dtype, Part};
use search::tensors::tensors;

/// The parameters of a stack, part by part.
pub struct Parameters {
    /// Of the embedding.
    pub embedding: u64,
    /// Of the mixer and of the feed-forward network of each layer, each with its norm.
    pub layers: Vec<(u64, u64)>,
    /// Of the final norm and the head.
    pub head: u64,
}

impl Parameters {
    /// Counts them.
    pub fn of(architecture: &Architecture) -> Self {
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

    /// All of them.
    pub fn total(&self) -> u64 {
        self.embedding + self.head + self.layers.iter().map(|(mixer, ffn)| mixer + ffn).sum::<u64>()
    }
}

/// Recurrent state and cache of one layer, for one sequence of `context` positions.
pub(super) fn layer_memory_bytes(
    layer: &Layer,
    context: u32,
    meta_tokens: u32,
    dtype: Dtype,
) -> u64 {
    layer.mixer.map_or(0, |mixer| {
        // Neither depends on the width of the residual stream.
        let part = Part::mixer(1, mixer, meta_tokens);
        part_state_bytes(&part, context.saturating_add(1))
            .saturating_add(part_cache_bytes(&part, context, dtype))
    })
}

/// The same of the whole stack.
pub(super) fn memory_bytes(architecture: &Architecture, context: u32, dtype: Dtype) -> u64 {
    state_bytes(architecture, context.saturating_add(1)).saturating_add(cache_bytes(
        architecture,
        context,
        dtype,
    ))
}
