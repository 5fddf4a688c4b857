//! Which stacks fit the types that transformers has built in.

use super::common::{
    AttentionForms, experts, meta_tokens, mixer_and_ffn, no_attention, only_a_half, option,
    other_attention, other_head_widths, other_mixers, other_shapes, selective_rope,
};
use super::obstacle::Obstacle;
use super::shapes::{
    attention_of, first, first_mixture, gated_delta_of, is_full_attention, mamba2_of,
    plain_mamba2_of, taps_of,
};
use crate::architecture::{Architecture, FfnKind, Layer, Mixer, QkNorm};

pub(super) fn llama(stack: &Architecture) -> Vec<Obstacle> {
    of_attention(stack, false, &AttentionForms::plain(QkNorm::None))
}

pub(super) fn ministral(stack: &Architecture) -> Vec<Obstacle> {
    of_attention(stack, true, &AttentionForms::plain(QkNorm::None))
}

pub(super) fn qwen3(stack: &Architecture) -> Vec<Obstacle> {
    of_attention(stack, true, &AttentionForms::plain(QkNorm::Head))
}

/// Attention alone, with windows or without.
fn of_attention(stack: &Architecture, windows: bool, forms: &AttentionForms) -> Vec<Obstacle> {
    let has = if windows { "full and windowed attention" } else { "full attention" };
    let mut found = other_mixers(stack, has, |mixer| {
        attention_of(mixer).is_some_and(|of| windows || of.window.is_none())
    });
    found.extend(mixer_and_ffn(stack));
    found.extend(other_attention(stack));
    if windows {
        found.extend(other_shapes(stack, "window", |mixer| {
            attention_of(mixer).and_then(|attention| attention.window)
        }));
    }
    found.extend(forms.obstacles(stack));
    found.extend(selective_rope(stack));
    found.extend(meta_tokens(stack));
    found
}

/// Gated DeltaNet and full attention.
fn is_qwen3_5s(mixer: &Mixer) -> bool {
    gated_delta_of(mixer).is_some() || is_full_attention(mixer)
}

/// Gated DeltaNet without its output gate or its short convolutions.
fn less_than_gated_delta_net(stack: &Architecture) -> Vec<Obstacle> {
    let gate = "no output gate, which this type has";
    let conv = "no short convolutions, which this type has";
    [
        option(stack, gated_delta_of, gate, "output_gate = true", |of| !of.output_gate),
        option(stack, gated_delta_of, conv, "short_conv = true", |of| !of.short_conv),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn qwen3_5_text(stack: &Architecture) -> Vec<Obstacle> {
    let mut found = other_mixers(stack, "Gated DeltaNet and full attention", is_qwen3_5s);
    found.extend(mixer_and_ffn(stack));
    found.extend(other_shapes(stack, "Gated DeltaNet", |mixer| {
        gated_delta_of(mixer).map(|of| (of.heads, of.key_width, of.value_width, of.value_groups))
    }));
    found.extend(other_attention(stack));
    let forms = AttentionForms {
        output_gate: true,
        turns: |percent| percent > 0,
        turning: "on a part of each head",
        ..AttentionForms::plain(QkNorm::Head)
    };
    found.extend(forms.obstacles(stack));
    found.extend(less_than_gated_delta_net(stack));
    let negative = "negative eigenvalues, which this type has not";
    found.extend(option(stack, gated_delta_of, negative, "negative_eigenvalues = false", |of| {
        of.negative_eigenvalues
    }));
    found.extend(selective_rope(stack));
    found.extend(no_attention(stack));
    found.extend(meta_tokens(stack));
    found
}

pub(super) fn olmo_hybrid(stack: &Architecture) -> Vec<Obstacle> {
    let mut found = other_mixers(stack, "Gated DeltaNet and full attention", is_qwen3_5s);
    found.extend(mixer_and_ffn(stack));
    found.extend(other_shapes(stack, "Gated DeltaNet", |mixer| {
        let of = gated_delta_of(mixer)?;
        Some((of.heads, of.key_width, of.value_width, of.value_groups, of.negative_eigenvalues))
    }));
    found.extend(other_attention(stack));
    let forms = AttentionForms {
        norm_after: true,
        turns: |percent| matches!(percent, 0 | 100),
        turning: "on whole heads or none",
        ..AttentionForms::plain(QkNorm::Whole)
    };
    found.extend(forms.obstacles(stack));
    found.extend(less_than_gated_delta_net(stack));
    if first(stack, attention_of).is_none() {
        found.push(Obstacle::of_model("no attention, of which this type wants a layer", None));
    }
    if first(stack, gated_delta_of).is_none() {
        let what = "no Gated DeltaNet, of which this type wants a layer";
        found.push(Obstacle::of_model(what, None));
    }
    found.extend(selective_rope(stack));
    found.extend(meta_tokens(stack));
    found
}

/// Mamba2 layers whose inner width is no whole multiple of the model's.
fn expansion(stack: &Architecture) -> Option<Obstacle> {
    let d = stack.d_model();
    Obstacle::of_layers(
        stack,
        format!("Mamba2 whose heads together are no whole multiple of {d} wide"),
        Some("heads = \"auto\""),
        |layer| {
            let shape = layer.mixer.as_ref().and_then(mamba2_of);
            shape.is_some_and(|of| !(of.heads * of.head_width).is_multiple_of(d))
        },
    )
}

/// SwiGLU in every layer, or one mixture of experts with a shared one in every layer.
fn of_granite(stack: &Architecture) -> Vec<Obstacle> {
    let Some(first) = first_mixture(stack) else { return mixer_and_ffn(stack) };
    let of = first.kind.experts().expect("it is a mixture");
    let mut found = only_a_half(stack);
    found.extend(Obstacle::of_layers(
        stack,
        "another FFN than the first mixture of experts, and this type has one",
        Some(&first.to_string()),
        |layer| layer.ffn.is_some_and(|ffn| ffn != first),
    ));
    let mut all = |what: &str, change: &str, has: bool| {
        let is_mixture = |layer: &Layer| has && layer.ffn == Some(first);
        found.extend(Obstacle::of_layers(stack, what, Some(change), is_mixture));
    };
    all("no shared expert, which this type has beside the others", "s=1", of.shared == 0);
    let one = "one expert for each token, whose share this type does not weigh by the router";
    all(one, "k=2", of.per_token == 1);
    found
}

pub(super) fn granitemoehybrid(stack: &Architecture) -> Vec<Obstacle> {
    let mut found = other_mixers(stack, "Mamba2 and full attention", |mixer| {
        plain_mamba2_of(mixer).is_some() || is_full_attention(mixer)
    });
    found.extend(of_granite(stack));
    found.extend(other_shapes(stack, "Mamba2", mamba2_of));
    found.extend(other_attention(stack));
    found.extend(expansion(stack));
    let forms = AttentionForms {
        turns: |percent| matches!(percent, 0 | 100),
        turning: "on whole heads or none",
        ..AttentionForms::plain(QkNorm::None)
    };
    found.extend(forms.obstacles(stack));
    found.extend(other_head_widths(stack));
    found.extend(selective_rope(stack));
    found.extend(no_attention(stack));
    found.extend(meta_tokens(stack));
    found
}

pub(super) fn mamba2(stack: &Architecture) -> Vec<Obstacle> {
    let mut found = other_mixers(stack, "Mamba2 alone", |mixer| plain_mamba2_of(mixer).is_some());
    found.extend(Obstacle::of_layers(
        stack,
        "an FFN, and this type has none",
        Some("ffn = [\"none\"]"),
        |layer| layer.ffn.is_some(),
    ));
    found.extend(other_shapes(stack, "Mamba2", mamba2_of));
    found.extend(expansion(stack));
    found.extend(meta_tokens(stack));
    found
}

pub(super) fn nemotron_h(stack: &Architecture) -> Vec<Obstacle> {
    let has = "Mamba2 and attention without positions";
    let mut found = other_mixers(stack, has, |mixer| {
        plain_mamba2_of(mixer).is_some() || is_full_attention(mixer)
    });
    found.extend(Obstacle::of_layers(
        stack,
        "a SwiGLU, and this type's FFNs have two matrices and relu²",
        Some("a relu2 FFN"),
        |layer| layer.ffn.is_some_and(|ffn| ffn.kind == FfnKind::SwiGlu),
    ));
    found.extend(experts(stack, "type"));
    let width = stack.layers().iter().find_map(|layer| layer.ffn.map(|ffn| ffn.width));
    found.extend(Obstacle::of_layers(
        stack,
        "an FFN of another width, and this type has one width",
        width.map(|width| format!("relu2({width})")).as_deref(),
        |layer| layer.ffn.is_some_and(|ffn| Some(ffn.width) != width),
    ));
    found.extend(other_shapes(stack, "Mamba2", mamba2_of));
    found.extend(other_attention(stack));
    let forms = AttentionForms {
        turns: |percent| percent == 0,
        turning: "none",
        ..AttentionForms::plain(QkNorm::None)
    };
    found.extend(forms.obstacles(stack));
    found.extend(selective_rope(stack));
    found.extend(no_attention(stack));
    found.extend(meta_tokens(stack));
    found
}

pub(super) fn lfm2(stack: &Architecture) -> Vec<Obstacle> {
    let d = stack.d_model();
    let mut found = other_mixers(stack, "gated short convolutions and full attention", |mixer| {
        taps_of(mixer).is_some() || is_full_attention(mixer)
    });
    found.extend(mixer_and_ffn(stack));
    found.extend(other_attention(stack));
    found.extend(other_shapes(stack, "convolution", taps_of));
    found.extend(Obstacle::of_layers(
        stack,
        format!("a convolution of other channels than the {d} of the model"),
        Some(&format!("channels = {d}")),
        |layer| matches!(layer.mixer, Some(Mixer::GatedConv(conv)) if conv.channels != d),
    ));
    found.extend(AttentionForms::plain(QkNorm::Head).obstacles(stack));
    found.extend(other_head_widths(stack));
    found.extend(selective_rope(stack));
    found.extend(no_attention(stack));
    found.extend(meta_tokens(stack));
    found
}
