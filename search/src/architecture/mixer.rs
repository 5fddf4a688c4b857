//! The gene of a layer: which token mixer, with which shape.
//!
//! Definitions, parameterisation and sources are in the `kernels` crate, one folder per family. All projections of a
//! mixer read d_model and write d_model, so a mixer's own widths are free of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_WIDTH;

/// A token mixer and its shape.
///
/// A new mixer is a new variant here; the compiler then names every place that must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub enum Mixer {
    /// Softmax attention over the whole past, or over the last `window` positions.
    #[serde(rename = "attention")]
    Attention(Attention),
    /// The delta rule (arXiv 2406.06484).
    #[serde(rename = "deltanet")]
    DeltaNet(DeltaNet),
    /// The gated delta rule (arXiv 2412.06464).
    #[serde(rename = "gated_deltanet")]
    GatedDeltaNet(GatedDeltaNet),
    /// Mamba-2's state-space duality layer (arXiv 2405.21060).
    #[serde(rename = "mamba2")]
    Mamba2(Mamba2),
}

/// Grouped-query softmax attention with rotary positions (θ = 10⁴).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Channels of a head, even (rotary positions act on halves).
    pub head_width: u32,
    /// The last positions attended to, the current one included; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// RMSNorm with a learnt weight on each head's q and k.
    #[serde(default)]
    pub qk_norm: bool,
}

/// DeltaNet: state of `key_width` × `value_width` per head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeltaNet {
    /// Heads.
    pub heads: u32,
    /// K, rows of the state.
    pub key_width: u32,
    /// V, columns of the state.
    pub value_width: u32,
}

/// Gated DeltaNet: state of `key_width` × `value_width` per head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatedDeltaNet {
    /// Heads.
    pub heads: u32,
    /// K, rows of the state.
    pub key_width: u32,
    /// V, columns of the state.
    pub value_width: u32,
}

/// Mamba2: inner width `heads · head_width` (the reference expands d_model twice), one group of B and C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mamba2 {
    /// Heads.
    pub heads: u32,
    /// P, channels of a head.
    pub head_width: u32,
    /// N, width of the state.
    pub state_width: u32,
}

/// The name of a mixer without its shape. Sliding-window attention has a name of its own.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum MixerKind {
    /// Full attention.
    #[serde(rename = "attn")]
    FullAttention,
    /// Sliding-window attention.
    #[serde(rename = "swa")]
    SlidingWindow,
    /// DeltaNet.
    #[serde(rename = "dn")]
    DeltaNet,
    /// Gated DeltaNet.
    #[serde(rename = "gdn")]
    GatedDeltaNet,
    /// Mamba2.
    #[serde(rename = "m2")]
    Mamba2,
}

impl MixerKind {
    /// Every kind, in the order in which tables list them.
    pub const ALL: [Self; 5] = [
        Self::FullAttention,
        Self::SlidingWindow,
        Self::DeltaNet,
        Self::GatedDeltaNet,
        Self::Mamba2,
    ];

    /// The short name that stands in the text form and in campaign files.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullAttention => "attn",
            Self::SlidingWindow => "swa",
            Self::DeltaNet => "dn",
            Self::GatedDeltaNet => "gdn",
            Self::Mamba2 => "m2",
        }
    }

    /// The name that people read.
    pub fn title(self) -> &'static str {
        match self {
            Self::FullAttention => "full attention",
            Self::SlidingWindow => "sliding-window attention",
            Self::DeltaNet => "DeltaNet",
            Self::GatedDeltaNet => "Gated DeltaNet",
            Self::Mamba2 => "Mamba2",
        }
    }
}

impl Mixer {
    /// The kind, without its shape.
    pub fn kind(&self) -> MixerKind {
        match self {
            Self::Attention(Attention { window: None, .. }) => MixerKind::FullAttention,
            Self::Attention(Attention { window: Some(_), .. }) => MixerKind::SlidingWindow,
            Self::DeltaNet(_) => MixerKind::DeltaNet,
            Self::GatedDeltaNet(_) => MixerKind::GatedDeltaNet,
            Self::Mamba2(_) => MixerKind::Mamba2,
        }
    }

    /// Expected and got, when the shape is impossible.
    pub(crate) fn check(&self) -> Result<(), String> {
        let width = |name: &str, n: u32| {
            if (1..=MAX_WIDTH).contains(&n) {
                Ok(())
            } else {
                Err(format!("{name} must be 1 to {MAX_WIDTH}, got {n}"))
            }
        };
        match *self {
            Self::Attention(a) => {
                width("heads", a.heads)?;
                width("kv_heads", a.kv_heads)?;
                width("head_width", a.head_width)?;
                if let Some(window) = a.window {
                    width("window", window)?;
                }
                if !a.heads.is_multiple_of(a.kv_heads) {
                    return Err(format!(
                        "kv_heads must divide heads, got {} heads and {} kv_heads",
                        a.heads, a.kv_heads
                    ));
                }
                if !a.head_width.is_multiple_of(2) {
                    return Err(format!(
                        "head_width must be even for rotary positions, got {}",
                        a.head_width
                    ));
                }
            }
            Self::DeltaNet(DeltaNet { heads, key_width, value_width })
            | Self::GatedDeltaNet(GatedDeltaNet { heads, key_width, value_width }) => {
                width("heads", heads)?;
                width("key_width", key_width)?;
                width("value_width", value_width)?;
            }
            Self::Mamba2(m) => {
                width("heads", m.heads)?;
                width("head_width", m.head_width)?;
                width("state_width", m.state_width)?;
            }
        }
        Ok(())
    }
}
