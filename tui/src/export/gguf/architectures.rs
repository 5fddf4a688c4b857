//! llama.cpp's architectures: which stacks each holds, its keys, and its names for the tensors of a type of transformers.

use search::Architecture;
use search::architecture::{Delta, Mixer};
use search::targets::{attention_of, first, gated_delta_of, mamba2_of, taps_of};

use super::file::Entry;
use crate::export::dialect::Dialect;
use crate::export::theirs::Theirs;
use crate::export::transformers::{GraniteMoeHybrid, LLAMA, Lfm2, Mamba2, QWEN3, Qwen35};

/// Writes keys below the architecture's name.
pub(super) type Keys<'a> = &'a mut dyn FnMut(&str, Entry);

/// An architecture of llama.cpp.
pub(super) struct One {
    pub(super) name: &'static str,
    /// The type of transformers that its converter reads.
    dialect: &'static dyn Dialect,
    pub(super) keys: fn(&Architecture, Keys),
    /// Whether rotary positions turn neighbours, and not halves.
    neighbours: bool,
}

pub(super) const ALL: [One; 6] = [
    One { name: "llama", dialect: &LLAMA, keys: attention, neighbours: true },
    One { name: "qwen3", dialect: &QWEN3, keys: attention, neighbours: false },
    One { name: "lfm2", dialect: &Lfm2, keys: lfm2, neighbours: false },
    One { name: "mamba2", dialect: &Mamba2, keys: mamba2, neighbours: false },
    One { name: "granitehybrid", dialect: &GraniteMoeHybrid, keys: granite, neighbours: true },
    One { name: "qwen35", dialect: &Qwen35, keys: qwen35, neighbours: false },
];

fn attention(stack: &Architecture, key: Keys) {
    let of = first(stack, attention_of).expect("every such stack has attention");
    key("attention.head_count", Entry::U32(of.heads));
    key("attention.head_count_kv", Entry::U32(of.kv_heads));
    heads(stack, key);
}

/// What attention of any of these has, but the number of heads.
fn heads(stack: &Architecture, key: Keys) {
    let of = first(stack, attention_of).expect("every such stack has attention");
    key("attention.key_length", Entry::U32(of.head_width));
    key("attention.value_length", Entry::U32(of.head_width));
    let turned = if of.rotary_width() > 0 { of.rotary_width() } else { of.head_width };
    key("rope.dimension_count", Entry::U32(turned));
    key("rope.freq_base", Entry::F32(of.rope_theta as f32));
    key("feed_forward_length", Entry::U32(stack.layers()[0].ffn.map_or(0, |ffn| ffn.width)));
}

/// Key and value heads of each layer, 0 where there is no attention.
fn kv_heads(stack: &Architecture) -> Entry {
    let of_layer = |mixer: Option<&Mixer>| mixer.and_then(attention_of).map_or(0, |of| of.kv_heads);
    Entry::U32s(stack.layers().iter().map(|layer| of_layer(layer.mixer.as_ref())).collect())
}

fn lfm2(stack: &Architecture, key: Keys) {
    let of = first(stack, attention_of).expect("every such stack has attention");
    key("attention.head_count", Entry::U32(of.heads));
    key("attention.head_count_kv", kv_heads(stack));
    key("shortconv.l_cache", Entry::U32(first(stack, taps_of).unwrap_or(3)));
    heads(stack, key);
}

fn mamba2(stack: &Architecture, key: Keys) {
    key("attention.head_count", Entry::U32(0));
    key("feed_forward_length", Entry::U32(0));
    of_mamba2(stack, key);
}

fn of_mamba2(stack: &Architecture, key: Keys) {
    let of = first(stack, mamba2_of).expect("every such stack has one");
    key("ssm.conv_kernel", Entry::U32(4));
    key("ssm.inner_size", Entry::U32(of.heads * of.head_width));
    key("ssm.state_size", Entry::U32(of.state_width));
    key("ssm.time_step_rank", Entry::U32(of.heads));
    key("ssm.group_count", Entry::U32(1));
}

fn granite(stack: &Architecture, key: Keys) {
    let of = first(stack, attention_of).expect("every such stack has attention");
    key("attention.head_count", Entry::U32(of.heads));
    key("attention.head_count_kv", kv_heads(stack));
    // the switch for rotary positions
    key("rope.scaling.finetuned", Entry::Flag(of.rotary_width() > 0));
    heads(stack, key);
    of_mamba2(stack, key);
}

fn qwen35(stack: &Architecture, key: Keys) {
    attention(stack, key);
    // Pairs of channels turn by three positions in turn, which are one in a text; what is in no section turns by a fourth.
    let half = first(stack, attention_of).map_or(0, |of| of.rotary_width() as i32 / 2);
    let sections = [(half + 2) / 3, (half + 1) / 3, half / 3, 0];
    key("rope.dimension_sections", Entry::I32s(sections.to_vec()));
    let is_delta = |mixer: Option<&Mixer>| mixer.and_then(gated_delta_of).is_some();
    let recurrent = stack.layers().iter().map(|layer| is_delta(layer.mixer.as_ref())).collect();
    key("attention.recurrent_layers", Entry::Flags(recurrent));
    let of = first(stack, gated_delta_of).expect("every such stack has one");
    key("ssm.conv_kernel", Entry::U32(4));
    key("ssm.inner_size", Entry::U32(of.value_heads() * of.value_width));
    key("ssm.state_size", Entry::U32(of.key_width));
    key("ssm.time_step_rank", Entry::U32(of.value_heads()));
    key("ssm.group_count", Entry::U32(of.heads));
}

/// Module names of the types of transformers, and llama.cpp's, inside a layer.
const NAMES: &[(&str, &str)] = &[
    ("input_layernorm.weight", "attn_norm.weight"),
    ("operator_norm.weight", "attn_norm.weight"),
    ("norm.weight", "attn_norm.weight"),
    ("post_attention_layernorm.weight", "ffn_norm.weight"),
    ("ffn_norm.weight", "ffn_norm.weight"),
    ("self_attn.q_proj.weight", "attn_q.weight"),
    ("self_attn.k_proj.weight", "attn_k.weight"),
    ("self_attn.v_proj.weight", "attn_v.weight"),
    ("self_attn.o_proj.weight", "attn_output.weight"),
    ("self_attn.out_proj.weight", "attn_output.weight"),
    ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("self_attn.q_layernorm.weight", "attn_q_norm.weight"),
    ("self_attn.k_layernorm.weight", "attn_k_norm.weight"),
    ("mlp.gate_proj.weight", "ffn_gate.weight"),
    ("mlp.up_proj.weight", "ffn_up.weight"),
    ("mlp.down_proj.weight", "ffn_down.weight"),
    ("feed_forward.w1.weight", "ffn_gate.weight"),
    ("feed_forward.w3.weight", "ffn_up.weight"),
    ("feed_forward.w2.weight", "ffn_down.weight"),
    ("shared_mlp.output_linear.weight", "ffn_down.weight"),
    ("conv.in_proj.weight", "shortconv.in_proj.weight"),
    ("conv.conv.weight", "shortconv.conv.weight"),
    ("conv.out_proj.weight", "shortconv.out_proj.weight"),
    ("in_proj.weight", "ssm_in.weight"),
    ("in_proj_qkv.weight", "attn_qkv.weight"),
    ("in_proj_z.weight", "attn_gate.weight"),
    ("in_proj_b.weight", "ssm_beta.weight"),
    ("in_proj_a.weight", "ssm_alpha.weight"),
    ("conv1d.weight", "ssm_conv1d.weight"),
    ("conv1d.bias", "ssm_conv1d.bias"),
    ("A_log", "ssm_a"),
    ("D", "ssm_d"),
    ("dt_bias", "ssm_dt.bias"),
    ("out_proj.weight", "ssm_out.weight"),
];

/// The same outside of layers.
const OUTER: &[(&str, &str)] = &[
    ("embed_tokens.weight", "token_embd.weight"),
    ("embeddings.weight", "token_embd.weight"),
    ("norm.weight", "output_norm.weight"),
    ("norm_f.weight", "output_norm.weight"),
    ("embedding_norm.weight", "token_embd_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

impl One {
    /// Its tensors.
    pub(super) fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let theirs = self.dialect.tensors(stack);
        theirs.into_iter().flat_map(|theirs| self.converted(stack, theirs)).collect()
    }

    /// One tensor under llama.cpp's name, with what its converter does to it.
    fn converted(&self, stack: &Architecture, mut theirs: Theirs) -> Vec<Theirs> {
        let name =
            theirs.name.trim_start_matches("model.").trim_start_matches("backbone.").to_owned();
        let Some((index, module)) =
            name.strip_prefix("layers.").and_then(|rest| rest.split_once('.'))
        else {
            theirs.name = renamed(OUTER, &name);
            return vec![self.plus_one(theirs)];
        };
        let block = format!("blk.{index}");
        let gene = index.parse::<usize>().ok().and_then(|index| stack.layers()[index].mixer);
        if module == "shared_mlp.input_linear.weight" {
            return halves(&theirs, &block);
        }
        // norms after a recurrence have names that those before it have, too
        let inner = ["mixer.", "mamba.", "linear_attn."]
            .into_iter()
            .find_map(|mixer| module.strip_prefix(mixer));
        theirs.name = match inner {
            Some("norm.weight") => format!("{block}.ssm_norm.weight"),
            Some(inner) => format!("{block}.{}", renamed(NAMES, inner)),
            None if self.name == "qwen35" && module == "post_attention_layernorm.weight" => {
                format!("{block}.post_attention_norm.weight")
            }
            None => format!("{block}.{}", renamed(NAMES, module)),
        };
        if inner.is_none() {
            theirs = self.plus_one(theirs);
        }
        if theirs.shape.len() == 3 {
            theirs.shape.remove(1); // a convolution's one channel
        }
        match module.rsplit('.').next() {
            Some("A_log") => {
                theirs = then(theirs, |a| a.into_iter().map(|a| -a.exp()).collect());
                if inner.is_some() && self.name != "qwen35" {
                    theirs.shape.push(1);
                }
            }
            Some("D") => theirs.shape.push(1),
            _ => {}
        }
        if self.neighbours
            && let Some(of) = gene.as_ref().and_then(attention_of)
        {
            let row = stack.d_model() as usize;
            if module.ends_with("q_proj.weight") || module.ends_with("k_proj.weight") {
                let width = of.head_width as usize;
                theirs = then(theirs, move |w| neighbours(&w, width, row));
            }
        }
        if let Some(delta) = gene.as_ref().and_then(gated_delta_of).filter(|of| of.value_groups > 1)
        {
            theirs = tiled(theirs, inner.unwrap_or_default(), &delta, stack.d_model() as usize);
        }
        vec![theirs]
    }

    /// Of Qwen3.5, whose norms multiply by 1 + w, the weight that llama.cpp multiplies by.
    fn plus_one(&self, theirs: Theirs) -> Theirs {
        if self.name == "qwen35" && theirs.name.ends_with("norm.weight") {
            return then(theirs, |w| w.into_iter().map(|w| w + 1.0).collect());
        }
        theirs
    }
}

fn renamed(names: &[(&str, &str)], name: &str) -> String {
    let found = names.iter().find(|(theirs, _)| *theirs == name);
    found.unwrap_or_else(|| panic!("llama.cpp's name of {name} is not known")).1.to_owned()
}

/// The same with one more step.
fn then(theirs: Theirs, step: impl Fn(Vec<f32>) -> Vec<f32> + Send + Sync + 'static) -> Theirs {
    let make = theirs.make;
    Theirs { make: Box::new(move |ours| step(make(ours))), ..theirs }
}

/// Gate and up, which stand in one tensor.
fn halves(theirs: &Theirs, block: &str) -> Vec<Theirs> {
    let shape = [(theirs.shape[0] / 2) as u64, theirs.shape[1] as u64];
    let half =
        |name: &str, ours: &str| Theirs::rows(format!("{block}.{name}.weight"), &shape, &[ours]);
    vec![half("ffn_gate", &theirs.of[0]), half("ffn_up", &theirs.of[1])]
}

/// Rows of each head so that those that turn together, i and i + K/2, are neighbours.
fn neighbours(w: &[f32], width: usize, row: usize) -> Vec<f32> {
    let half = width / 2;
    let heads = w.chunks_exact(width * row);
    let of_head = |head: &[f32]| -> Vec<f32> {
        (0..width)
            .flat_map(|i| {
                let from = i % 2 * half + i / 2;
                head[from * row..][..row].to_vec()
            })
            .collect()
    };
    heads.flat_map(of_head).collect()
}

/// Value heads in llama.cpp's order: the first of every key head, then the second.
fn tiled(theirs: Theirs, module: &str, delta: &Delta, d: usize) -> Theirs {
    let (keys, groups) = (delta.heads as usize, delta.value_groups as usize);
    let width = delta.value_width as usize;
    let key_rows = 2 * delta.key_rows() as usize;
    // Elements of one head, and of what stands before the heads.
    let (head, before) = match module {
        "in_proj_z.weight" => (width * d, 0),
        "in_proj_b.weight" | "in_proj_a.weight" => (d, 0),
        "A_log" | "dt_bias" => (1, 0),
        "in_proj_qkv.weight" => (width * d, key_rows * d),
        "conv1d.weight" => (width * 4, key_rows * 4),
        "out_proj.weight" => {
            let columns = delta.value_rows() as usize;
            return then(theirs, move |w| {
                let rows = w.chunks_exact(columns);
                rows.flat_map(|row| reordered(row, keys, groups, width)).collect()
            });
        }
        _ => return theirs,
    };
    then(theirs, move |w| {
        let (first, heads) = w.split_at(before);
        [first.to_vec(), reordered(heads, keys, groups, head)].concat()
    })
}

/// Heads `[keys, groups]` of so many elements as `[groups, keys]`.
fn reordered(heads: &[f32], keys: usize, groups: usize, elements: usize) -> Vec<f32> {
    let at = |key: usize, group: usize| &heads[(key * groups + group) * elements..][..elements];
    (0..groups).flat_map(|group| (0..keys).flat_map(move |key| at(key, group).to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_heads_go_where_llama_cpp_wants_them() {
        // one head of four rows of one element
        assert_eq!(neighbours(&[0.0, 1.0, 2.0, 3.0], 4, 1), [0.0, 2.0, 1.0, 3.0]);
        // two key heads of three value heads each
        let heads = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0];
        assert_eq!(reordered(&heads, 2, 3, 1), [0.0, 10.0, 1.0, 11.0, 2.0, 12.0]);
    }
}
