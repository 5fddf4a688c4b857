//! lm-engine's `gpt_base`: a list of mixers and one of FFNs, each with sizes of its own; with weights, as its trainer and its
//! tools for transformers load them.

use search::Architecture;
use search::architecture::{Attention, CONV_WIDTH, Ffn, FfnKind, Mixer};
use search::foreign::Library;
use search::targets::{attention_of, first};
use serde_json::{Value, json};

use super::dialect::Dialect;
use super::folder::Folder;
use super::theirs::Theirs;
use super::transformers::{EPS, mixer, norm, outer};
use super::yaml;

pub(crate) struct LmEngine;

/// A mixer in its words.
fn sequence_mixer(mixer: &Mixer) -> Value {
    match mixer {
        Mixer::Attention(of) => json!({
            "sequence_mixer_type": "softmax_attention",
            "num_attention_heads": of.heads,
            "num_key_value_heads": of.kv_heads,
            "head_dim": of.head_width,
            "attention_gate": of.output_gate,
            // the positions before the current one
            "sliding_window": of.window.map(|window| window - 1),
            "add_bias": false,
        }),
        Mixer::Delta(of) => json!({
            "sequence_mixer_type": "gated_deltanet",
            "k_head_dim": of.key_width,
            "v_head_dim": of.value_width,
            "num_k_heads": of.heads,
            "num_v_heads": of.value_heads(),
            "use_gate": of.output_gate,
            "attention_multiplier": null,
            "allow_neg_eigval": of.negative_eigenvalues,
            "kernel_size": CONV_WIDTH,
        }),
        Mixer::Mamba2(of) => json!({
            "sequence_mixer_type": "mamba2",
            "state_size": of.state_width,
            "intermediate_size": of.heads * of.head_width,
            "num_heads": of.heads,
            "conv_kernel_size": CONV_WIDTH,
            "num_groups": 1,
            "chunk_size": 64,
            "activation_function": "silu",
            "normalization_function": "rmsnorm",
            "use_conv_bias": true,
            "add_bias": false,
        }),
        _ => unreachable!("an obstacle"),
    }
}

/// An FFN in its words.
fn mlp(ffn: Ffn) -> Value {
    let activation = match ffn.kind {
        FfnKind::SwiGlu => "swiglu",
        FfnKind::Relu2 => "relu2",
        FfnKind::Moe(_) => unreachable!("an obstacle"),
    };
    json!({
        "mlp_type": "MLP",
        "intermediate_size": ffn.width,
        "activation_function": activation,
        "add_bias": false,
    })
}

/// `pretrained_config` of a stack.
fn config(stack: &Architecture) -> Value {
    let turning = first(stack, |mixer| attention_of(mixer).filter(|of| of.rotary_width() > 0));
    let layers = stack.layers();
    json!({
        "model_type": "gpt_base",
        "vocab_size": stack.vocab(),
        "hidden_size": stack.d_model(),
        "num_layers": layers.len(),
        "tie_word_embeddings": stack.tied_embeddings(),
        "normalization_function": "rmsnorm",
        "layer_norm_epsilon": EPS,
        // its table of positions; it grows
        "max_position_embeddings": 8192,
        "position_embedding_type": if turning.is_some() { "rope" } else { "nope" },
        "rope_theta": turning.map_or(10_000, |of| of.rope_theta),
        "rope_dim": turning.map(|of| of.rotary_width()),
        "rope_scaling": null,
        "initializer_range": 0.02,
        "init_method": "normal",
        "embedding_init_method": "normal",
        "use_depth_scaled_init": true,
        "m_emb": null,
        "m_width": null,
        "m_residual": null,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "sequence_mixer_blocks":
            layers.iter().filter_map(|layer| layer.mixer.as_ref()).map(sequence_mixer).collect::<Vec<_>>(),
        "mlp_blocks": layers.iter().filter_map(|layer| layer.ffn).map(mlp).collect::<Vec<_>>(),
    })
}

impl Dialect for LmEngine {
    fn config(&self, folder: &Folder) -> Value {
        let mut config = config(folder.weights.stack());
        config["architectures"] = json!(["GPTBaseForCausalLM"]);
        config
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "transformer.wte.weight", "transformer.ln_f.weight");
        let d = u64::from(stack.d_model());
        for (index, layer) in stack.layers().iter().enumerate() {
            let at = format!("transformer.h.{index}");
            all.push(norm(stack, index, "mixer_norm", format!("{at}.ln_1.weight")));
            all.push(norm(stack, index, "ffn_norm", format!("{at}.ln_2.weight")));
            let prefix = format!("{at}.sequence_mixer.");
            match layer.mixer.as_ref() {
                Some(Mixer::Attention(of)) => all.extend(attention(&prefix, index, d, of)),
                Some(Mixer::Delta(_)) => all.extend(delta(&prefix, stack, index)),
                _ => {
                    let inside = |name: &str| match name {
                        "A_log" | "dt_bias" => format!("decay_gate.{name}"),
                        _ => name.to_owned(),
                    };
                    all.extend(mixer(Library::Transformers, stack, index, &prefix, inside));
                }
            }
            let ffn = layer.ffn.expect("every layer has one");
            all.extend(feed_forward(&format!("{at}.mlp_block."), index, d, ffn));
        }
        all
    }

    fn files(&self, folder: &Folder) -> Vec<(String, String)> {
        let own = json!({ "model_args": {
            "pretrained_config": config(folder.weights.stack()),
        }});
        vec![("model_args.yml".to_owned(), yaml::text(&own, 0))]
    }
}

/// Of each key head its queries, the key, the value, the gates; of the rows of q and k the ones that turn last.
fn attention(prefix: &str, index: usize, d: u64, of: &Attention) -> Vec<Theirs> {
    let own = |part: &str| format!("layers.{index}.mixer.{part}.weight");
    let [heads, kv_heads, width] = [of.heads, of.kv_heads, of.head_width].map(u64::from);
    let (of_names, gates): (Vec<String>, u64) = if of.output_gate {
        (["q", "k", "v", "g"].map(own).to_vec(), heads)
    } else {
        (["q", "k", "v"].map(own).to_vec(), 0)
    };
    let of_names: Vec<&str> = of_names.iter().map(String::as_str).collect();
    let (one, turned) = ((width * d) as usize, (u64::from(of.rotary_width()) * d) as usize);
    let (key_heads, group) = (of.kv_heads as usize, (of.heads / of.kv_heads) as usize);
    let rows = (heads + 2 * kv_heads + gates) * width;
    let all = Theirs::made(format!("{prefix}c_attn.weight"), &[rows, d], &of_names, move |ours| {
        let of_head = |part: usize, head: usize| &ours[part][head * one..][..one];
        let turned_last = |w: &[f32]| [&w[turned..], &w[..turned]].concat();
        let mut rows = Vec::new();
        for key in 0..key_heads {
            let queries = key * group..(key + 1) * group;
            queries.clone().for_each(|head| rows.extend(turned_last(of_head(0, head))));
            rows.extend(turned_last(of_head(1, key)));
            rows.extend(of_head(2, key));
            if ours.len() > 3 {
                queries.for_each(|head| rows.extend(of_head(3, head)));
            }
        }
        rows
    });
    vec![all, Theirs::rows(format!("{prefix}c_proj.weight"), &[d, heads * width], &[&own("o")])]
}

/// q, k and v in one matrix, what says how to decay and how much to write in another.
fn delta(prefix: &str, stack: &Architecture, index: usize) -> Vec<Theirs> {
    let Some(Mixer::Delta(of)) = stack.layers()[index].mixer else {
        unreachable!("only asked of such layers")
    };
    let d = u64::from(stack.d_model());
    let own = |part: &str| format!("layers.{index}.mixer.{part}");
    let rows = |name: &str, shape: &[u64], parts: &[&str]| {
        let parts: Vec<String> = parts.iter().map(|part| own(part)).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Theirs::rows(format!("{prefix}{name}"), shape, &parts)
    };
    let heads = u64::from(of.value_heads());
    let convs = ["q_conv.weight", "k_conv.weight", "v_conv.weight"];
    vec![
        rows("qkv_proj.weight", &[of.channels(), d], &["q.weight", "k.weight", "v.weight"]),
        rows("ab_proj.weight", &[2 * heads, d], &["a.weight", "b.weight"]),
        rows("decay_gate.A_log", &[heads], &["A_log"]),
        rows("decay_gate.dt_bias", &[heads], &["dt_bias"]),
        rows("qkv_conv1d.weight", &[of.channels(), 1, CONV_WIDTH], &convs),
        rows("o_norm.weight", &[of.value_width.into()], &["norm.weight"]),
        rows("o_proj.weight", &[d, of.value_rows()], &["o.weight"]),
    ]
}

/// Rows of gate and up in turn.
fn feed_forward(prefix: &str, index: usize, d: u64, ffn: Ffn) -> Vec<Theirs> {
    let own = |part: &str| format!("layers.{index}.ffn.{part}.weight");
    let (width, row) = (u64::from(ffn.width), d as usize);
    let name = format!("{prefix}c_fc.weight");
    let first = match ffn.kind {
        FfnKind::SwiGlu => {
            Theirs::made(name, &[2 * width, d], &[&own("gate"), &own("up")], move |ours| {
                let rows = ours[0].chunks_exact(row).zip(ours[1].chunks_exact(row));
                rows.flat_map(|(gate, up)| [gate, up].concat()).collect()
            })
        }
        FfnKind::Relu2 => Theirs::rows(name, &[width, d], &[&own("up")]),
        FfnKind::Moe(_) => unreachable!("an obstacle"),
    };
    vec![first, Theirs::rows(format!("{prefix}c_proj.weight"), &[d, width], &[&own("down")])]
}
