//! What the two ways through a model read alike in an architecture.

use kernels::cuda::attention::rotations;
use search::Architecture;
use search::architecture::{Attention, Delta, Ffn, FfnKind, Mixer, QkNorm};

use crate::error::ProfileError;

/// Gives a tensor by its name and size: matrices row-major `[out, in]`, names as in a checkpoint.
pub type Load<'a> = &'a mut dyn FnMut(&str, usize) -> Vec<f32>;

/// Cosine and sine by position for the heads of `shape`, `[positions, K/2, 2]`; without rotary positions nothing turns.
pub(super) fn rotations_of(shape: &Attention, positions: usize) -> Vec<f32> {
    let width = shape.head_width as usize;
    if shape.rotary_width() == 0 {
        return [1.0, 0.0].repeat(positions * width / 2);
    }
    rotations(positions, width, shape.rope_theta.into())
}

/// Key heads, value heads, the widths of keys and of values, and the delta steps of a token.
pub(super) fn delta_extents(shape: &Delta) -> [usize; 5] {
    let (heads, value_heads) = (shape.heads, shape.value_heads());
    [heads, value_heads, shape.key_width, shape.value_width, shape.steps_per_token()]
        .map(|n| n as usize)
}

/// Whether there are kernels for all of its mixers and FFNs.
///
/// # Errors
/// When there are none for one of them, which the message names.
pub fn check_covered(architecture: &Architecture) -> Result<(), ProfileError> {
    architecture.layers().iter().try_for_each(|layer| {
        layer.mixer.as_ref().map_or(Ok(()), covered)?;
        match layer.ffn {
            Some(Ffn { kind: FfnKind::Relu2, .. }) => Err(not_covered("relu² FFNs")),
            Some(Ffn { kind: FfnKind::Moe(_), .. }) => Err(not_covered("mixtures of experts")),
            Some(Ffn { kind: FfnKind::SwiGlu, .. }) | None => Ok(()),
        }
    })
}

fn not_covered(missing: &str) -> ProfileError {
    ProfileError::Conditions(format!(
        "the GPU's decode step does not cover {missing}; leave them out of [space], or time with latency.device = \"cpu\""
    ))
}

fn covered(mixer: &Mixer) -> Result<(), ProfileError> {
    let missing = if mixer.levels().is_some() {
        "log-linear mixers"
    } else if mixer.phases().is_some() {
        "Selective RoPE"
    } else if matches!(mixer, Mixer::Kda(_)) {
        "Kimi Delta Attention"
    } else if let Mixer::Attention(shape) = mixer
        && let Some(missing) = missing_of_attention(shape)
    {
        missing
    } else {
        return Ok(());
    };
    Err(not_covered(missing))
}

fn missing_of_attention(shape: &Attention) -> Option<&'static str> {
    if shape.output_gate {
        Some("attention with an output gate")
    } else if shape.qk_norm == QkNorm::Whole {
        Some("norms of q and k over all heads")
    } else if !matches!(shape.rotary_percent, 0 | 100) {
        Some("rotary positions on a part of the head")
    } else if shape.norm_after {
        Some("norms behind attention")
    } else {
        None
    }
}
