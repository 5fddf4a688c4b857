//! `lfm2`: gated short convolutions and full attention with norms of q and k.

use search::Architecture;
use search::architecture::{Mixer, QkNorm};
use search::foreign::Library;
use serde_json::{Value, json};

use super::{
    AttentionForms, EPS, POSITIONS, attention_of, common, ffn, first, layer_types, meta_tokens,
    mixer, mixer_and_ffn, no_attention, norm, other_attention, other_head_widths, other_mixers,
    other_shapes, outer, selective_rope, with,
};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;
use crate::export::verdict::Obstacle;

pub(crate) struct Lfm2;

pub(crate) fn taps(mixer: &Mixer) -> Option<u32> {
    match mixer {
        Mixer::GatedConv(conv) => Some(conv.kernel_width),
        _ => None,
    }
}

impl Dialect for Lfm2 {
    fn obstacles(&self, stack: &Architecture) -> Vec<Obstacle> {
        let d = stack.d_model();
        let mut found =
            other_mixers(stack, "gated short convolutions and full attention", |mixer| {
                taps(mixer).is_some() || attention_of(mixer).is_some_and(|of| of.window.is_none())
            });
        found.extend(mixer_and_ffn(stack));
        found.extend(other_attention(stack));
        found.extend(other_shapes(stack, "convolution", taps));
        found.extend(Obstacle::of_layers(
            stack,
            format!("a convolution of other channels than the {d} of the model"),
            Some(&format!("channels = {d}")),
            |layer| matches!(layer.mixer, Some(Mixer::GatedConv(conv)) if conv.channels != d),
        ));
        found.extend(AttentionForms::plain(QkNorm::Head).obstacles(stack));
        found.extend(other_head_widths(stack));
        found.extend(selective_rope(stack));
        found.extend(no_attention(stack));
        found.extend(meta_tokens(stack));
        found
    }

    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let attention = first(stack, attention_of).expect("there is a layer of it");
        let types =
            layer_types(
                stack,
                |mixer| if taps(mixer).is_some() { "conv" } else { "full_attention" },
            );
        with(
            common(folder, "Lfm2ForCausalLM", "lfm2"),
            json!({
                "num_hidden_layers": stack.layers().len(),
                "intermediate_size": stack.layers()[0].ffn.map(|ffn| ffn.width),
                "block_auto_adjust_ff_dim": false,
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "norm_eps": EPS,
                "max_position_embeddings": POSITIONS,
                "rope_parameters": { "rope_type": "default", "rope_theta": attention.rope_theta },
                "conv_bias": false,
                "conv_L_cache": first(stack, taps).unwrap_or(3),
                "layer_types": types,
            }),
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "model.embed_tokens.weight", "model.embedding_norm.weight");
        for (index, layer) in stack.layers().iter().enumerate() {
            let at = format!("model.layers.{index}");
            let is_conv = layer.mixer.as_ref().is_some_and(|mixer| taps(mixer).is_some());
            let module = if is_conv { "conv" } else { "self_attn" };
            all.push(norm(stack, index, "mixer_norm", format!("{at}.operator_norm.weight")));
            all.extend(mixer(
                Library::Transformers,
                stack,
                index,
                &format!("{at}.{module}."),
                |name| name.replace("o_proj", "out_proj").replace("_norm.", "_layernorm."),
            ));
            all.push(norm(stack, index, "ffn_norm", format!("{at}.ffn_norm.weight")));
            let names = ["w1", "w3", "w2"].map(|part| format!("{at}.feed_forward.{part}.weight"));
            all.extend(ffn(stack, index, names));
        }
        all
    }
}
