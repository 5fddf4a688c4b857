//! `qwen3_5_text`: Gated DeltaNet and full attention, SwiGLU in every layer.
//!
//! Qwen3.5's attention has an output gate o ⊙ σ(W_g x). Where ours has none it is written with W_g = 0: σ(0) = ½ everywhere,
//! and o is written twice as large, both exact in floating point. A training that goes on from there learns the gate. Its
//! norms multiply by 1 + w, but the one after the delta rule.

use search::Architecture;
use search::architecture::{Attention, Delta, Mixer};
use search::targets::{attention_of, first, gated_delta_of};
use serde_json::{Value, json};

use super::{EPS, POSITIONS, common, ffn, layer_types, with};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;

pub(crate) struct Qwen35;

impl Dialect for Qwen35 {
    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let attention = first(stack, attention_of).expect("there is a layer of it");
        let head_width = attention.head_width;
        let delta = first(stack, gated_delta_of).unwrap_or(Delta::gated(1, 1, 1));
        let types = layer_types(stack, |mixer| {
            if gated_delta_of(mixer).is_some() { "linear_attention" } else { "full_attention" }
        });
        with(
            common(folder, "Qwen3_5ForCausalLM", "qwen3_5_text"),
            json!({
                "num_hidden_layers": stack.layers().len(),
                "intermediate_size": stack.layers()[0].ffn.map(|ffn| ffn.width),
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "head_dim": head_width,
                "hidden_act": "silu",
                "rms_norm_eps": EPS,
                "max_position_embeddings": POSITIONS,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": attention.rope_theta,
                    "partial_rotary_factor": f64::from(attention.rotary_percent) / 100.0,
                    "mrope_section": [attention.rotary_width() / 2, 0, 0],
                    "mrope_interleaved": true,
                },
                "partial_rotary_factor": 1.0,
                "attention_bias": false,
                "layer_types": types,
                "linear_conv_kernel_dim": 4,
                "linear_num_key_heads": delta.heads,
                "linear_num_value_heads": delta.value_heads(),
                "linear_key_head_dim": delta.key_width,
                "linear_value_head_dim": delta.value_width,
            }),
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let (d, vocab) = (u64::from(stack.d_model()), u64::from(stack.vocab()));
        let norm = |name: &str, ours: &str| less_one(name, d, ours);
        let mut all = vec![
            Theirs::rows("model.embed_tokens.weight", &[vocab, d], &["embedding.weight"]),
            norm("model.norm.weight", "final_norm.weight"),
        ];
        if !stack.tied_embeddings() {
            all.push(Theirs::rows("lm_head.weight", &[vocab, d], &["head.weight"]));
        }
        for (index, layer) in stack.layers().iter().enumerate() {
            let (at, ours) = (format!("model.layers.{index}"), format!("layers.{index}"));
            all.push(norm(
                &format!("{at}.input_layernorm.weight"),
                &format!("{ours}.mixer_norm.weight"),
            ));
            all.push(norm(
                &format!("{at}.post_attention_layernorm.weight"),
                &format!("{ours}.ffn_norm.weight"),
            ));
            let names = ["gate", "up", "down"].map(|part| format!("{at}.mlp.{part}_proj.weight"));
            all.extend(ffn(stack, index, names));
            let ours = format!("{ours}.mixer");
            match &layer.mixer {
                Some(Mixer::Delta(delta)) => {
                    all.extend(delta_tensors(&format!("{at}.linear_attn"), &ours, d, delta));
                }
                Some(Mixer::Attention(of)) => {
                    all.extend(attention_tensors(&format!("{at}.self_attn"), &ours, d, of));
                }
                _ => unreachable!("an obstacle"),
            }
        }
        all
    }
}

/// The weight of a norm that multiplies by 1 + w.
fn less_one(name: &str, width: u64, ours: &str) -> Theirs {
    Theirs::made(name, &[width], &[ours], |ours| ours[0].iter().map(|w| w - 1.0).collect())
}

fn delta_tensors(at: &str, ours: &str, d: u64, delta: &Delta) -> Vec<Theirs> {
    let own = |part: &str| format!("{ours}.{part}");
    let (values, heads) = (delta.value_rows(), u64::from(delta.value_heads()));
    let qkv = ["q.weight", "k.weight", "v.weight"].map(own);
    let convs = ["q_conv.weight", "k_conv.weight", "v_conv.weight"].map(own);
    let rows = |name: &str, shape: &[u64], of: &[String]| {
        let of: Vec<&str> = of.iter().map(String::as_str).collect();
        Theirs::rows(format!("{at}.{name}"), shape, &of)
    };
    vec![
        rows("in_proj_qkv.weight", &[delta.channels(), d], &qkv),
        rows("conv1d.weight", &[delta.channels(), 1, 4], &convs),
        rows("in_proj_z.weight", &[values, d], &[own("g.weight")]),
        rows("in_proj_b.weight", &[heads, d], &[own("b.weight")]),
        rows("in_proj_a.weight", &[heads, d], &[own("a.weight")]),
        rows("A_log", &[heads], &[own("A_log")]),
        rows("dt_bias", &[heads], &[own("dt_bias")]),
        rows("norm.weight", &[delta.value_width.into()], &[own("norm.weight")]),
        rows("out_proj.weight", &[d, values], &[own("o.weight")]),
    ]
}

fn attention_tensors(at: &str, ours: &str, d: u64, of: &Attention) -> Vec<Theirs> {
    let [h, kv, k] = [of.heads, of.kv_heads, of.head_width].map(u64::from);
    let own = |part: &str| format!("{ours}.{part}.weight");
    let one_head = (k * d) as usize;
    let (q, gate) = (own("q"), own("g"));
    let q_and_gate: &[&str] = if of.output_gate { &[&q, &gate] } else { &[&q] };
    let o_factor = if of.output_gate { 1.0 } else { 2.0 };
    vec![
        // of each head first q, then the gate
        Theirs::made(format!("{at}.q_proj.weight"), &[2 * h * k, d], q_and_gate, move |ours| {
            let zeros = vec![0.0; ours[0].len()];
            let gates = ours.get(1).unwrap_or(&zeros).chunks_exact(one_head);
            let heads = ours[0].chunks_exact(one_head).zip(gates);
            heads.flat_map(|(q, gate)| [q, gate].concat()).collect()
        }),
        Theirs::rows(format!("{at}.k_proj.weight"), &[kv * k, d], &[&own("k")]),
        Theirs::rows(format!("{at}.v_proj.weight"), &[kv * k, d], &[&own("v")]),
        Theirs::made(format!("{at}.o_proj.weight"), &[d, h * k], &[&own("o")], move |ours| {
            ours[0].iter().map(|w| o_factor * w).collect()
        }),
        less_one(&format!("{at}.q_norm.weight"), k, &own("q_norm")),
        less_one(&format!("{at}.k_norm.weight"), k, &own("k_norm")),
    ]
}
