//! The kinds of mixers: what a mixer is called without its shape.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// DeltaProduct without a decay.
    #[serde(rename = "dp")]
    DeltaProduct,
    /// DeltaProduct with a decay.
    #[serde(rename = "gdp")]
    GatedDeltaProduct,
    /// Mamba2.
    #[serde(rename = "m2")]
    Mamba2,
    /// Log-linear Gated DeltaNet.
    #[serde(rename = "lgdn")]
    LogLinearGatedDeltaNet,
    /// Log-linear Mamba2.
    #[serde(rename = "lm2")]
    LogLinearMamba2,
    /// Gated short convolution.
    #[serde(rename = "gsc")]
    GatedConv,
    /// Kimi Delta Attention.
    #[serde(rename = "kda")]
    Kda,
    /// Parallel heads: attention beside another mixer.
    #[serde(rename = "par")]
    Parallel,
}

impl MixerKind {
    /// Every kind, in the order in which tables list them.
    pub const ALL: [Self; 12] = [
        Self::FullAttention,
        Self::SlidingWindow,
        Self::DeltaNet,
        Self::GatedDeltaNet,
        Self::DeltaProduct,
        Self::GatedDeltaProduct,
        Self::Mamba2,
        Self::LogLinearGatedDeltaNet,
        Self::LogLinearMamba2,
        Self::GatedConv,
        Self::Kda,
        Self::Parallel,
    ];
}
