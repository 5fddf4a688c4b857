//! `nemotron_h`: Mamba2, full attention without positions and relu² FFNs, each a layer of its own: a layer of ours with a
//! mixer and an FFN is two of theirs. The type ties no embeddings: of a stack with tied ones the head is a copy.

use search::Architecture;
use search::architecture::Mixer;
use search::foreign::Library;
use search::targets::{attention_of, first, mamba2_of};
use serde_json::{Value, json};

use super::{EPS, POSITIONS, common, mixer, norm, outer, with};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;

pub(crate) struct NemotronH;

/// Half a layer of ours, a layer of theirs.
enum Half<'a> {
    Mixer(&'a Mixer),
    Ffn,
}

/// Their layers, each with the number of ours.
fn halves(stack: &Architecture) -> impl Iterator<Item = (usize, Half<'_>)> {
    stack.layers().iter().enumerate().flat_map(|(index, layer)| {
        let mixer = layer.mixer.as_ref().map(|mixer| (index, Half::Mixer(mixer)));
        mixer.into_iter().chain(layer.ffn.map(|_| (index, Half::Ffn)))
    })
}

fn ffn_width(stack: &Architecture) -> Option<u32> {
    stack.layers().iter().find_map(|layer| layer.ffn.map(|ffn| ffn.width))
}

impl Dialect for NemotronH {
    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let attention = first(stack, attention_of).expect("there is a layer of it");
        // a stack without Mamba2 has the sizes of one that is not there
        let [mamba_heads, head_width, state_width] = first(stack, mamba2_of)
            .map_or([1, 64, 16], |of| [of.heads, of.head_width, of.state_width]);
        let types: Vec<&str> = halves(stack)
            .map(|(_, half)| match half {
                Half::Mixer(mixer) if mamba2_of(mixer).is_some() => "linear_attention",
                Half::Mixer(_) => "full_attention",
                Half::Ffn => "mlp",
            })
            .collect();
        with(
            common(folder, "NemotronHForCausalLM", "nemotron_h"),
            json!({
                "tie_word_embeddings": false,
                "layers_block_type": types,
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "head_dim": attention.head_width,
                "attention_bias": false,
                "intermediate_size": ffn_width(stack).unwrap_or(1),
                "mlp_hidden_act": "relu2",
                "mlp_bias": false,
                "max_position_embeddings": POSITIONS,
                "layer_norm_epsilon": EPS,
                "residual_in_fp32": false,
                "mamba_num_heads": mamba_heads,
                "mamba_head_dim": head_width,
                "ssm_state_size": state_width,
                "n_groups": 1,
                "conv_kernel": 4,
                "chunk_size": 64,
                "use_conv_bias": true,
                "use_bias": false,
                "mamba_proj_bias": false,
                // what a time step is at least
                "time_step_min": 0.0,
            }),
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "model.embeddings.weight", "model.norm_f.weight");
        let (d, vocab) = (u64::from(stack.d_model()), u64::from(stack.vocab()));
        if stack.tied_embeddings() {
            all.push(Theirs::rows("lm_head.weight", &[vocab, d], &["embedding.weight"]));
        }
        for (theirs, (index, half)) in halves(stack).enumerate() {
            let at = format!("model.layers.{theirs}");
            let before = if matches!(half, Half::Mixer(_)) { "mixer_norm" } else { "ffn_norm" };
            all.push(norm(stack, index, before, format!("{at}.norm.weight")));
            let prefix = format!("{at}.mixer.");
            if let Half::Mixer(_) = half {
                all.extend(mixer(Library::Transformers, stack, index, &prefix, str::to_owned));
                continue;
            }
            let f = ffn_width(stack).map_or(0, u64::from);
            for (part, shape) in [("up", [f, d]), ("down", [d, f])] {
                let ours = format!("layers.{index}.ffn.{part}.weight");
                all.push(Theirs::rows(format!("{prefix}{part}_proj.weight"), &shape, &[&ours]));
            }
        }
        all
    }
}
