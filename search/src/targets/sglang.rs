//! Which stacks SGLang serves by the plug-in that an export brings.
//!
//! The plug-in runs the mixers of our own modelling file, and keeps what they remember in SGLang's pool of states, so any of them
//! will do; an FFN must do the same work for every token. Keys and values are SGLang's affair: its pool has one size of them, and its Triton backend one window.

use super::common::other_attention;
use super::obstacle::Obstacle;
use super::shapes::{attention_of, first};
use crate::architecture::{Architecture, Mixer};

/// Any mixers, SwiGLU or relu², attention of one shape, one window beside the whole past.
pub(super) fn sglang(stack: &Architecture) -> Vec<Obstacle> {
    let window_of = |mixer: &Mixer| attention_of(mixer).and_then(|of| of.window);
    let mut found: Vec<Obstacle> = other_attention(stack).into_iter().collect();
    if let Some(window) = first(stack, window_of) {
        found.extend(Obstacle::of_layers(
            stack,
            "a window of another size than before it, and SGLang's attention has one",
            Some(&format!("window = {window}")),
            |layer| layer.mixer.as_ref().and_then(window_of).is_some_and(|other| other != window),
        ));
    }
    found.extend(Obstacle::of_layers(
        stack,
        "a mixture of experts, whose choice of rows SGLang's CUDA graphs do not hold",
        Some("SwiGLU"),
        |layer| layer.ffn.is_some_and(|ffn| ffn.kind.experts().is_some()),
    ));
    if stack.meta_tokens() > 0 {
        found.push(Obstacle::of_model(
            format!(
                "{} meta tokens, which are no ids that a prompt could begin with",
                stack.meta_tokens()
            ),
            Some("train it with meta_tokens = 0"),
        ));
    }
    found
}
