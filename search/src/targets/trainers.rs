//! Which stacks fit trainers that take a list of layers with sizes of their own: lm-engine and Megatron-core.

use super::common::{
    AttentionForms, experts, meta_tokens, only_a_half, option, other_mixers, other_turns,
    selective_rope,
};
use super::obstacle::Obstacle;
use super::shapes::{attention_of, gated_delta_of, plain_mamba2_of};
use crate::architecture::{Architecture, Delta, Mixer, QkNorm};

/// Attention, Gated DeltaNet or Mamba2.
fn is_theirs(mixer: &Mixer) -> bool {
    attention_of(mixer).is_some()
        || gated_delta_of(mixer).is_some()
        || plain_mamba2_of(mixer).is_some()
}

/// Gated DeltaNet without short convolutions, which neither trainer leaves out.
fn no_convolutions(stack: &Architecture) -> Option<Obstacle> {
    let what = "no short convolutions, which this trainer has";
    option(stack, gated_delta_of, what, "short_conv = true", |of| !of.short_conv)
}

/// lm-engine's `gpt_base`: a mixer and an FFN in every layer, each of any size.
pub(super) fn lm_engine(stack: &Architecture) -> Vec<Obstacle> {
    let mut found = other_mixers(stack, "attention, Gated DeltaNet and Mamba2", is_theirs);
    found.extend(only_a_half(stack));
    found.extend(experts(stack, "export"));
    found.extend(no_convolutions(stack));
    let gate =
        "an output gate behind the norm of the heads' outputs, and this trainer's stands before it";
    found.extend(option(stack, gated_delta_of, gate, "output_gate = false", |of| of.output_gate));
    let forms = AttentionForms {
        output_gate: true,
        turns: |_| true,
        turning: "on any part of a head",
        ..AttentionForms::plain(QkNorm::None)
    };
    found.extend(forms.each(stack));
    found.extend(other_turns(stack, |_| true));
    let d = stack.d_model();
    let heads = format!("a number of heads that does not divide {d}, the width of the model");
    found.extend(option(stack, attention_of, &heads, "heads = \"auto\"", |of| {
        !d.is_multiple_of(of.heads)
    }));
    found.extend(selective_rope(stack));
    found.extend(meta_tokens(stack));
    found
}

/// Megatron-core's `HybridModel`: mixers and FFNs in any order, each of any size.
pub(super) fn megatron(stack: &Architecture) -> Vec<Obstacle> {
    let mut found = other_mixers(stack, "attention, Gated DeltaNet and Mamba2", is_theirs);
    found.extend(experts(stack, "export"));
    found.extend(no_convolutions(stack));
    let of_delta = |what: &str, change: &str, has: fn(&Delta) -> bool| {
        option(stack, gated_delta_of, what, change, has)
    };
    let gate = "no output gate, which this trainer has";
    found.extend(of_delta(gate, "output_gate = true", |of| !of.output_gate));
    let negative = "negative eigenvalues, which this trainer has not";
    found.extend(of_delta(negative, "negative_eigenvalues = false", |of| of.negative_eigenvalues));
    let norms = "norms of q and k over all heads, and this trainer norms each head";
    found.extend(option(stack, attention_of, norms, "qk_norm = true", |of| {
        of.qk_norm == QkNorm::Whole
    }));
    let after = "norms behind attention and FFN, and this trainer's stand before them";
    found.extend(option(stack, attention_of, after, "norm_after = false", |of| of.norm_after));
    // attention without positions may stand beside attention with them
    found.extend(other_turns(stack, |of| of.rotary_width() > 0));
    found.extend(selective_rope(stack));
    found.extend(meta_tokens(stack));
    found
}
