//! Which stacks fit `nemotron_flash`, the type of Nemotron-Flash (arXiv 2511.18890): DeltaNet, Mamba2, full attention and FFNs
//! in any order, meta tokens.

use super::common::{
    AttentionForms, experts, option, other_attention, other_mixers, other_shapes, selective_rope,
};
use super::obstacle::Obstacle;
use super::shapes::{attention_of, delta_rule_of, first, is_full_attention, plain_mamba2_of};
use crate::architecture::{Architecture, Delta, Ffn, Layer, Mixer, MixerKind, QkNorm};

/// The shape of a DeltaNet.
fn delta_net_of(mixer: &Mixer) -> Option<Delta> {
    delta_rule_of(mixer).filter(|_| mixer.kind() == MixerKind::DeltaNet)
}

/// FFNs of this type are 128 wide or a multiple of it where they are layers of their own.
const UNIT: u32 = 128;

/// Whether every layer is a mixer and an FFN: then FFNs are no layers of the type's own.
pub fn has_an_ffn_after_every_mixer(stack: &Architecture) -> bool {
    stack.layers().iter().all(|layer| layer.mixer.is_some() && layer.ffn.is_some())
}

pub(super) fn nemotron_flash(stack: &Architecture) -> Vec<Obstacle> {
    let mut found = other_mixers(stack, "DeltaNet, Mamba2 and full attention", |mixer| {
        delta_net_of(mixer).is_some()
            || plain_mamba2_of(mixer).is_some()
            || is_full_attention(mixer)
    });
    found.extend(delta_net(stack));
    found.extend(other_shapes(stack, "Mamba2", plain_mamba2_of));
    let d = stack.d_model();
    let wide = format!("Mamba2 whose heads together are no whole multiple of {d} wide");
    found.extend(option(stack, plain_mamba2_of, &wide, "heads = \"auto\"", |of| {
        !(of.heads * of.head_width).is_multiple_of(d)
    }));
    let eight = "Mamba2 of heads that are no multiple of 8, which its kernels want";
    found.extend(option(stack, plain_mamba2_of, eight, "a multiple of 8 heads", |of| {
        !of.heads.is_multiple_of(8)
    }));
    found.extend(attention(stack));
    found.extend(ffns(stack));
    found.extend(selective_rope(stack));
    found
}

fn delta_net(stack: &Architecture) -> Vec<Obstacle> {
    let d = stack.d_model();
    let of_delta = |what: &str, change: &str, has: &dyn Fn(&Delta) -> bool| {
        option(stack, delta_net_of, what, change, has)
    };
    let heads = first(stack, attention_of).map(|of| of.heads);
    let heads = heads.or_else(|| first(stack, delta_net_of).map(|of| of.heads)).unwrap_or(1);
    [
        of_delta(
            "an output gate, which this type's DeltaNet has not",
            "output_gate = false",
            &|of| of.output_gate,
        ),
        of_delta("no short convolutions, which this type has", "short_conv = true", &|of| {
            !of.short_conv
        }),
        of_delta(
            "negative eigenvalues, which this type has not",
            "negative_eigenvalues = false",
            &|of| of.negative_eigenvalues,
        ),
        of_delta(
            "another number of heads than attention has, and this type has one number",
            &format!("heads = {heads}"),
            &|of| of.heads != heads,
        ),
        of_delta(
            &format!("keys or values that are not {d} wide together"),
            &format!("key_width = value_width = {d} / heads"),
            &|of| of.key_rows() != u64::from(d) || of.value_rows() != u64::from(d),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn attention(stack: &Architecture) -> Vec<Obstacle> {
    let d = stack.d_model();
    let norms = first(stack, attention_of).map_or(QkNorm::None, |of| of.qk_norm);
    let norms = if norms == QkNorm::None { QkNorm::None } else { QkNorm::Head };
    let forms = AttentionForms {
        turns: |percent| matches!(percent, 0 | 100),
        turning: "on whole heads or none",
        ..AttentionForms::plain(norms)
    };
    let mut found = forms.obstacles(stack);
    found.extend(other_attention(stack));
    let heads = format!("heads of {d} / heads channels that are not {d} wide together");
    found.extend(option(stack, attention_of, &heads, "heads = \"auto\"", |of| {
        d / of.heads == of.head_width && of.heads * of.head_width != d
    }));
    found
}

fn ffns(stack: &Architecture) -> Vec<Obstacle> {
    let Some(first) = stack.layers().iter().find_map(|layer| layer.ffn) else { return Vec::new() };
    let is_other = |other: fn(Ffn, Ffn) -> bool| {
        move |layer: &Layer| layer.ffn.is_some_and(|ffn| other(ffn, first))
    };
    let mut found = Vec::new();
    found.extend(experts(stack, "type"));
    found.extend(Obstacle::of_layers(
        stack,
        "an FFN of another kind, and this type has one kind",
        Some(first.kind.title()),
        is_other(|ffn, first| ffn.kind != first.kind),
    ));
    found.extend(Obstacle::of_layers(
        stack,
        "an FFN of another width, and this type has one width",
        Some(&format!("{}({})", first.kind.word(), first.width)),
        is_other(|ffn, first| ffn.width != first.width),
    ));
    if !has_an_ffn_after_every_mixer(stack) && !first.width.is_multiple_of(UNIT) {
        let near = (first.width.max(UNIT) + UNIT / 2) / UNIT * UNIT;
        found.extend(Obstacle::of_layers(
            stack,
            format!("an FFN whose width is no multiple of {UNIT}, as of FFNs that are layers of their own"),
            Some(&format!("{}({near})", first.kind.word())),
            |layer| layer.ffn.is_some(),
        ));
    }
    found
}
