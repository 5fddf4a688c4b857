//! `olmo_hybrid`: Gated DeltaNet with its norms before, full attention with norms behind it and its FFN and with norms of q
//! and k over all heads, rotary positions on whole heads or none, SwiGLU in every layer.

use search::Architecture;
use search::architecture::Mixer;
use search::foreign::Library;
use search::targets::{attention_of, first, gated_delta_of};
use serde_json::{Value, json};

use super::{EPS, POSITIONS, common, ffn, layer_types, mixer, norm, outer, with};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;

pub(crate) struct OlmoHybrid;

impl Dialect for OlmoHybrid {
    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let attention = first(stack, attention_of).expect("there is a layer of it");
        let delta = first(stack, gated_delta_of).expect("there is a layer of it");
        // without one there are no positions; without the key there would be the default
        let theta = (attention.rotary_width() > 0).then_some(attention.rope_theta);
        let types = layer_types(stack, |mixer| {
            if gated_delta_of(mixer).is_some() { "linear_attention" } else { "full_attention" }
        });
        with(
            common(folder, "OlmoHybridForCausalLM", "olmo_hybrid"),
            json!({
                "num_hidden_layers": stack.layers().len(),
                "intermediate_size": stack.layers()[0].ffn.map(|ffn| ffn.width),
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "head_dim": attention.head_width,
                "hidden_act": "silu",
                "rms_norm_eps": EPS,
                "max_position_embeddings": POSITIONS,
                "rope_parameters": { "rope_type": "default", "rope_theta": theta },
                "attention_bias": false,
                "layer_types": types,
                "linear_num_key_heads": delta.heads,
                "linear_num_value_heads": delta.value_heads(),
                "linear_key_head_dim": delta.key_width,
                "linear_value_head_dim": delta.value_width,
                "linear_conv_kernel_dim": 4,
                "linear_allow_neg_eigval": delta.negative_eigenvalues,
            }),
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "model.embed_tokens.weight", "model.norm.weight");
        for (index, layer) in stack.layers().iter().enumerate() {
            let at = format!("model.layers.{index}");
            let is_attention = matches!(layer.mixer, Some(Mixer::Attention(_)));
            let (module, [of_mixer, of_ffn]) = if is_attention {
                ("self_attn", ["post_attention_layernorm", "post_feedforward_layernorm"])
            } else {
                ("linear_attn", ["input_layernorm", "post_attention_layernorm"])
            };
            all.push(norm(stack, index, "mixer_norm", format!("{at}.{of_mixer}.weight")));
            let prefix = format!("{at}.{module}.");
            all.extend(mixer(Library::Transformers, stack, index, &prefix, str::to_owned));
            all.push(norm(stack, index, "ffn_norm", format!("{at}.{of_ffn}.weight")));
            let names = ["gate", "up", "down"].map(|part| format!("{at}.mlp.{part}_proj.weight"));
            all.extend(ffn(stack, index, names));
        }
        all
    }
}
