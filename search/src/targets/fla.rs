//! Which stacks fit a model of flash-linear-attention: one of DeltaNet, Gated DeltaNet and DeltaProduct, and between its
//! layers attention of any number of shapes and windows.

use super::common::{
    AttentionForms, meta_tokens, mixer_and_ffn, other_head_widths, other_mixers, other_shapes,
    selective_rope,
};
use super::obstacle::Obstacle;
use super::shapes::{attention_of, delta_rule_of, first};
use crate::architecture::{Architecture, Delta, MixerKind, QkNorm};

pub(super) fn fla(stack: &Architecture) -> Vec<Obstacle> {
    let mut found =
        other_mixers(stack, "one of DeltaNet, Gated DeltaNet, DeltaProduct, and attention", |of| {
            delta_rule_of(of).is_some() || attention_of(of).is_some()
        });
    found.extend(mixer_and_ffn(stack));
    found.extend(other_shapes(stack, "the mixer that is no attention", delta_rule_of));
    if first(stack, delta_rule_of).is_none() {
        let what = "no DeltaNet, Gated DeltaNet or DeltaProduct, of which a model has a layer";
        found.push(Obstacle::of_model(what, None));
    }
    let of_delta = |what: &str, change: &str, has: &dyn Fn(MixerKind, &Delta) -> bool| {
        Obstacle::of_layers(stack, what, Some(change), |layer| {
            let mixer = layer.mixer.as_ref();
            mixer.is_some_and(|m| delta_rule_of(m).is_some_and(|delta| has(m.kind(), &delta)))
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
    found.extend(other_head_widths(stack));
    found.extend(selective_rope(stack));
    found.extend(meta_tokens(stack));
    found
}
