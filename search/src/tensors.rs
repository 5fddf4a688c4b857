//! The tensors of a model: one list for everybody who builds, saves or loads one, and the formula for its parameters.
//!
//! `operators` builds exactly these, checkpoints hold exactly these names, and the inference engine loads exactly
//! these. All matrices are `[out, in]`. Heads are contiguous blocks of rows: head h owns rows h·K..(h+1)·K.
//! The initial value and the optimiser's group of a tensor follow from its [`Role`].

use crate::architecture::{Architecture, Ffn, Mixer, Tensors};
pub use crate::architecture::{CONV_WIDTH, Role, TensorSpec};

/// Every trainable tensor of `architecture`, in the order of computation.
pub fn tensors(architecture: &Architecture) -> Vec<TensorSpec> {
    let d = u64::from(architecture.d_model());
    let vocab = u64::from(architecture.vocab());
    let mut list = Tensors::default();
    list.add("embedding.weight", &[vocab, d], Role::Embedding);
    if architecture.meta_tokens() > 0 {
        list.add("meta.weight", &[architecture.meta_tokens().into(), d], Role::MetaTokens);
    }
    for (index, layer) in architecture.layers().iter().enumerate() {
        list.prefix = format!("layers.{index}.");
        if let Some(mixer) = &layer.mixer {
            list.add("mixer_norm.weight", &[d], Role::NormWeight);
            list.prefix = format!("layers.{index}.mixer.");
            mixer.list_tensors(d, &mut list);
            list.prefix = format!("layers.{index}.");
        }
        if let Some(ffn) = layer.ffn {
            list.add("ffn_norm.weight", &[d], Role::NormWeight);
            list.prefix = format!("layers.{index}.ffn.");
            ffn.tensors(d, &mut list);
        }
    }
    list.prefix.clear();
    list.add("final_norm.weight", &[d], Role::NormWeight);
    if !architecture.tied_embeddings() {
        list.add("head.weight", &[vocab, d], Role::Head);
    }
    list.all
}

/// The tensors of `mixer` at width `d`, with the names they have after `layers.{i}.mixer.`.
pub fn mixer_tensors(d: u64, mixer: &Mixer) -> Vec<TensorSpec> {
    mixer.tensors(d)
}

/// Trainable parameters of `architecture`: the closed form of the sum over [`tensors`].
pub fn parameters(architecture: &Architecture) -> u64 {
    counted(architecture, Ffn::parameters)
}

/// Those of them that one token is multiplied by: all but the experts that it is not given to.
pub fn active_parameters(architecture: &Architecture) -> u64 {
    counted(architecture, Ffn::active_parameters)
}

/// Parameters where those of an FFN at width d are as `of_ffn` says.
fn counted(architecture: &Architecture, of_ffn: fn(Ffn, u64) -> u64) -> u64 {
    let d = u64::from(architecture.d_model());
    let table = u64::from(architecture.vocab()) * d;
    let head = if architecture.tied_embeddings() { 0 } else { table };
    // One layer stays inside u64 by the limits on widths; thousands of the widest would not.
    let layers = architecture
        .layers()
        .iter()
        .map(|layer| {
            let mixer = layer.mixer.map_or(0, |mixer| d + mixer_parameters(d, &mixer));
            mixer + layer.ffn.map_or(0, |ffn| d + of_ffn(ffn, d))
        })
        .fold(0, u64::saturating_add);
    let meta = u64::from(architecture.meta_tokens()) * d;
    (table + meta + d + head).saturating_add(layers)
}

/// Parameters of a mixer at width `d`, its pre-norm not included.
pub fn mixer_parameters(d: u64, mixer: &Mixer) -> u64 {
    mixer.parameters(d)
}
