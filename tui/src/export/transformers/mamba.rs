//! `mamba2`: Mamba2 alone, without FFNs.

use search::Architecture;
use search::architecture::{Mamba2 as Shape, Mixer};
use search::foreign::Library;
use serde_json::{Value, json};

use super::{
    EPS, common, first, meta_tokens, mixer, norm, other_mixers, other_shapes, outer, with,
};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;
use crate::export::verdict::Obstacle;

pub(crate) struct Mamba2;

/// The shape of a Mamba2.
pub(crate) fn mamba2_of(mixer: &Mixer) -> Option<Shape> {
    match mixer {
        Mixer::Mamba2(shape) => Some(*shape),
        _ => None,
    }
}

/// The shape of one with one state.
pub(super) fn plain_mamba2(mixer: &Mixer) -> Option<Shape> {
    mamba2_of(mixer).filter(|shape| shape.levels.is_none())
}

/// Layers whose inner width is no whole multiple of the model's.
pub(super) fn expansion(stack: &Architecture) -> Option<Obstacle> {
    let d = stack.d_model();
    Obstacle::of_layers(
        stack,
        format!("Mamba2 whose heads together are no whole multiple of {d} wide"),
        Some("heads = \"auto\""),
        |layer| {
            let shape = layer.mixer.as_ref().and_then(mamba2_of);
            shape.is_some_and(|of| !(of.heads * of.head_width).is_multiple_of(d))
        },
    )
}

fn ffns(stack: &Architecture, what: &str) -> Option<Obstacle> {
    Obstacle::of_layers(stack, what, Some("ffn = [\"none\"]"), |layer| layer.ffn.is_some())
}

impl Dialect for Mamba2 {
    fn obstacles(&self, stack: &Architecture) -> Vec<Obstacle> {
        let mut found = other_mixers(stack, "Mamba2 alone", |mixer| plain_mamba2(mixer).is_some());
        found.extend(ffns(stack, "an FFN, and this type has none"));
        found.extend(other_shapes(stack, "Mamba2", mamba2_of));
        found.extend(expansion(stack));
        found.extend(meta_tokens(stack));
        found
    }

    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let shape = first(stack, mamba2_of).expect("every layer is one");
        with(
            common(folder, "Mamba2ForCausalLM", "mamba2"),
            json!({
                "num_hidden_layers": stack.layers().len(),
                "num_heads": shape.heads,
                "head_dim": shape.head_width,
                "state_size": shape.state_width,
                "expand": shape.heads * shape.head_width / stack.d_model(),
                "n_groups": 1,
                "conv_kernel": 4,
                "use_bias": false,
                "use_conv_bias": true,
                "layer_norm_epsilon": EPS,
                "residual_in_fp32": false,
                "chunk_size": 64,
            }),
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "backbone.embeddings.weight", "backbone.norm_f.weight");
        for index in 0..stack.layers().len() {
            let at = format!("backbone.layers.{index}");
            all.push(norm(stack, index, "mixer_norm", format!("{at}.norm.weight")));
            all.extend(mixer(
                Library::Transformers,
                stack,
                index,
                &format!("{at}.mixer."),
                str::to_owned,
            ));
        }
        all
    }
}
