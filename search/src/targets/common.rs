//! What the rules of several targets have in common.

use super::obstacle::Obstacle;
use super::shapes::{attention_of, first};
use crate::architecture::{Architecture, Attention, FfnKind, Layer, Mixer, MixerKind, QkNorm};

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
        let what = format!("{}, and this type has {has}", MixerKind::title(kind));
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

/// Layers without a mixer or without an FFN.
pub(super) fn only_a_half(stack: &Architecture) -> Vec<Obstacle> {
    let first = stack.layers().iter().find_map(|layer| layer.ffn);
    let wanted = first.map(|ffn| match ffn.kind {
        FfnKind::SwiGlu => format!("an FFN of {} after it", ffn.width),
        FfnKind::Relu2 => format!("a relu² FFN of {} after it", ffn.width),
        FfnKind::Moe(_) => format!("{ffn} after it"),
    });
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
            wanted.as_deref(),
            |layer| layer.ffn.is_none(),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Layers without a mixer or without an FFN, FFNs of other widths than the first, and other FFNs than SwiGLU.
pub(super) fn mixer_and_ffn(stack: &Architecture) -> Vec<Obstacle> {
    let width = stack.layers().iter().find_map(|layer| layer.ffn.map(|ffn| ffn.width));
    let mut found = only_a_half(stack);
    found.extend(Obstacle::of_layers(
        stack,
        "an FFN of another width, and this type has one width",
        width.map(|width| format!("ffn({width})")).as_deref(),
        |layer| layer.ffn.is_some_and(|ffn| Some(ffn.width) != width),
    ));
    found.extend(Obstacle::of_layers(
        stack,
        "an FFN that is no SwiGLU, and this type's are",
        Some("SwiGLU"),
        |layer| layer.ffn.is_some_and(|ffn| ffn.kind == FfnKind::Relu2),
    ));
    found.extend(experts(stack, "type"));
    found
}

/// Mixtures of experts, which a type or trainer has not.
pub(super) fn experts(stack: &Architecture, of: &str) -> Option<Obstacle> {
    let what = format!("a mixture of experts, and this {of}'s FFNs are single ones");
    Obstacle::of_layers(stack, what, Some("SwiGLU"), |layer| {
        layer.ffn.is_some_and(|ffn| ffn.kind.experts().is_some())
    })
}

/// Attention, of all that `counts`, in which other channels turn than in the first, or by another θ.
pub(super) fn other_turns(
    stack: &Architecture,
    counts: impl Fn(&Attention) -> bool,
) -> Option<Obstacle> {
    let of = |mixer: &Mixer| attention_of(mixer).filter(&counts);
    let positions = |of: Attention| (of.rotary_width(), of.rope_theta);
    let wanted = positions(first(stack, of)?);
    let (width, theta) = wanted;
    let change = match width {
        0 => "rotary_percent = 0".to_owned(),
        _ => format!("{width} channels of each head that turn, rope_theta = {theta}"),
    };
    Obstacle::of_layers(
        stack,
        "other rotary positions than attention before it, and this trainer has one kind",
        Some(&change),
        |layer| {
            let found = layer.mixer.as_ref().and_then(of).map(positions);
            found.is_some_and(|found| found != wanted && (found.0 > 0 || width > 0))
        },
    )
}

/// An option that mixers of a kind have, and the target has not.
pub(super) fn option<T>(
    stack: &Architecture,
    of_kind: impl Fn(&Mixer) -> Option<T>,
    what: &str,
    change: &str,
    has: impl Fn(&T) -> bool,
) -> Option<Obstacle> {
    Obstacle::of_layers(stack, what, Some(change), |layer| {
        layer.mixer.as_ref().and_then(&of_kind).is_some_and(|shape| has(&shape))
    })
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
pub(super) fn no_attention(stack: &Architecture) -> Option<Obstacle> {
    first(stack, attention_of).is_none().then(|| {
        Obstacle::of_model(
            "no attention, without which transformers generates nothing by this type",
            Some("a layer of full attention"),
        )
    })
}
