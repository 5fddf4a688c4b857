//! `qwen3_5_text`: Gated DeltaNet and full attention, SwiGLU in every layer.
//!
//! Qwen3.5's attention has an output gate o ⊙ σ(W_g x). Where ours has none it is written with W_g = 0: σ(0) = ½ everywhere,
//! and o is written twice as large, both exact in floating point. A training that goes on from there learns the gate. Its
//! norms multiply by 1 + w, but the one after the delta rule.

use search::Architecture;
use search::architecture::{Attention, Delta, Layer, Mixer, MixerKind, QkNorm};
use serde_json::{Value, json};

use super::{
    AttentionForms, EPS, POSITIONS, attention_of, common, ffn, first, layer_types, meta_tokens,
    mixer_and_ffn, no_attention, other_attention, other_mixers, other_shapes, selective_rope, with,
};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;
use crate::export::verdict::Obstacle;

pub(crate) struct Qwen35;

/// The shape of a Gated DeltaNet.
pub(crate) fn delta_of(mixer: &Mixer) -> Option<Delta> {
    match mixer {
        Mixer::Delta(delta) if mixer.kind() == MixerKind::GatedDeltaNet => Some(*delta),
        _ => None,
    }
}

pub(super) fn is_ours(mixer: &Mixer) -> bool {
    delta_of(mixer).is_some() || attention_of(mixer).is_some_and(|of| of.window.is_none())
}

/// An option of Gated DeltaNet that layers have and the type has not.
pub(super) fn option(
    stack: &Architecture,
    what: &str,
    change: &str,
    has: impl Fn(&Delta) -> bool,
) -> Option<Obstacle> {
    Obstacle::of_layers(stack, what, Some(change), |layer: &Layer| {
        layer.mixer.as_ref().and_then(delta_of).is_some_and(|delta| has(&delta))
    })
}

impl Dialect for Qwen35 {
    fn obstacles(&self, stack: &Architecture) -> Vec<Obstacle> {
        let mut found = other_mixers(stack, "Gated DeltaNet and full attention", is_ours);
        found.extend(mixer_and_ffn(stack));
        found.extend(other_shapes(stack, "Gated DeltaNet", |mixer| {
            delta_of(mixer).map(|of| (of.heads, of.key_width, of.value_width, of.value_groups))
        }));
        found.extend(other_attention(stack));
        let forms = AttentionForms {
            output_gate: true,
            turns: |percent| percent > 0,
            turning: "on a part of each head",
            ..AttentionForms::plain(QkNorm::Head)
        };
        found.extend(forms.obstacles(stack));
        let gate = "no output gate, which this type has";
        found.extend(option(stack, gate, "output_gate = true", |of| !of.output_gate));
        let negative = "negative eigenvalues, which this type has not";
        found.extend(option(stack, negative, "negative_eigenvalues = false", |of| {
            of.negative_eigenvalues
        }));
        let conv = "no short convolutions, which this type has";
        found.extend(option(stack, conv, "short_conv = true", |of| !of.short_conv));
        found.extend(selective_rope(stack));
        found.extend(no_attention(stack));
        found.extend(meta_tokens(stack));
        found
    }

    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let attention = first(stack, attention_of).expect("there is a layer of it");
        let head_width = attention.head_width;
        let delta = first(stack, delta_of).unwrap_or(Delta::gated(1, 1, 1));
        let types = layer_types(stack, |mixer| {
            if delta_of(mixer).is_some() { "linear_attention" } else { "full_attention" }
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
