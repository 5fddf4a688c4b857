//! How wide a reference stack is: the numbers that its rule needs to become an architecture.

use crate::architecture::{
    Attention, DeltaNet, DeltaOptions, DeltaProduct, GatedDeltaNet, Mamba2, Mixer, MixerKind,
};
use crate::space::Space;

/// Levels of log-linear mixers: enough for 16,384 positions, as in arXiv 2506.04761.
const LEVELS: Option<u32> = Some(15);

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
        shape.meta_tokens = space.middle_meta_tokens();
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

    /// The shape `scale` times as wide: the model, its FFNs and the numbers of heads, each to the nearest that is possible;
    /// heads keep their widths, but a lone one gets narrower. States and windows stay. Widths are whole steps, of a
    /// thirty-second or less and between 8 and 64, as kernels like them.
    #[must_use]
    pub fn scaled(&self, scale: f64) -> Self {
        let width = |width: u32| {
            let wanted = f64::from(width) * scale;
            let step = 2_f64.powi((wanted / 32.0).log2().floor() as i32).clamp(8.0, 64.0);
            ((wanted / step).round().max(1.0) * step) as u32
        };
        // How many heads, and the width of one.
        let heads = |heads: u32| {
            let wanted = f64::from(heads) * scale;
            let narrowed = move |width: u32| {
                2 * (f64::from(width) * wanted.min(1.0) / 2.0).round().max(1.0) as u32
            };
            (wanted.round().max(1.0) as u32, narrowed)
        };
        let Attention { heads: queries, kv_heads: shared, .. } = self.attention;
        let (kv_heads, attention_width) = heads(shared);
        let (delta_heads, delta_width) = heads(self.deltanet.heads);
        let (gated_heads, gated_width) = heads(self.gated_deltanet.heads);
        let (mamba_heads, mamba_width) = heads(self.mamba2.heads);
        Self {
            d_model: width(self.d_model),
            ffn_width: width(self.ffn_width),
            attention: Attention {
                kv_heads,
                heads: kv_heads * (queries / shared),
                head_width: attention_width(self.attention.head_width),
                ..self.attention
            },
            deltanet: DeltaNet {
                heads: delta_heads,
                key_width: delta_width(self.deltanet.key_width),
                value_width: delta_width(self.deltanet.value_width),
                ..self.deltanet
            },
            gated_deltanet: GatedDeltaNet {
                heads: gated_heads,
                key_width: gated_width(self.gated_deltanet.key_width),
                value_width: gated_width(self.gated_deltanet.value_width),
                ..self.gated_deltanet
            },
            mamba2: Mamba2 {
                heads: mamba_heads,
                head_width: mamba_width(self.mamba2.head_width),
                ..self.mamba2
            },
            ..self.clone()
        }
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

    pub(super) fn mixer(&self, kind: MixerKind) -> Mixer {
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
