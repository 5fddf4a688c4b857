//! The gene of a layer: which token mixer, with which shape.
//!
//! Definitions, parameterisation and sources are in the `kernels` crate, one folder per family. All projections of a
//! mixer read d_model and write d_model, so a mixer's own widths are free of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_WIDTH;

/// Levels above this one would lie beyond any context: positions are 32 bits wide.
const MAX_LEVELS: u32 = 33;

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
    /// Several delta steps per token (arXiv 2502.10297), with a decay or without.
    #[serde(rename = "deltaproduct")]
    DeltaProduct(DeltaProduct),
    /// Mamba-2's state-space duality layer (arXiv 2405.21060).
    #[serde(rename = "mamba2")]
    Mamba2(Mamba2),
}

/// Grouped-query softmax attention with rotary positions: θ = 10⁴, or Selective RoPE.
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
    /// RMSNorm with a learnt weight on each head's q and k: before rotary positions, but after Selective RoPE.
    #[serde(default)]
    pub qk_norm: bool,
    /// Selective RoPE (arXiv 2511.17388) in place of rotary positions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub selective_rope: bool,
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
    /// Whether the normed output is gated by SiLU(g·x); the reference layer does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_gate: bool,
    /// What the whole family may choose.
    #[serde(default, skip_serializing_if = "DeltaOptions::is_default")]
    pub options: DeltaOptions,
}

impl DeltaNet {
    /// The reference layer.
    pub fn new(heads: u32, key_width: u32, value_width: u32) -> Self {
        let options = DeltaOptions::default();
        Self { heads, key_width, value_width, output_gate: false, options }
    }
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
    /// Whether the normed output is gated by SiLU(g·x).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub output_gate: bool,
    /// Log-linear (arXiv 2506.04761): a state for each of so many pieces of the past; none: one state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<u32>,
    /// What the whole family may choose.
    #[serde(default, skip_serializing_if = "DeltaOptions::is_default")]
    pub options: DeltaOptions,
}

impl GatedDeltaNet {
    /// The reference layer.
    pub fn new(heads: u32, key_width: u32, value_width: u32) -> Self {
        let options = DeltaOptions::default();
        Self { heads, key_width, value_width, output_gate: true, levels: None, options }
    }
}

/// DeltaProduct: `steps` delta steps per token, each with a key, a value and a β of its own, and one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeltaProduct {
    /// Heads.
    pub heads: u32,
    /// K, rows of the state.
    pub key_width: u32,
    /// V, columns of the state.
    pub value_width: u32,
    /// Delta steps per token, 2 to 8; one would be DeltaNet or Gated DeltaNet.
    pub steps: u32,
    /// Whether the state decays, once per token and before the first step.
    pub decay: bool,
    /// Whether the normed output is gated by SiLU(g·x).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub output_gate: bool,
    /// What the whole family may choose. The reference layer has negative eigenvalues.
    #[serde(default, skip_serializing_if = "DeltaOptions::is_default")]
    pub options: DeltaOptions,
}

/// What every member of the delta family may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeltaOptions {
    /// Value heads for each key head. The state, β and the decay are those of a value head.
    pub value_groups: u32,
    /// β in (0, 2) and not in (0, 1), so that the state's transition has eigenvalues down to −1.
    pub negative_eigenvalues: bool,
    /// The short convolutions on q, k and v.
    pub short_conv: bool,
    /// Selective RoPE (arXiv 2511.17388) on q and k.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub selective_rope: bool,
}

impl Default for DeltaOptions {
    fn default() -> Self {
        Self {
            value_groups: 1,
            negative_eigenvalues: false,
            short_conv: true,
            selective_rope: false,
        }
    }
}

impl DeltaOptions {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_yes(flag: &bool) -> bool {
    *flag
}

/// A member of the delta family in the terms of the family: what builds, costs and runs it looks at this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each says of one part whether it is there")]
pub struct DeltaFamily {
    /// Heads of q and k.
    pub heads: u32,
    /// Heads of v, of the state, and of the output: a multiple of `heads`, neighbours sharing a key head.
    pub value_heads: u32,
    /// K, rows of the state.
    pub key_width: u32,
    /// V, columns of the state.
    pub value_width: u32,
    /// Delta steps per token. Step j owns the j-th block of rows of k, v and b.
    pub steps: u32,
    /// Whether the state decays.
    pub decay: bool,
    /// Whether the normed output is gated.
    pub output_gate: bool,
    /// Whether β is in (0, 2).
    pub negative_eigenvalues: bool,
    /// Whether q, k and v pass a short convolution.
    pub short_conv: bool,
    /// Whether q and k turn by Selective RoPE.
    pub selective_rope: bool,
    /// States of a head, each of a piece of the past with a scale λ of its own; none: one state without a scale.
    pub levels: Option<u32>,
}

impl DeltaFamily {
    /// What multiplies the read: K^−½, or 1 where λ does.
    pub fn scale(&self) -> f64 {
        if self.levels.is_some() { 1.0 } else { f64::from(self.key_width).powf(-0.5) }
    }

    /// Rows of the projection from which λ comes.
    pub fn level_rows(&self) -> u64 {
        u64::from(self.value_heads) * u64::from(self.levels.unwrap_or(0))
    }

    /// Rows of q, and of each step's k.
    pub fn key_rows(&self) -> u64 {
        u64::from(self.heads) * u64::from(self.key_width)
    }

    /// Rows of each step's v, and of the output.
    pub fn value_rows(&self) -> u64 {
        u64::from(self.value_heads) * u64::from(self.value_width)
    }

    /// Rows of q, k and v together: the channels of the short convolutions.
    pub fn channels(&self) -> u64 {
        self.key_rows() + u64::from(self.steps) * (self.key_rows() + self.value_rows())
    }
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
    /// Log-linear (arXiv 2506.04761): a state for each of so many pieces of the past; none: one state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<u32>,
}

impl Mamba2 {
    /// The reference layer.
    pub fn new(heads: u32, head_width: u32, state_width: u32) -> Self {
        Self { heads, head_width, state_width, levels: None }
    }

    /// Rows of the input projection from which λ comes.
    pub fn level_rows(&self) -> u64 {
        u64::from(self.heads) * u64::from(self.levels.unwrap_or(0))
    }
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
}

impl MixerKind {
    /// Every kind, in the order in which tables list them.
    pub const ALL: [Self; 9] = [
        Self::FullAttention,
        Self::SlidingWindow,
        Self::DeltaNet,
        Self::GatedDeltaNet,
        Self::DeltaProduct,
        Self::GatedDeltaProduct,
        Self::Mamba2,
        Self::LogLinearGatedDeltaNet,
        Self::LogLinearMamba2,
    ];

    /// The short name that stands in the text form and in campaign files.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullAttention => "attn",
            Self::SlidingWindow => "swa",
            Self::DeltaNet => "dn",
            Self::GatedDeltaNet => "gdn",
            Self::DeltaProduct => "dp",
            Self::GatedDeltaProduct => "gdp",
            Self::Mamba2 => "m2",
            Self::LogLinearGatedDeltaNet => "lgdn",
            Self::LogLinearMamba2 => "lm2",
        }
    }

    /// The name that people read.
    pub fn title(self) -> &'static str {
        match self {
            Self::FullAttention => "full attention",
            Self::SlidingWindow => "sliding-window attention",
            Self::DeltaNet => "DeltaNet",
            Self::GatedDeltaNet => "Gated DeltaNet",
            Self::DeltaProduct => "DeltaProduct",
            Self::GatedDeltaProduct => "Gated DeltaProduct",
            Self::Mamba2 => "Mamba2",
            Self::LogLinearGatedDeltaNet => "log-linear Gated DeltaNet",
            Self::LogLinearMamba2 => "log-linear Mamba2",
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
            Self::GatedDeltaNet(GatedDeltaNet { levels: None, .. }) => MixerKind::GatedDeltaNet,
            Self::GatedDeltaNet(GatedDeltaNet { levels: Some(_), .. }) => {
                MixerKind::LogLinearGatedDeltaNet
            }
            Self::DeltaProduct(DeltaProduct { decay: false, .. }) => MixerKind::DeltaProduct,
            Self::DeltaProduct(DeltaProduct { decay: true, .. }) => MixerKind::GatedDeltaProduct,
            Self::Mamba2(Mamba2 { levels: None, .. }) => MixerKind::Mamba2,
            Self::Mamba2(Mamba2 { levels: Some(_), .. }) => MixerKind::LogLinearMamba2,
        }
    }

    /// The mixer as a member of the delta family, if it is one.
    pub fn delta(&self) -> Option<DeltaFamily> {
        let (heads, key_width, value_width, steps, decay, output_gate, options) = match *self {
            Self::DeltaNet(m) => {
                (m.heads, m.key_width, m.value_width, 1, false, m.output_gate, m.options)
            }
            Self::GatedDeltaNet(m) => {
                (m.heads, m.key_width, m.value_width, 1, true, m.output_gate, m.options)
            }
            Self::DeltaProduct(m) => {
                (m.heads, m.key_width, m.value_width, m.steps, m.decay, m.output_gate, m.options)
            }
            Self::Attention(_) | Self::Mamba2(_) => return None,
        };
        let DeltaOptions { value_groups, negative_eigenvalues, short_conv, selective_rope } =
            options;
        Some(DeltaFamily {
            heads,
            value_heads: heads.saturating_mul(value_groups),
            key_width,
            value_width,
            steps,
            decay,
            output_gate,
            negative_eigenvalues,
            short_conv,
            selective_rope,
            levels: self.levels(),
        })
    }

    /// The number of pieces into which a log-linear mixer cuts the past.
    pub fn levels(&self) -> Option<u32> {
        match self {
            Self::GatedDeltaNet(m) => m.levels,
            Self::Mamba2(m) => m.levels,
            Self::Attention(_) | Self::DeltaNet(_) | Self::DeltaProduct(_) => None,
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
            Self::DeltaNet(_) | Self::GatedDeltaNet(_) | Self::DeltaProduct(_) => {
                let family = self.delta().expect("a member of the family");
                width("heads", family.heads)?;
                width("key_width", family.key_width)?;
                width("value_width", family.value_width)?;
                width("value_groups · heads", family.value_heads)?;
                if family.selective_rope && !family.key_width.is_multiple_of(2) {
                    return Err(format!(
                        "key_width must be even for Selective RoPE, got {}",
                        family.key_width
                    ));
                }
                if let Self::DeltaProduct(product) = self
                    && !(2..=8).contains(&product.steps)
                {
                    return Err(format!("steps must be 2 to 8, got {}", product.steps));
                }
            }
            Self::Mamba2(m) => {
                width("heads", m.heads)?;
                width("head_width", m.head_width)?;
                width("state_width", m.state_width)?;
            }
        }
        match self.levels() {
            Some(levels) if !(2..=MAX_LEVELS).contains(&levels) => {
                Err(format!("levels must be 2 to {MAX_LEVELS}, got {levels}"))
            }
            _ => Ok(()),
        }
    }
}
