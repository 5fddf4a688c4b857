//! What a rule or an export asks of a mixer: its shape, where it is one of a kind.

use crate::architecture::{Architecture, Attention, Delta, Ffn, Mamba2, Mixer, MixerKind};

/// The attention of a mixer.
pub fn attention_of(mixer: &Mixer) -> Option<Attention> {
    match mixer {
        Mixer::Attention(attention) => Some(*attention),
        _ => None,
    }
}

/// The first mixer of a stack that has this shape.
pub fn first<T>(stack: &Architecture, shape: impl Fn(&Mixer) -> Option<T>) -> Option<T> {
    stack.layers().iter().filter_map(|layer| layer.mixer.as_ref()).find_map(shape)
}

/// The first mixture of experts of a stack.
pub fn first_mixture(stack: &Architecture) -> Option<Ffn> {
    stack.layers().iter().filter_map(|layer| layer.ffn).find(|ffn| ffn.kind.experts().is_some())
}

/// The shape of a mixer with a delta rule and one state: DeltaNet, Gated DeltaNet, DeltaProduct.
pub fn delta_rule_of(mixer: &Mixer) -> Option<Delta> {
    match mixer {
        Mixer::Delta(delta) if delta.levels.is_none() => Some(*delta),
        _ => None,
    }
}

/// The shape of a Gated DeltaNet.
pub fn gated_delta_of(mixer: &Mixer) -> Option<Delta> {
    match mixer {
        Mixer::Delta(delta) if mixer.kind() == MixerKind::GatedDeltaNet => Some(*delta),
        _ => None,
    }
}

/// The shape of a Mamba2.
pub fn mamba2_of(mixer: &Mixer) -> Option<Mamba2> {
    match mixer {
        Mixer::Mamba2(shape) => Some(*shape),
        _ => None,
    }
}

/// The shape of one with one state.
pub fn plain_mamba2_of(mixer: &Mixer) -> Option<Mamba2> {
    mamba2_of(mixer).filter(|shape| shape.levels.is_none())
}

/// The taps of a gated short convolution.
pub fn taps_of(mixer: &Mixer) -> Option<u32> {
    match mixer {
        Mixer::GatedConv(conv) => Some(conv.kernel_width),
        _ => None,
    }
}

/// Whether this is attention over the whole past.
pub(super) fn is_full_attention(mixer: &Mixer) -> bool {
    attention_of(mixer).is_some_and(|of| of.window.is_none())
}
