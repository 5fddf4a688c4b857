//! Types that transformers has built in: a stack that fits one exactly loads without code of ours.
//!
//! One file a type says what it can hold; here is what they have in common. Names of a mixer's tensors are those of
//! [`search::foreign`], by which the goldens prove our mixers equal to these types'.

mod attention;
mod granite;
mod lfm2;
mod mamba;
mod nemotron_h;
mod olmo_hybrid;
mod qwen3_5;

use search::Architecture;
use search::architecture::{Attention, FfnKind, Layer, Mixer, QkNorm};
use search::foreign::{Library, places};
use serde_json::{Value, json};

pub(super) use attention::{LLAMA, MINISTRAL, QWEN3};
pub(super) use granite::GraniteMoeHybrid;
pub(super) use lfm2::{Lfm2, taps};
pub(super) use mamba::{Mamba2, mamba2_of};
pub(super) use nemotron_h::NemotronH;
pub(super) use olmo_hybrid::OlmoHybrid;
pub(super) use qwen3_5::{Qwen35, delta_of};

use super::folder::Folder;
use super::theirs::Theirs;
use super::verdict::Obstacle;

/// Positions for which configs promise that rotary positions work: they know no end.
pub(super) const POSITIONS: u32 = 1 << 20;

/// Added to the mean square of every RMSNorm of ours.
pub(super) const EPS: f64 = 1e-5;

/// What every config says.
pub(super) fn common(folder: &Folder, class: &str, model_type: &str) -> Value {
    let stack = folder.weights.stack();
    json!({
        "architectures": [class],
        "model_type": model_type,
        "dtype": folder.element.torch_name(),
        "vocab_size": stack.vocab(),
        "hidden_size": stack.d_model(),
        "tie_word_embeddings": stack.tied_embeddings(),
        "bos_token_id": null,
        "eos_token_id": null,
        "pad_token_id": null,
        "use_cache": true,
        "deltafront": { "text": stack.to_string(), "id": stack.id() },
    })
}

/// `config` with more keys.
pub(super) fn with(mut config: Value, more: Value) -> Value {
    if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
        config.extend(more);
    }
    config
}

/// What no built-in type has: meta tokens.
pub(super) fn meta_tokens(stack: &Architecture) -> Option<Obstacle> {
    (stack.meta_tokens() > 0).then(|| {
        Obstacle::of_model(
            format!("{} meta tokens, and no built-in type has any", stack.meta_tokens()),
            Some("train it with meta_tokens = 0"),
        )
    })
}

/// Layers whose mixer is none of those that a type has.
pub(super) fn other_mixers(
    stack: &Architecture,
    has: &str,
    is_known: impl Fn(&Mixer) -> bool,
) -> Vec<Obstacle> {
    let mut kinds: Vec<_> = stack
        .layers()
        .iter()
        .filter_map(|layer| layer.mixer.filter(|mixer| !is_known(mixer)).map(|mixer| mixer.kind()))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let of_kind = |kind| {
        let what =
            format!("{}, and this type has {has}", search::architecture::MixerKind::title(kind));
        Obstacle::of_layers(stack, what, None, |layer| {
            layer.mixer.is_some_and(|mixer| mixer.kind() == kind)
        })
    };
    kinds.into_iter().filter_map(of_kind).collect()
}

/// Layers of attention of another shape than the first's.
pub(super) fn other_attention(stack: &Architecture) -> Option<Obstacle> {
    let shape = |of: Attention| (of.heads, of.kv_heads, of.head_width);
    other_shapes(stack, "attention", |mixer| attention_of(mixer).map(shape))
}

/// What attention of a type has beside its sizes, in every layer.
pub(super) struct AttentionForms {
    /// The norm of q and k.
    pub(super) qk_norm: QkNorm,
    /// Whether it may have an output gate.
    pub(super) output_gate: bool,
    /// Whether its layers have their norms behind attention and FFN.
    pub(super) norm_after: bool,
    /// Whether so much of a head may turn, in hundredths, …
    pub(super) turns: fn(u32) -> bool,
    /// … in words.
    pub(super) turning: &'static str,
}

impl AttentionForms {
    /// Rotary positions on whole heads, and no gate.
    pub(super) const fn plain(qk_norm: QkNorm) -> Self {
        Self {
            qk_norm,
            output_gate: false,
            norm_after: false,
            turns: |percent| percent == 100,
            turning: "on whole heads",
        }
    }

    /// Attention of other forms than these, and layers whose positions are not the first's.
    pub(super) fn obstacles(&self, stack: &Architecture) -> Vec<Obstacle> {
        let mut found = self.each(stack);
        let positions = |of: &Attention| (of.rotary_percent, of.rope_theta);
        let first = first(stack, attention_of);
        found.extend(Obstacle::of_layers(
            stack,
            "other rotary positions than attention before it, and this type has one kind",
            first
                .map(|of| {
                    format!(
                        "rotary_percent = {}, rope_theta = {}",
                        of.rotary_percent, of.rope_theta
                    )
                })
                .as_deref(),
            |layer| {
                let of = layer.mixer.as_ref().and_then(attention_of);
                of.is_some_and(|of| first.is_some_and(|first| positions(&of) != positions(&first)))
            },
        ));
        found
    }

    /// Attention of other forms than these.
    pub(super) fn each(&self, stack: &Architecture) -> Vec<Obstacle> {
        let mut found = Vec::new();
        let mut refuse = |what: &str, change: &str, has: &dyn Fn(&Attention) -> bool| {
            found.extend(Obstacle::of_layers(stack, what, Some(change), |layer| {
                layer.mixer.as_ref().and_then(attention_of).is_some_and(|of| has(&of))
            }));
        };
        match self.qk_norm {
            QkNorm::None => {
                let what = "norms of q and k, which this type has not";
                refuse(what, "qk_norm = false", &|of| of.qk_norm != QkNorm::None);
            }
            QkNorm::Head => {
                let what = "attention without norms of q and k, which this type has";
                refuse(what, "qk_norm = true", &|of| of.qk_norm == QkNorm::None);
                let what = "norms of q and k over all heads, and this type norms each head";
                refuse(what, "qk_norm = true", &|of| of.qk_norm == QkNorm::Whole);
            }
            QkNorm::Whole => {
                let what = "attention without norms of q and k over all heads, which this type has";
                refuse(what, "qk_norm = \"whole\"", &|of| of.qk_norm != QkNorm::Whole);
            }
        }
        if !self.output_gate {
            let what = "an output gate, which this type has not";
            refuse(what, "output_gate = false", &|of| of.output_gate);
        }
        let (what, change) = if self.norm_after {
            (
                "norms before attention and FFN, and this type's stand behind them",
                "norm_after = true",
            )
        } else {
            (
                "norms behind attention and FFN, and this type's stand before them",
                "norm_after = false",
            )
        };
        refuse(what, change, &|of| of.norm_after != self.norm_after);
        let what = format!("other rotary positions than this type has, which are {}", self.turning);
        let change = (0..=100).rev().find(|&percent| (self.turns)(percent)).unwrap_or(100);
        refuse(&what, &format!("rotary_percent = {change}"), &|of| {
            !(self.turns)(of.rotary_percent)
        });
        found
    }
}

/// Layers of attention whose heads are together not as wide as the model.
pub(super) fn other_head_widths(stack: &Architecture) -> Option<Obstacle> {
    let d = stack.d_model();
    Obstacle::of_layers(
        stack,
        format!("heads that are not {d} wide together"),
        Some("heads = \"auto\""),
        |layer| {
            let attention = layer.mixer.as_ref().and_then(attention_of);
            attention.is_some_and(|of| of.heads * of.head_width != d)
        },
    )
}

/// Layers without a mixer or without an FFN, FFNs of other widths than the first, and other FFNs than SwiGLU.
pub(super) fn mixer_and_ffn(stack: &Architecture) -> Vec<Obstacle> {
    let width = stack.layers().iter().find_map(|layer| layer.ffn.map(|ffn| ffn.width));
    let wanted = width.map_or(String::new(), |width| format!("an FFN of {width} after it"));
    let change = (!wanted.is_empty()).then_some(wanted.as_str());
    [
        Obstacle::of_layers(
            stack,
            "no mixer, and this type has one in every layer",
            None,
            |layer| layer.mixer.is_none(),
        ),
        Obstacle::of_layers(
            stack,
            "no FFN, and this type has one in every layer",
            change,
            |layer| layer.ffn.is_none(),
        ),
        Obstacle::of_layers(
            stack,
            "an FFN of another width, and this type has one width",
            width.map(|width| format!("ffn({width})")).as_deref(),
            |layer| layer.ffn.is_some_and(|ffn| Some(ffn.width) != width),
        ),
        Obstacle::of_layers(
            stack,
            "an FFN that is no SwiGLU, and this type's are",
            Some("SwiGLU"),
            |layer| layer.ffn.is_some_and(|ffn| ffn.kind != FfnKind::SwiGlu),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Layers whose mixer has another shape than the first of its kind.
pub(super) fn other_shapes<T: PartialEq>(
    stack: &Architecture,
    what: &str,
    shape: impl Fn(&Mixer) -> Option<T>,
) -> Option<Obstacle> {
    let of = |layer: &Layer| layer.mixer.as_ref().and_then(&shape);
    let first = stack.layers().iter().position(|layer| of(layer).is_some())?;
    let wanted = of(&stack.layers()[first]);
    Obstacle::of_layers(
        stack,
        format!("another size of {what} than in layer {first}, and this type has one"),
        Some(&format!("that of layer {first}")),
        |layer| of(layer).is_some() && of(layer) != wanted,
    )
}

/// Selective RoPE, where a mixer of these may have it.
pub(super) fn selective_rope(stack: &Architecture) -> Option<Obstacle> {
    Obstacle::of_layers(
        stack,
        "Selective RoPE, which no built-in type has",
        Some("selective_rope = false"),
        |layer| layer.mixer.is_some_and(|mixer| mixer.phases().is_some()),
    )
}

/// A stack without full attention: the caches by which transformers generates want a layer of it.
fn no_attention(stack: &Architecture) -> Option<Obstacle> {
    first(stack, attention_of).is_none().then(|| {
        Obstacle::of_model(
            "no attention, without which transformers generates nothing by this type",
            Some("a layer of full attention"),
        )
    })
}

/// The attention of a mixer.
pub(super) fn attention_of(mixer: &Mixer) -> Option<Attention> {
    match mixer {
        Mixer::Attention(attention) => Some(*attention),
        _ => None,
    }
}

/// The first mixer of a stack that has this shape.
pub(super) fn first<T>(stack: &Architecture, shape: impl Fn(&Mixer) -> Option<T>) -> Option<T> {
    stack.layers().iter().filter_map(|layer| layer.mixer.as_ref()).find_map(shape)
}

/// `layer_types` by a word for each mixer.
fn layer_types(stack: &Architecture, word: impl Fn(&Mixer) -> &'static str) -> Vec<&'static str> {
    stack.layers().iter().filter_map(|layer| layer.mixer.as_ref()).map(word).collect()
}

/// Embedding, final norm and head.
pub(super) fn outer(stack: &Architecture, embedding: &str, norm: &str) -> Vec<Theirs> {
    let (d, vocab) = (u64::from(stack.d_model()), u64::from(stack.vocab()));
    let mut all = vec![
        Theirs::rows(embedding, &[vocab, d], &["embedding.weight"]),
        Theirs::rows(norm, &[d], &["final_norm.weight"]),
    ];
    if !stack.tied_embeddings() {
        all.push(Theirs::rows("lm_head.weight", &[vocab, d], &["head.weight"]));
    }
    all
}

/// A layer's norm under another name.
pub(super) fn norm(stack: &Architecture, index: usize, ours: &str, theirs: String) -> Theirs {
    Theirs::rows(theirs, &[stack.d_model().into()], &[&format!("layers.{index}.{ours}.weight")])
}

/// The tensors of a mixer below `prefix`, by the mapping of the goldens; `rename` changes a module's name in it.
pub(super) fn mixer(
    library: Library,
    stack: &Architecture,
    index: usize,
    prefix: &str,
    rename: impl Fn(&str) -> String,
) -> Vec<Theirs> {
    let gene = stack.layers()[index].mixer.expect("only asked of layers with a mixer");
    let mut parts = places(library, stack.d_model().into(), &gene);
    parts.sort_by_key(|place| place.first_row);
    let mut found: Vec<(String, Vec<u64>, Vec<String>)> = Vec::new();
    for place in parts {
        let ours = format!("layers.{index}.mixer.{}", place.ours.name);
        match found.iter_mut().find(|(theirs, ..)| *theirs == place.theirs) {
            Some((_, shape, of)) => {
                shape[0] += place.ours.shape[0];
                of.push(ours);
            }
            None => found.push((place.theirs, place.ours.shape, vec![ours])),
        }
    }
    found
        .into_iter()
        .map(|(theirs, mut shape, of)| {
            // torch's convolutions have a dimension for the one channel that each reads
            if theirs.contains("conv") && shape.len() == 2 {
                shape.insert(1, 1);
            }
            let of: Vec<&str> = of.iter().map(String::as_str).collect();
            Theirs::rows(format!("{prefix}{}", rename(&theirs)), &shape, &of)
        })
        .collect()
}

/// Gate, up and down of an FFN under other names.
pub(super) fn ffn(stack: &Architecture, index: usize, names: [String; 3]) -> Vec<Theirs> {
    let (d, f) = (u64::from(stack.d_model()), ffn_width(stack, index));
    let ours = |part: &str| format!("layers.{index}.ffn.{part}.weight");
    let [gate, up, down] = names;
    vec![
        Theirs::rows(gate, &[f, d], &[&ours("gate")]),
        Theirs::rows(up, &[f, d], &[&ours("up")]),
        Theirs::rows(down, &[d, f], &[&ours("down")]),
    ]
}

fn ffn_width(stack: &Architecture, index: usize) -> u64 {
    stack.layers()[index].ffn.map_or(0, |ffn| ffn.width.into())
}
