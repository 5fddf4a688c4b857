//! `granitemoehybrid` without experts: Mamba2 and full attention, SwiGLU in every layer.

use search::Architecture;
use search::foreign::Library;
use search::targets::{attention_of, first, mamba2_of};
use serde_json::{Value, json};

use super::{EPS, POSITIONS, common, ffn_width, layer_types, mixer, norm, outer, with};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;

pub(crate) struct GraniteMoeHybrid;

impl Dialect for GraniteMoeHybrid {
    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let d = stack.d_model();
        let attention = first(stack, attention_of).expect("there is a layer of it");
        // one head of a stack without Mamba2 is twice as wide as the model, as the type wants it
        let [mamba_heads, head_width, state_width] = first(stack, mamba2_of)
            .map_or([1, 2 * d, 16], |of| [of.heads, of.head_width, of.state_width]);
        let types = layer_types(stack, |mixer| {
            if mamba2_of(mixer).is_some() { "linear_attention" } else { "full_attention" }
        });
        with(
            common(folder, "GraniteMoeHybridForCausalLM", "granitemoehybrid"),
            json!({
                "num_hidden_layers": stack.layers().len(),
                "shared_intermediate_size": stack.layers()[0].ffn.map(|ffn| ffn.width),
                "intermediate_size": stack.layers()[0].ffn.map(|ffn| ffn.width),
                "num_local_experts": 0,
                "num_experts_per_tok": 0,
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "attention_multiplier": f64::from(attention.head_width).powf(-0.5),
                "position_embedding_type": if attention.rotary_width() > 0 { "rope" } else { "nope" },
                "rope_parameters": { "rope_type": "default", "rope_theta": attention.rope_theta },
                "max_position_embeddings": POSITIONS,
                "rms_norm_eps": EPS,
                "layer_types": types,
                "mamba_n_heads": mamba_heads,
                "mamba_d_head": head_width,
                "mamba_d_state": state_width,
                "mamba_n_groups": 1,
                "mamba_d_conv": 4,
                "mamba_expand": mamba_heads * head_width / d,
                "mamba_chunk_size": 64,
                "mamba_conv_bias": true,
                "mamba_proj_bias": false,
            }),
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "model.embed_tokens.weight", "model.norm.weight");
        let d = u64::from(stack.d_model());
        for (index, layer) in stack.layers().iter().enumerate() {
            let at = format!("model.layers.{index}");
            let is_mamba = layer.mixer.as_ref().is_some_and(|mixer| mamba2_of(mixer).is_some());
            let module = if is_mamba { "mamba" } else { "self_attn" };
            all.push(norm(stack, index, "mixer_norm", format!("{at}.input_layernorm.weight")));
            all.extend(mixer(
                Library::Transformers,
                stack,
                index,
                &format!("{at}.{module}."),
                str::to_owned,
            ));
            all.push(norm(
                stack,
                index,
                "ffn_norm",
                format!("{at}.post_attention_layernorm.weight"),
            ));
            let (f, ours) = (ffn_width(stack, index), format!("layers.{index}.ffn"));
            let gate_and_up = [format!("{ours}.gate.weight"), format!("{ours}.up.weight")];
            all.push(Theirs::rows(
                format!("{at}.shared_mlp.input_linear.weight"),
                &[2 * f, d],
                &gate_and_up.each_ref().map(String::as_str),
            ));
            all.push(Theirs::rows(
                format!("{at}.shared_mlp.output_linear.weight"),
                &[d, f],
                &[&format!("{ours}.down.weight")],
            ));
        }
        all
    }
}
