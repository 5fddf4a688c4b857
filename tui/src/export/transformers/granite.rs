//! `granitemoehybrid`: Mamba2 and full attention, and in every layer a SwiGLU, or a mixture of experts with a shared one.

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
        let ffn = stack.layers()[0].ffn.expect("every layer has one");
        let experts = ffn.kind.experts();
        with(
            common(folder, "GraniteMoeHybridForCausalLM", "granitemoehybrid"),
            json!({
                "num_hidden_layers": stack.layers().len(),
                "shared_intermediate_size": ffn.width * experts.map_or(1, |of| of.shared),
                "intermediate_size": ffn.width,
                "num_local_experts": experts.map_or(0, |of| of.experts),
                "num_experts_per_tok": experts.map_or(0, |of| of.per_token),
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
            all.extend(feed_forward(stack, index, &at));
        }
        all
    }
}

/// The FFN of a layer below `at`: one network is the shared expert of theirs.
fn feed_forward(stack: &Architecture, index: usize, at: &str) -> Vec<Theirs> {
    let (d, f) = (u64::from(stack.d_model()), ffn_width(stack, index));
    let ours = format!("layers.{index}.ffn");
    let name = |part: &str| format!("{ours}.{part}.weight");
    let experts = stack.layers()[index].ffn.and_then(|ffn| ffn.kind.experts());
    let (prefix, shared) = experts.map_or(("", f), |of| ("shared.", f * u64::from(of.shared)));
    let [gate, up, down] = ["gate", "up", "down"].map(|part| name(&format!("{prefix}{part}")));
    let mut all = vec![
        Theirs::rows(
            format!("{at}.shared_mlp.input_linear.weight"),
            &[2 * shared, d],
            &[&gate, &up],
        ),
        Theirs::rows(format!("{at}.shared_mlp.output_linear.weight"), &[d, shared], &[&down]),
    ];
    let Some(of) = experts else { return all };
    let (experts, at) = (u64::from(of.experts), format!("{at}.block_sparse_moe"));
    let rows = |theirs: &str, shape: &[u64], ours: &str| {
        Theirs::rows(format!("{at}.{theirs}.weight"), shape, &[&name(ours)])
    };
    all.push(rows("router.layer", &[experts, d], "router"));
    all.push(rows("output_linear", &[experts, d, f], "down"));
    let of_one = (f * d) as usize;
    all.push(Theirs::made(
        format!("{at}.input_linear.weight"),
        &[experts, 2 * f, d],
        &[&name("gate"), &name("up")],
        move |ours| {
            let each = ours[0].chunks_exact(of_one).zip(ours[1].chunks_exact(of_one));
            each.flat_map(|(gate, up)| [gate, up].concat()).collect()
        },
    ));
    all
}
