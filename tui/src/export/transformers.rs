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
use search::architecture::Mixer;
use search::foreign::{Library, places};
use serde_json::{Value, json};

pub(super) use attention::{LLAMA, MINISTRAL, QWEN3};
pub(super) use granite::GraniteMoeHybrid;
pub(super) use lfm2::Lfm2;
pub(super) use mamba::Mamba2;
pub(super) use nemotron_h::NemotronH;
pub(super) use olmo_hybrid::OlmoHybrid;
pub(super) use qwen3_5::Qwen35;

use super::folder::Folder;
use super::theirs::Theirs;

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

pub(super) fn ffn_width(stack: &Architecture, index: usize) -> u64 {
    stack.layers()[index].ffn.map_or(0, |ffn| ffn.width.into())
}
