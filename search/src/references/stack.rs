//! The stacks by name: which mixer stands in which layer.

use std::fmt;
use std::str::FromStr;

use super::shape::ReferenceShape;
use crate::architecture::{
    Architecture, ArchitectureError, Attention, Delta, Ffn, FfnKind, Layer, Mixer, MixerKind,
    QkNorm,
};

/// A stack by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// Full attention in every layer, as in Llama.
    FullAttention,
    /// Sliding-window attention in every layer.
    Swa,
    /// Sliding-window and full attention in turn.
    SwaFull,
    /// DeltaNet in every layer.
    DeltaNet,
    /// DeltaNet and sliding-window attention in turn (arXiv 2406.06484).
    DeltaNetSwa,
    /// DeltaNet, but full attention in layers 2 and N/2 + 1 counted from 1 (arXiv 2406.06484).
    DeltaNetGlobal,
    /// Gated DeltaNet in every layer.
    GatedDeltaNet,
    /// Log-linear Gated DeltaNet in every layer (arXiv 2506.04761).
    LogLinearGdn,
    /// Gated DeltaNet and sliding-window attention in turn (arXiv 2412.06464, H1).
    GdnH1,
    /// Mamba2, Gated DeltaNet and sliding-window attention in turn (arXiv 2412.06464, H2).
    GdnH2,
    /// Three Gated DeltaNet layers, then one of full attention, as in Qwen3-Next.
    GdnFull,
    /// Mamba2 in every layer.
    Mamba2,
    /// Mamba2 alone, without FFNs: two of them where others have a mixer and an FFN (arXiv 2312.00752, 3.4).
    Mamba2Only,
    /// Log-linear Mamba2 in every layer (arXiv 2506.04761).
    LogLinearMamba2,
    /// Mamba2 with full attention in one layer of eight, as in Nemotron-H.
    Mamba2Full,
    /// Mamba2 and sliding-window attention in turn, as in Samba.
    Samba,
    /// [d, m2, attn, m2] for two thirds of the depth, then [d, m2] (arXiv 2511.18890: 12 mixers in 1B, 18 in 3B).
    NemotronFlash,
    /// The parameter-optimal stack of arXiv 2511.18890: [m2 f, attn f, attn f, d] repeated, then [m2 f, attn f, d f f].
    NemotronFlashSmall,
    /// Gated short convolutions and full attention, as LFM2 has them in 16 layers (arXiv 2511.23404): [c, c, attn] thrice,
    /// then [c, attn] in turn.
    Lfm2,
    /// Three Gated DeltaNet layers, then one of full attention with an output gate, norms of q and k, and rotary positions
    /// on a quarter of each head, θ = 10⁷ (Qwen3-Next, Qwen3.5).
    Qwen3Next,
    /// Three Gated DeltaNet layers with negative eigenvalues, then one of full attention without positions, its norms behind
    /// it, q and k normed over all heads (Olmo Hybrid, arXiv 2604.03444).
    OlmoHybrid,
    /// Mamba2 with full attention without positions in one layer of eight, relu² FFNs (Nemotron-H, arXiv 2504.03624).
    NemotronH,
}

impl Reference {
    /// Every stack.
    pub const ALL: [Self; 22] = [
        Self::FullAttention,
        Self::Swa,
        Self::SwaFull,
        Self::DeltaNet,
        Self::DeltaNetSwa,
        Self::DeltaNetGlobal,
        Self::GatedDeltaNet,
        Self::LogLinearGdn,
        Self::GdnH1,
        Self::GdnH2,
        Self::GdnFull,
        Self::Mamba2,
        Self::Mamba2Only,
        Self::LogLinearMamba2,
        Self::Mamba2Full,
        Self::Samba,
        Self::NemotronFlash,
        Self::NemotronFlashSmall,
        Self::Lfm2,
        Self::Qwen3Next,
        Self::OlmoHybrid,
        Self::NemotronH,
    ];

    /// The name in campaign files.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullAttention => "full-attention",
            Self::Swa => "swa",
            Self::SwaFull => "swa-full",
            Self::DeltaNet => "deltanet",
            Self::DeltaNetSwa => "deltanet-swa",
            Self::DeltaNetGlobal => "deltanet-global",
            Self::GatedDeltaNet => "gated-deltanet",
            Self::LogLinearGdn => "log-linear-gdn",
            Self::GdnH1 => "gdn-h1",
            Self::GdnH2 => "gdn-h2",
            Self::GdnFull => "gdn-full",
            Self::Mamba2 => "mamba2",
            Self::Mamba2Only => "mamba2-only",
            Self::LogLinearMamba2 => "log-linear-mamba2",
            Self::Mamba2Full => "mamba2-full",
            Self::Samba => "samba",
            Self::NemotronFlash => "nemotron-flash",
            Self::NemotronFlashSmall => "nemotron-flash-small",
            Self::Lfm2 => "lfm2",
            Self::Qwen3Next => "qwen3-next",
            Self::OlmoHybrid => "olmo-hybrid",
            Self::NemotronH => "nemotron-h",
        }
    }

    /// The stack at a size.
    ///
    /// # Errors
    /// When a number of `shape` is impossible.
    pub fn build(self, shape: &ReferenceShape) -> Result<Architecture, ArchitectureError> {
        let n = shape.layers as usize;
        let mut layers: Vec<Layer> = (0..n)
            .map(|index| Layer {
                mixer: Some(self.formed(shape.mixer(self.kind(index, n)))),
                ffn: Some(self.ffn(shape.ffn_width)),
            })
            .collect();
        if self == Self::Mamba2Only {
            let alone = Layer { mixer: Some(shape.mixer(MixerKind::Mamba2)), ffn: None };
            layers = vec![alone; 2 * n];
        }
        if self == Self::NemotronFlashSmall {
            for layer in &mut layers[..n.saturating_sub(3)] {
                if layer.mixer.is_some_and(|mixer| mixer.kind() == MixerKind::DeltaNet) {
                    layer.ffn = None;
                }
            }
            layers.push(Layer { mixer: None, ffn: Some(Ffn::swiglu(shape.ffn_width)) });
        }
        Architecture::new(shape.d_model, shape.vocab, shape.tied_embeddings, layers)?
            .with_meta_tokens(shape.meta_tokens)
    }

    /// A mixer in the form that this stack is known for.
    fn formed(self, mixer: Mixer) -> Mixer {
        match (self, mixer) {
            (Self::Qwen3Next, Mixer::Attention(shape)) => {
                let is_cut = shape.head_width.is_multiple_of(8);
                Mixer::Attention(Attention {
                    qk_norm: QkNorm::Head,
                    output_gate: true,
                    rotary_percent: if is_cut { 25 } else { 100 },
                    rope_theta: 10_000_000,
                    ..Attention::full(shape.heads, shape.kv_heads, shape.head_width)
                })
            }
            (Self::OlmoHybrid, Mixer::Attention(shape)) => Mixer::Attention(Attention {
                qk_norm: QkNorm::Whole,
                rotary_percent: 0,
                norm_after: true,
                ..Attention::full(shape.heads, shape.kv_heads, shape.head_width)
            }),
            (Self::NemotronH, Mixer::Attention(shape)) => Mixer::Attention(Attention {
                rotary_percent: 0,
                ..Attention::full(shape.heads, shape.kv_heads, shape.head_width)
            }),
            (Self::OlmoHybrid, Mixer::Delta(shape)) => {
                Mixer::Delta(Delta { negative_eigenvalues: true, ..shape })
            }
            (_, mixer) => mixer,
        }
    }

    /// The FFN where others have a SwiGLU of this width; two matrices are as large as three of two thirds the width.
    fn ffn(self, width: u32) -> Ffn {
        match self {
            Self::NemotronH => Ffn { width: width + width / 2, kind: FfnKind::Relu2 },
            _ => Ffn::swiglu(width),
        }
    }

    /// The mixer of layer `index` of `n`.
    fn kind(self, index: usize, n: usize) -> MixerKind {
        use MixerKind::{DeltaNet, FullAttention, GatedConv, GatedDeltaNet, Mamba2, SlidingWindow};
        let cycle = |kinds: &[MixerKind]| kinds[index % kinds.len()];
        match self {
            Self::FullAttention => FullAttention,
            Self::Swa => SlidingWindow,
            Self::SwaFull => cycle(&[SlidingWindow, FullAttention]),
            Self::DeltaNet => DeltaNet,
            Self::DeltaNetSwa => cycle(&[DeltaNet, SlidingWindow]),
            Self::DeltaNetGlobal => {
                if index == 1 || index == n / 2 {
                    FullAttention
                } else {
                    DeltaNet
                }
            }
            Self::GatedDeltaNet => GatedDeltaNet,
            Self::LogLinearGdn => MixerKind::LogLinearGatedDeltaNet,
            Self::LogLinearMamba2 => MixerKind::LogLinearMamba2,
            Self::GdnH1 => cycle(&[GatedDeltaNet, SlidingWindow]),
            Self::GdnH2 => cycle(&[Mamba2, GatedDeltaNet, SlidingWindow]),
            Self::GdnFull | Self::Qwen3Next | Self::OlmoHybrid => {
                cycle(&[GatedDeltaNet, GatedDeltaNet, GatedDeltaNet, FullAttention])
            }
            // In the middle of each eight, and of a stack of less than eight.
            Self::Mamba2Full | Self::NemotronH if index % 8 == 4.min(n / 2) => FullAttention,
            Self::Mamba2 | Self::Mamba2Only | Self::Mamba2Full | Self::NemotronH => Mamba2,
            Self::Samba => cycle(&[Mamba2, SlidingWindow]),
            Self::NemotronFlash => {
                let with_attention = if n < 4 { 0 } else { 4 * (n / 6).max(1) };
                if index < with_attention {
                    cycle(&[DeltaNet, Mamba2, FullAttention, Mamba2])
                } else {
                    cycle(&[DeltaNet, Mamba2])
                }
            }
            Self::NemotronFlashSmall => {
                let ending = n.saturating_sub(3);
                if index < ending {
                    cycle(&[Mamba2, FullAttention, FullAttention, DeltaNet])
                } else {
                    [Mamba2, FullAttention, DeltaNet][index - ending]
                }
            }
            Self::Lfm2 => {
                // nine sixteenths, in whole threes
                let sparse = 9 * n / 16 / 3 * 3;
                if index < sparse {
                    cycle(&[GatedConv, GatedConv, FullAttention])
                } else {
                    [GatedConv, FullAttention][(index - sparse) % 2]
                }
            }
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no stack has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no reference stack is called `{0}`; there are {list}", list = names())]
pub struct UnknownReference(pub String);

fn names() -> String {
    Reference::ALL.map(Reference::name).join(", ")
}

impl FromStr for Reference {
    type Err = UnknownReference;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|reference| reference.name() == name)
            .ok_or_else(|| UnknownReference(name.to_owned()))
    }
}
