//! `mamba2`: Mamba2 alone, without FFNs.

use search::Architecture;
use search::foreign::Library;
use search::targets::{first, mamba2_of};
use serde_json::{Value, json};

use super::{EPS, common, mixer, norm, outer, with};
use crate::export::dialect::Dialect;
use crate::export::folder::Folder;
use crate::export::theirs::Theirs;

pub(crate) struct Mamba2;

impl Dialect for Mamba2 {
    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        let shape = first(stack, mamba2_of).expect("every layer is one");
        with(
            common(folder, "Mamba2ForCausalLM", "mamba2"),
            json!({
                "num_hidden_layers": stack.layers().len(),
                "num_heads": shape.heads,
                "head_dim": shape.head_width,
                "state_size": shape.state_width,
                "expand": shape.heads * shape.head_width / stack.d_model(),
                "n_groups": 1,
                "conv_kernel": 4,
                "use_bias": false,
                "use_conv_bias": true,
                "layer_norm_epsilon": EPS,
                "residual_in_fp32": false,
                "chunk_size": 64,
            }),
        )
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let mut all = outer(stack, "backbone.embeddings.weight", "backbone.norm_f.weight");
        for index in 0..stack.layers().len() {
            let at = format!("backbone.layers.{index}");
            all.push(norm(stack, index, "mixer_norm", format!("{at}.norm.weight")));
            all.extend(mixer(
                Library::Transformers,
                stack,
                index,
                &format!("{at}.mixer."),
                str::to_owned,
            ));
        }
        all
    }
}
