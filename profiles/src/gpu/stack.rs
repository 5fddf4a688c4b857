//! An architecture in the terms of the GPU's decode step.

use kernels::cuda::decode::{self, Layer, Stack};
use search::Architecture;
use search::architecture::Mixer;

use crate::error::ProfileError;

/// The stack of `architecture`, with caches for `positions`, of which its meta tokens are the first.
///
/// # Errors
/// When the step does not cover one of its mixers.
pub fn stack(architecture: &Architecture, positions: usize) -> Result<Stack, ProfileError> {
    let layers = architecture
        .layers()
        .iter()
        .map(|layer| {
            Ok(Layer {
                mixer: layer.mixer.as_ref().map(mixer).transpose()?,
                ffn: layer.ffn_width.map(|width| width as usize),
            })
        })
        .collect::<Result<_, ProfileError>>()?;
    Ok(Stack {
        d_model: architecture.d_model() as usize,
        vocabulary: architecture.vocab() as usize,
        tied: architecture.tied_embeddings(),
        positions,
        layers,
    })
}

/// A mixer of the step.
pub(super) fn mixer(mixer: &Mixer) -> Result<decode::Mixer, ProfileError> {
    let missing = if mixer.levels().is_some() {
        "log-linear mixers"
    } else if mixer.phases().is_some() {
        "Selective RoPE"
    } else {
        ""
    };
    if !missing.is_empty() {
        return Err(ProfileError::Conditions(format!(
            "the GPU's decode step does not cover {missing}; leave them out of [space], or time with latency.device = \"cpu\""
        )));
    }
    Ok(match mixer {
        Mixer::Attention(shape) => decode::Mixer::Attention {
            heads: shape.heads as usize,
            kv_heads: shape.kv_heads as usize,
            width: shape.head_width as usize,
            window: shape.window.map(|w| w as usize),
            qk_norm: shape.qk_norm,
        },
        Mixer::Delta(shape) => decode::Mixer::Delta(decode::Delta {
            key_heads: shape.heads as usize,
            heads: shape.value_heads() as usize,
            key_width: shape.key_width as usize,
            value_width: shape.value_width as usize,
            steps: shape.steps_per_token() as usize,
            decay: shape.decay,
            output_gate: shape.output_gate,
            negative_eigenvalues: shape.negative_eigenvalues,
            short_conv: shape.short_conv,
        }),
        Mixer::Mamba2(shape) => decode::Mixer::Mamba2 {
            heads: shape.heads as usize,
            head_width: shape.head_width as usize,
            state_width: shape.state_width as usize,
        },
    })
}
