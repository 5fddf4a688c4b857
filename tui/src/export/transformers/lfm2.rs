//! `lfm2`: gated short convolutions and full attention with norms of q and k.

use search::Architecture;
use search::foreign::Library;
use search::targets::{attention_of, first, taps_of};
use serde_json::{Value, json};

use super::{EPS, POSITIONS, common, ffn, layer_types, mixer, norm, outer, with};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;

pub(crate) struct Lfm2;

impl Dialect for Lfm2 {
    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let attention = first(stack, attention_of).expect("there is a layer of it");
        let types =
            layer_types(
                stack,
                |mixer| if taps_of(mixer).is_some() { "conv" } else { "full_attention" },
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
                "conv_L_cache": first(stack, taps_of).unwrap_or(3),
                "layer_types": types,
            }),
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "model.embed_tokens.weight", "model.embedding_norm.weight");
        for (index, layer) in stack.layers().iter().enumerate() {
            let at = format!("model.layers.{index}");
            let is_conv = layer.mixer.as_ref().is_some_and(|mixer| taps_of(mixer).is_some());
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
