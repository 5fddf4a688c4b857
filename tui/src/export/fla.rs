//! Models of flash-linear-attention: one of DeltaNet, Gated DeltaNet and DeltaProduct, and between its layers attention of
//! any number of shapes and windows. They run on GPUs only.

use search::Architecture;
use search::architecture::MixerKind;
use search::foreign::Library;
use search::targets::{attention_of, delta_rule_of, first};
use serde_json::{Value, json};

use super::dialect::Dialect;
use super::folder::Folder;
use super::theirs::Theirs;
use super::transformers::{EPS, POSITIONS, common, ffn, mixer, norm, outer, with};

/// `delta_net`, `gated_deltanet` or `gated_deltaproduct`, by what the stack has.
pub(crate) struct Fla;

/// Model type and class.
fn model(kind: MixerKind) -> (&'static str, &'static str) {
    match kind {
        MixerKind::DeltaNet => ("delta_net", "DeltaNetForCausalLM"),
        MixerKind::GatedDeltaNet => ("gated_deltanet", "GatedDeltaNetForCausalLM"),
        _ => ("gated_deltaproduct", "GatedDeltaProductForCausalLM"),
    }
}

impl Dialect for Fla {
    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let delta = first(stack, delta_rule_of).expect("there is a layer of it");
        let kind = first(stack, |of| delta_rule_of(of).map(|_| of.kind())).expect("of a kind");
        let (model_type, class) = model(kind);
        let config = with(
            common(folder, class, model_type),
            json!({
                "num_hidden_layers": stack.layers().len(),
                "intermediate_size": stack.layers()[0].ffn.map(|ffn| ffn.width),
                "hidden_act": "swish",
                "norm_eps": EPS,
                "max_position_embeddings": POSITIONS,
                "num_heads": delta.heads,
                "conv_size": 4,
                "use_short_conv": delta.short_conv,
                "allow_neg_eigval": delta.negative_eigenvalues,
                "attn": attention(stack),
            }),
        );
        let expand_v = f64::from(delta.value_width) / f64::from(delta.key_width);
        let d = f64::from(stack.d_model());
        with(
            config,
            match kind {
                MixerKind::DeltaNet => json!({
                    "use_gate": delta.output_gate,
                    "expand_k": delta.key_rows() as f64 / d,
                    "expand_v": delta.value_rows() as f64 / d,
                }),
                MixerKind::GatedDeltaNet => json!({
                    "use_gate": delta.output_gate,
                    "head_dim": delta.key_width,
                    "expand_v": expand_v,
                    "num_v_heads": delta.value_heads(),
                }),
                _ => json!({
                    "use_output_gate": delta.output_gate,
                    "use_forget_gate": delta.decay,
                    "head_dim": delta.key_width,
                    "expand_v": expand_v,
                    "num_householder": delta.steps_per_token(),
                }),
            },
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "model.embeddings.weight", "model.norm.weight");
        for index in 0..stack.layers().len() {
            let at = format!("model.layers.{index}");
            all.push(norm(stack, index, "mixer_norm", format!("{at}.attn_norm.weight")));
            all.extend(mixer(Library::Fla, stack, index, &format!("{at}.attn."), str::to_owned));
            all.push(norm(stack, index, "ffn_norm", format!("{at}.mlp_norm.weight")));
            let names = ["gate", "up", "down"].map(|part| format!("{at}.mlp.{part}_proj.weight"));
            all.extend(ffn(stack, index, names));
        }
        all
    }
}

/// The layers with attention, those of one shape together.
fn attention(stack: &Architecture) -> Value {
    let mut shapes: Vec<(search::architecture::Attention, Vec<usize>)> = Vec::new();
    for (index, layer) in stack.layers().iter().enumerate() {
        let Some(shape) = layer.mixer.as_ref().and_then(attention_of) else { continue };
        match shapes.iter_mut().find(|(other, _)| *other == shape) {
            Some((_, layers)) => layers.push(index),
            None => shapes.push((shape, vec![index])),
        }
    }
    let entry = |(of, layers): &(search::architecture::Attention, Vec<usize>)| {
        json!({
            "layers": layers,
            "num_heads": of.heads,
            "num_kv_heads": of.kv_heads,
            "qkv_bias": false,
            "window_size": of.window,
            "rope_theta": of.rope_theta,
        })
    };
    if shapes.is_empty() { Value::Null } else { shapes.iter().map(entry).collect() }
}
