//! Types of attention alone: `llama`, `ministral` with windows, `qwen3` with windows and norms of q and k.

use search::Architecture;
use search::architecture::Mixer;
use search::foreign::Library;
use search::targets::{attention_of, first};
use serde_json::{Value, json};

use super::{EPS, POSITIONS, common, ffn, layer_types, mixer, norm, outer, with};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;

/// A type whose layers are attention and SwiGLU.
pub(crate) struct OfAttention {
    model_type: &'static str,
    class: &'static str,
    /// Whether it may have windows.
    windows: bool,
}

pub(crate) const LLAMA: OfAttention =
    OfAttention { model_type: "llama", class: "LlamaForCausalLM", windows: false };
pub(crate) const MINISTRAL: OfAttention =
    OfAttention { model_type: "ministral", class: "MinistralForCausalLM", windows: true };
pub(crate) const QWEN3: OfAttention =
    OfAttention { model_type: "qwen3", class: "Qwen3ForCausalLM", windows: true };

fn window(mixer: &Mixer) -> Option<u32> {
    attention_of(mixer).and_then(|attention| attention.window)
}

impl Dialect for OfAttention {
    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let attention = first(stack, attention_of).expect("every layer has attention");
        let config = with(
            common(folder, self.class, self.model_type),
            json!({
                "num_hidden_layers": stack.layers().len(),
                "intermediate_size": stack.layers()[0].ffn.map(|ffn| ffn.width),
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "head_dim": attention.head_width,
                "hidden_act": "silu",
                "rms_norm_eps": EPS,
                "max_position_embeddings": POSITIONS,
                "rope_parameters": { "rope_type": "default", "rope_theta": attention.rope_theta },
                "attention_bias": false,
            }),
        );
        if !self.windows {
            return config;
        }
        let window = first(stack, window);
        let types = layer_types(stack, |mixer| match attention_of(mixer) {
            Some(of) if of.window.is_some() => "sliding_attention",
            _ => "full_attention",
        });
        with(
            config,
            json!({
                "layer_types": types,
                // ministral wants a number where no layer has a window, too
                "sliding_window": window.unwrap_or(POSITIONS),
                "use_sliding_window": window.is_some(),
            }),
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "model.embed_tokens.weight", "model.norm.weight");
        for index in 0..stack.layers().len() {
            let at = format!("model.layers.{index}");
            all.push(norm(stack, index, "mixer_norm", format!("{at}.input_layernorm.weight")));
            all.extend(mixer(
                Library::Transformers,
                stack,
                index,
                &format!("{at}.self_attn."),
                str::to_owned,
            ));
            all.push(norm(
                stack,
                index,
                "ffn_norm",
                format!("{at}.post_attention_layernorm.weight"),
            ));
            let names = ["gate", "up", "down"].map(|part| format!("{at}.mlp.{part}_proj.weight"));
            all.extend(ffn(stack, index, names));
        }
        all
    }
}
