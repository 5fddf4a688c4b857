//! How wide a reference stack is: the numbers that its rule needs to become an architecture.

use std::collections::BTreeMap;

use crate::architecture::{Attention, Mixer, MixerKind, Usual, nearest_width};
use crate::space::Space;

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
    /// Every kind that has a shape of its own: attention, and the recurrent mixers in their plain form.
    mixers: BTreeMap<MixerKind, Mixer>,
    /// Positions that sliding-window attention sees.
    pub window: u32,
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
        let usual = Usual { d_model, heads, head_width };
        let own = MixerKind::ALL.into_iter().filter(|kind| kind.row().shaped_as.is_none());
        Self {
            d_model,
            layers,
            vocab,
            tied_embeddings,
            meta_tokens: 0,
            ffn_width: 3 * d_model,
            mixers: own.map(|kind| (kind, kind.usual(usual))).collect(),
            window: 128,
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
        for (&kind, mixer) in &mut shape.mixers {
            if let Some(own) = space.middle_shape(kind, d_model) {
                *mixer = own;
            }
        }
        if let Some(windowed @ Mixer::Attention(Attention { window, .. })) =
            space.middle_shape(MixerKind::SlidingWindow, d_model)
        {
            shape.window = window.unwrap_or(shape.window);
            if space.middle_shape(MixerKind::FullAttention, d_model).is_none() {
                shape
                    .mixers
                    .insert(MixerKind::FullAttention, windowed.shaped(MixerKind::FullAttention));
            }
        }
        shape
    }

    /// The shape `scale` times as wide: the model, its FFNs and the numbers of heads, each to the nearest that is possible;
    /// heads keep their widths, but a lone one gets narrower. States and windows stay. Widths are whole steps, of a
    /// thirty-second or less and between 8 and 64, as kernels like them.
    #[must_use]
    pub fn scaled(&self, scale: f64) -> Self {
        let mixers = self.mixers.iter();
        Self {
            d_model: nearest_width(self.d_model, scale),
            ffn_width: nearest_width(self.ffn_width, scale),
            mixers: mixers.map(|(&kind, mixer)| (kind, mixer.nearly_scaled(scale))).collect(),
            ..self.clone()
        }
    }

    /// The mixer of a kind. One without a shape of its own is shaped as the one that it extends.
    pub fn mixer(&self, kind: MixerKind) -> Mixer {
        let shaped_as = kind.row().shaped_as.unwrap_or(kind);
        let mixer = self.mixers[&shaped_as].shaped(kind);
        match mixer {
            Mixer::Attention(attention @ Attention { window: Some(_), .. }) => {
                Mixer::Attention(Attention { window: Some(self.window), ..attention })
            }
            _ => mixer,
        }
    }

    /// The same with another shape for a kind that has one of its own.
    #[must_use]
    pub fn with(mut self, mixer: Mixer) -> Self {
        self.mixers.insert(mixer.kind(), mixer);
        self
    }
}
