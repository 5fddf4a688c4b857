//! Types of attention alone: `llama`, `ministral` with windows, `qwen3` with windows and norms of q and k.

use search::Architecture;
use search::architecture::Mixer;
use search::foreign::Library;
use serde_json::{Value, json};

use super::{
    EPS, POSITIONS, THETA, attention_of, common, ffn, first, layer_types, meta_tokens, mixer,
    mixer_and_ffn, norm, other_attention, other_mixers, other_shapes, outer, selective_rope, with,
};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;
use crate::export::verdict::Obstacle;

/// A type whose layers are attention and SwiGLU.
pub(crate) struct OfAttention {
    model_type: &'static str,
    class: &'static str,
    /// Whether it may have windows; whether each head's q and k are normed.
    windows: bool,
    qk_norm: bool,
}

pub(crate) const LLAMA: OfAttention =
    OfAttention { model_type: "llama", class: "LlamaForCausalLM", windows: false, qk_norm: false };
pub(crate) const MINISTRAL: OfAttention = OfAttention {
    model_type: "ministral",
    class: "MinistralForCausalLM",
    windows: true,
    qk_norm: false,
};
pub(crate) const QWEN3: OfAttention =
    OfAttention { model_type: "qwen3", class: "Qwen3ForCausalLM", windows: true, qk_norm: true };

fn window(mixer: &Mixer) -> Option<u32> {
    attention_of(mixer).and_then(|attention| attention.window)
}

impl Dialect for OfAttention {
    fn obstacles(&self, stack: &Architecture) -> Vec<Obstacle> {
        let has = if self.windows { "full and windowed attention" } else { "full attention" };
        let mut found = other_mixers(stack, has, |mixer| {
            attention_of(mixer).is_some_and(|of| self.windows || of.window.is_none())
        });
        found.extend(mixer_and_ffn(stack));
        found.extend(other_attention(stack));
        if self.windows {
            found.extend(other_shapes(stack, "window", window));
        }
        let (what, change) = if self.qk_norm {
            ("attention without norms of q and k, which this type has", "qk_norm = true")
        } else {
            ("norms of q and k, which this type has not", "qk_norm = false, or the type qwen3")
        };
        found.extend(Obstacle::of_layers(stack, what, Some(change), |layer| {
            layer.mixer.as_ref().and_then(attention_of).is_some_and(|of| of.qk_norm != self.qk_norm)
        }));
        found.extend(selective_rope(stack));
        found.extend(meta_tokens(stack));
        found
    }

    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let attention = first(stack, attention_of).expect("every layer has attention");
        let config = with(
            common(folder, self.class, self.model_type),
            json!({
                "num_hidden_layers": stack.layers().len(),
                "intermediate_size": stack.layers()[0].ffn_width,
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "head_dim": attention.head_width,
                "hidden_act": "silu",
                "rms_norm_eps": EPS,
                "max_position_embeddings": POSITIONS,
                "rope_parameters": { "rope_type": "default", "rope_theta": THETA },
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
