//! Stacks that people designed by hand, to be evaluated on the same terms as what the search proposes.
//!
//! All but the parameter-optimal one have an FFN after every mixer. The sources give most of them for one size; here
//! each is a rule for any number of layers, and exact at the size of its source.

use std::fmt;
use std::str::FromStr;

use crate::architecture::{
    Architecture, ArchitectureError, Attention, DeltaNet, DeltaOptions, DeltaProduct,
    GatedDeltaNet, Layer, Mamba2, Mixer, MixerKind,
};
use crate::space::Space;

/// Levels of log-linear mixers: enough for 16,384 positions, as in arXiv 2506.04761.
const LEVELS: Option<u32> = Some(15);

/// A stack by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// Full attention in every layer, as in Llama.
    FullAttention,
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
    /// Log-linear Mamba2 in every layer (arXiv 2506.04761).
    LogLinearMamba2,
    /// Mamba2 with full attention in one layer of eight, as in Nemotron-H.
    Mamba2Full,
    /// Mamba2 and sliding-window attention in turn, as in Samba.
    Samba,
    /// [d, m2, attn, m2] for two thirds of the depth, then [d, m2] (arXiv 2511.18890, 1B).
    NemotronFlash,
    /// The parameter-optimal stack of arXiv 2511.18890: [m2 f, attn f, attn f, d] repeated, then [m2 f, attn f, d f f].
    NemotronFlashSmall,
}

/// The numbers that a rule needs to become an architecture.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceShape {
    /// Width of the residual stream.
    pub d_model: u32,
    /// Mixers in the stack.
    pub layers: u32,
    /// Number of tokens in the vocabulary.
    pub vocab: u32,
    /// Whether the head shares the embedding's matrix.
    pub tied_embeddings: bool,
    /// Learnt vectors before every sequence.
    pub meta_tokens: u32,
    /// Hidden width of every FFN.
    pub ffn_width: u32,
    /// Full attention; without a window.
    pub attention: Attention,
    /// Positions that sliding-window attention sees.
    pub window: u32,
    /// DeltaNet.
    pub deltanet: DeltaNet,
    /// Gated DeltaNet.
    pub gated_deltanet: GatedDeltaNet,
    /// Mamba2.
    pub mamba2: Mamba2,
}

impl ReferenceShape {
    /// The usual shapes at `d_model`, with heads 64 wide where the width allows.
    ///
    /// Attention and DeltaNet as wide as the model, Gated DeltaNet with H·K = ¾ d and V = 2 K, Mamba2 expanded twice
    /// with N = 128 (half of that below d = 256); a window of 128; FFNs three times as wide as the model.
    pub fn usual(d_model: u32, layers: u32, vocab: u32, tied_embeddings: bool) -> Self {
        let width = [64, 32, 16, 8, 4, 2]
            .into_iter()
            .find(|&w| d_model.is_multiple_of(w) && d_model >= 2 * w);
        let (heads, head_width) =
            width.map_or((1, 2 * d_model.div_ceil(2)), |width| (d_model / width, width));
        let gated_heads = ((3 * heads + 2) / 4).max(1);
        Self {
            d_model,
            layers,
            vocab,
            tied_embeddings,
            meta_tokens: 0,
            ffn_width: 3 * d_model,
            attention: Attention {
                heads,
                kv_heads: heads,
                head_width,
                window: None,
                qk_norm: false,
                selective_rope: false,
            },
            window: 128,
            deltanet: DeltaNet::new(heads, head_width, head_width),
            gated_deltanet: GatedDeltaNet::new(gated_heads, head_width, 2 * head_width),
            mamba2: Mamba2::new(2 * heads, head_width, if d_model < 256 { 64 } else { 128 }),
        }
    }

    /// The middle of a space: its middle d_model, depth and FFN, and the middle shape of each of its mixers; the usual
    /// shape for a mixer that the space does not have.
    pub fn of(space: &Space) -> Self {
        let d_model = space.d_model()[space.d_model().len() / 2];
        let mut shape =
            Self::usual(d_model, space.middle_depth(), space.vocab(), space.tied_embeddings());
        shape.meta_tokens = space.meta_tokens();
        if let Some(width) = space.middle_ffn(d_model) {
            shape.ffn_width = width;
        }
        let mut windowed = None;
        for kind in MixerKind::ALL {
            if matches!(kind, MixerKind::LogLinearGatedDeltaNet | MixerKind::LogLinearMamba2) {
                continue; // shaped as the mixers that they extend
            }
            match (kind, space.middle_shape(kind, d_model)) {
                (MixerKind::SlidingWindow, Some(Mixer::Attention(attention))) => {
                    windowed = Some(attention);
                }
                (_, Some(Mixer::Attention(attention))) => shape.attention = attention,
                (_, Some(Mixer::DeltaNet(deltanet))) => shape.deltanet = deltanet,
                (_, Some(Mixer::GatedDeltaNet(gated))) => shape.gated_deltanet = gated,
                (_, Some(Mixer::Mamba2(mamba2))) => shape.mamba2 = mamba2,
                // no reference stack has it
                (_, Some(Mixer::DeltaProduct(_)) | None) => {}
            }
        }
        if let Some(attention) = windowed {
            shape.window = attention.window.unwrap_or(shape.window);
            if space.middle_shape(MixerKind::FullAttention, d_model).is_none() {
                shape.attention = Attention { window: None, ..attention };
            }
        }
        shape
    }

    /// Two steps with negative eigenvalues, in the shape of the Gated DeltaNet.
    fn delta_product(&self, decay: bool) -> Mixer {
        let GatedDeltaNet { heads, key_width, value_width, output_gate, levels: _, options } =
            self.gated_deltanet;
        let options = DeltaOptions { negative_eigenvalues: true, ..options };
        Mixer::DeltaProduct(DeltaProduct {
            heads,
            key_width,
            value_width,
            steps: 2,
            decay,
            output_gate,
            options,
        })
    }

    fn mixer(&self, kind: MixerKind) -> Mixer {
        match kind {
            MixerKind::FullAttention => {
                Mixer::Attention(Attention { window: None, ..self.attention })
            }
            MixerKind::SlidingWindow => {
                Mixer::Attention(Attention { window: Some(self.window), ..self.attention })
            }
            MixerKind::DeltaNet => Mixer::DeltaNet(self.deltanet),
            MixerKind::GatedDeltaNet => Mixer::GatedDeltaNet(self.gated_deltanet),
            MixerKind::DeltaProduct => self.delta_product(false),
            MixerKind::GatedDeltaProduct => self.delta_product(true),
            MixerKind::Mamba2 => Mixer::Mamba2(self.mamba2),
            MixerKind::LogLinearGatedDeltaNet => {
                Mixer::GatedDeltaNet(GatedDeltaNet { levels: LEVELS, ..self.gated_deltanet })
            }
            MixerKind::LogLinearMamba2 => Mixer::Mamba2(Mamba2 { levels: LEVELS, ..self.mamba2 }),
        }
    }
}

impl Reference {
    /// Every stack.
    pub const ALL: [Self; 16] = [
        Self::FullAttention,
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
        Self::LogLinearMamba2,
        Self::Mamba2Full,
        Self::Samba,
        Self::NemotronFlash,
        Self::NemotronFlashSmall,
    ];

    /// The name in campaign files.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullAttention => "full-attention",
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
            Self::LogLinearMamba2 => "log-linear-mamba2",
            Self::Mamba2Full => "mamba2-full",
            Self::Samba => "samba",
            Self::NemotronFlash => "nemotron-flash",
            Self::NemotronFlashSmall => "nemotron-flash-small",
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
                mixer: Some(shape.mixer(self.kind(index, n))),
                ffn_width: Some(shape.ffn_width),
            })
            .collect();
        if self == Self::NemotronFlashSmall {
            for layer in &mut layers[..n.saturating_sub(3)] {
                if matches!(layer.mixer, Some(Mixer::DeltaNet(_))) {
                    layer.ffn_width = None;
                }
            }
            layers.push(Layer { mixer: None, ffn_width: Some(shape.ffn_width) });
        }
        Architecture::new(shape.d_model, shape.vocab, shape.tied_embeddings, layers)?
            .with_meta_tokens(shape.meta_tokens)
    }

    /// The mixer of layer `index` of `n`.
    fn kind(self, index: usize, n: usize) -> MixerKind {
        use MixerKind::{DeltaNet, FullAttention, GatedDeltaNet, Mamba2, SlidingWindow};
        let cycle = |kinds: &[MixerKind]| kinds[index % kinds.len()];
        match self {
            Self::FullAttention => FullAttention,
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
            Self::GdnFull => cycle(&[GatedDeltaNet, GatedDeltaNet, GatedDeltaNet, FullAttention]),
            // In the middle of each eight, and of a stack of less than eight.
            Self::Mamba2Full if index % 8 == 4.min(n / 2) => FullAttention,
            Self::Mamba2 | Self::Mamba2Full => Mamba2,
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
