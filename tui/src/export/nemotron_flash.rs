//! `nemotron_flash`, the type of Nemotron-Flash, in the names of NVIDIA's modelling file: DeltaNet, Mamba2, full attention and
//! FFNs, each a layer of its own; where every layer of ours is a mixer and an FFN, two in one of theirs. Its logits are divided by
//! the norms of the head's rows, and its norms of q and k add 1e-6 where ours add 1e-5.

use search::Architecture;
use search::architecture::{FfnKind, Mixer, QkNorm};
use search::foreign::Library;
use search::targets::{
    attention_of, delta_rule_of, first, has_an_ffn_after_every_mixer, mamba2_of,
};
use serde_json::{Value, json};

use super::dialect::{Dialect, Logits};
use super::folder::Folder;
use super::theirs::Theirs;
use super::transformers::{EPS, POSITIONS, common, ffn, ffn_width, mixer, norm, outer, with};

pub(crate) struct NemotronFlash;

/// A layer of theirs, with the number of ours.
struct Layer {
    ours: usize,
    word: &'static str,
    has_ffn: bool,
}

fn word(mixer: &Mixer) -> &'static str {
    match mixer {
        Mixer::Attention(_) => "a",
        Mixer::Mamba2(_) => "m2",
        _ => "deltanet",
    }
}

/// Their layers, first to last.
fn layers(stack: &Architecture) -> Vec<Layer> {
    let together = has_an_ffn_after_every_mixer(stack);
    let mut all = Vec::new();
    for (ours, layer) in stack.layers().iter().enumerate() {
        if let Some(mixer) = &layer.mixer {
            all.push(Layer { ours, word: word(mixer), has_ffn: together });
        }
        if layer.ffn.is_some() && !together {
            all.push(Layer { ours, word: "f", has_ffn: true });
        }
    }
    all
}

impl Dialect for NemotronFlash {
    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let d = stack.d_model();
        let attention = first(stack, attention_of);
        // a stack without attention has the heads of its DeltaNet there, one without Mamba2 those of one that is not there
        let heads = attention
            .map(|of| of.heads)
            .or_else(|| first(stack, delta_rule_of).map(|of| of.heads))
            .unwrap_or(1);
        let width = attention.map_or(d / heads, |of| of.head_width);
        let [expand, head_width, state_width] = first(stack, mamba2_of)
            .map_or([2, 64, 128], |of| {
                [of.heads * of.head_width / d, of.head_width, of.state_width]
            });
        let ffn = stack.layers().iter().find_map(|layer| layer.ffn);
        let together = has_an_ffn_after_every_mixer(stack);
        let words: Vec<&str> = layers(stack).iter().map(|layer| layer.word).collect();
        with(
            common(folder, "NemotronFlashForCausalLM", "nemotron_flash"),
            json!({
                "num_hidden_layers": words.len(),
                "layer_types": words,
                "intermediate_size": ffn.filter(|_| together).map_or(0, |ffn| ffn.width),
                // rounded down to a multiple of 128 after it was multiplied by the model's width
                "ffn_expand_ratio":
                    ffn.filter(|_| !together).map(|ffn| (f64::from(ffn.width) + 0.5) / f64::from(d)),
                "mlp_hidden_act":
                    if ffn.is_some_and(|ffn| ffn.kind == FfnKind::Relu2) { "relu2" } else { "silu" },
                "hidden_act": "silu",
                "num_attention_heads": heads,
                "num_key_value_heads": attention.map_or(heads, |of| of.kv_heads),
                "kq_head_dim": width,
                "v_head_dim": width,
                "kq_norm": if attention.is_some_and(|of| of.qk_norm == QkNorm::Head) { "rms" } else { "none" },
                "rope": attention.is_some_and(|of| of.rotary_width() > 0),
                "rope_theta": attention.map_or(10_000, |of| of.rope_theta),
                "rope_type": null,
                "sliding_window": null,
                "global_attn_idx": [],
                "max_position_embeddings": POSITIONS,
                "rms_norm_eps": EPS,
                "num_memory_tokens": stack.meta_tokens(),
                "mamba_expand": expand,
                "mamba2_headdim": head_width,
                "mamba_d_state": state_width,
                "mamba_d_conv": 4,
                "d_conv": 4,
            }),
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "model.embed_tokens.weight", "model.final_layernorm.weight");
        if stack.meta_tokens() > 0 {
            let shape = [u64::from(stack.meta_tokens()), u64::from(stack.d_model())];
            all.push(Theirs::rows("model.memory_tokens", &shape, &["meta.weight"]));
        }
        for (theirs, Layer { ours, word, has_ffn }) in layers(stack).into_iter().enumerate() {
            let at = format!("model.layers.{theirs}");
            let (module, library) = match word {
                "a" => ("self_attn", Library::Transformers),
                "m2" => ("mamba", Library::Transformers),
                _ => ("gla", Library::Fla),
            };
            if word != "f" {
                all.push(norm(stack, ours, "mixer_norm", format!("{at}.input_layernorm.weight")));
                all.extend(mixer(library, stack, ours, &format!("{at}.{module}."), str::to_owned));
            }
            if has_ffn {
                all.push(norm(stack, ours, "ffn_norm", format!("{at}.pre_ffn_layernorm.weight")));
                all.extend(feed_forward(stack, ours, &format!("{at}.ffn")));
            }
        }
        all
    }

    fn logits(&self) -> Logits {
        Logits::Divided
    }
}

fn feed_forward(stack: &Architecture, index: usize, at: &str) -> Vec<Theirs> {
    let names = ["gate", "up", "down"].map(|part| format!("{at}.{part}_proj.weight"));
    if stack.layers()[index].ffn.is_some_and(|ffn| ffn.kind == FfnKind::SwiGlu) {
        return ffn(stack, index, names);
    }
    let (d, f) = (u64::from(stack.d_model()), ffn_width(stack, index));
    let own = |part: &str| format!("layers.{index}.ffn.{part}.weight");
    let [_, up, down] = names;
    vec![Theirs::rows(up, &[f, d], &[&own("up")]), Theirs::rows(down, &[d, f], &[&own("down")])]
}
