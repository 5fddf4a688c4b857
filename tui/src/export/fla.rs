//! Models of flash-linear-attention: one of DeltaNet, Gated DeltaNet and DeltaProduct, and between its layers attention of
//! any number of shapes and windows. They run on GPUs only.

use search::Architecture;
use search::architecture::{Delta, MixerKind, QkNorm};
use search::foreign::Library;
use serde_json::{Value, json};

use super::dialect::Dialect;
use super::folder::Folder;
use super::theirs::Theirs;
use super::transformers::{
    AttentionForms, EPS, POSITIONS, attention_of, common, ffn, first, meta_tokens, mixer,
    mixer_and_ffn, norm, other_mixers, other_shapes, outer, selective_rope, with,
};
use super::verdict::Obstacle;

/// `delta_net`, `gated_deltanet` or `gated_deltaproduct`, by what the stack has.
pub(crate) struct Fla;

/// The shape of a mixer that one of these models has.
fn delta_of(mixer: &search::architecture::Mixer) -> Option<Delta> {
    match mixer {
        search::architecture::Mixer::Delta(delta) if delta.levels.is_none() => Some(*delta),
        _ => None,
    }
}

/// Model type and class.
fn model(kind: MixerKind) -> (&'static str, &'static str) {
    match kind {
        MixerKind::DeltaNet => ("delta_net", "DeltaNetForCausalLM"),
        MixerKind::GatedDeltaNet => ("gated_deltanet", "GatedDeltaNetForCausalLM"),
        _ => ("gated_deltaproduct", "GatedDeltaProductForCausalLM"),
    }
}

impl Dialect for Fla {
    fn obstacles(&self, stack: &Architecture) -> Vec<Obstacle> {
        let d = stack.d_model();
        let mut found = other_mixers(
            stack,
            "one of DeltaNet, Gated DeltaNet, DeltaProduct, and attention",
            |of| delta_of(of).is_some() || attention_of(of).is_some(),
        );
        found.extend(mixer_and_ffn(stack));
        found.extend(other_shapes(stack, "the mixer that is no attention", delta_of));
        if first(stack, delta_of).is_none() {
            let what = "no DeltaNet, Gated DeltaNet or DeltaProduct, of which a model has a layer";
            found.push(Obstacle::of_model(what, None));
        }
        let of_delta = |what: &str, change: &str, has: &dyn Fn(MixerKind, &Delta) -> bool| {
            Obstacle::of_layers(stack, what, Some(change), |layer| {
                let mixer = layer.mixer.as_ref();
                mixer.is_some_and(|m| delta_of(m).is_some_and(|delta| has(m.kind(), &delta)))
            })
        };
        found.extend(of_delta(
            "several value heads for a key head, which only Gated DeltaNet has",
            "value_groups = 1",
            &|kind, delta| delta.value_groups > 1 && kind != MixerKind::GatedDeltaNet,
        ));
        found.extend(of_delta(
            "no short convolutions, which only Gated DeltaNet may leave out",
            "short_conv = true",
            &|kind, delta| !delta.short_conv && kind != MixerKind::GatedDeltaNet,
        ));
        found.extend(AttentionForms::plain(QkNorm::None).each(stack));
        found.extend(Obstacle::of_layers(
            stack,
            format!("heads that are not {d} wide together"),
            Some("heads = \"auto\""),
            |layer| {
                let attention = layer.mixer.as_ref().and_then(attention_of);
                attention.is_some_and(|of| of.heads * of.head_width != d)
            },
        ));
        found.extend(selective_rope(stack));
        found.extend(meta_tokens(stack));
        found
    }

    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let delta = first(stack, delta_of).expect("there is a layer of it");
        let kind = first(stack, |of| delta_of(of).map(|_| of.kind())).expect("of a kind");
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
