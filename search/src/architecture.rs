//! The architecture: a flat list of layers, each a token mixer and a feed-forward network.
//!
//! An [`Architecture`] that exists is valid: the only ways to make one are [`Architecture::new`], [`str::parse`] and
//! serde, and all three check. Its canonical text form ([`std::fmt::Display`]) parses back to itself and hashes to its
//! identity ([`Architecture::id`]):
//!
//! ```text
//! d=256,vocab=256,tied | 2*gdn(h=3,k=64,v=128)+ffn(768) | swa(h=4,kv=2,k=64,w=128)+ffn(768)
//! ```

mod ffn;
mod layer_json;
mod limits;
mod mixer;
mod phases;
mod scale;
mod tensor;
mod text;

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use ffn::{Experts, Ffn, FfnKind};
pub(crate) use limits::{MAX_LAYERS, MAX_WIDTH, is_zero};
pub use mixer::{
    Attention, Beside, Choice, Colour, Delta, Form, GatedConv, Gene, Kda, Kind, Letter, Mamba2,
    Mixer, MixerKind, Parallel, Past, QkNorm, Side, Turn,
};
pub(crate) use mixer::{Misfit, Settings, Usual};
pub use phases::{PhaseForms, Phases, Temperature};
pub(crate) use scale::nearest_width;
pub use scale::whole;
pub(crate) use tensor::Tensors;
pub use tensor::{CONV_WIDTH, Role, TensorSpec};

/// Why a description is not an architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchitectureError {
    /// A number is outside what the mixer's definition allows.
    #[error("layer {layer}: {mixer}: {what}")]
    Layer {
        /// Index of the layer, from 0.
        layer: usize,
        /// The short name of the mixer, or `ffn`.
        mixer: &'static str,
        /// Expected and got.
        what: String,
    },
    /// A number of the whole model is impossible.
    #[error("{0}")]
    Model(String),
    /// The text form does not parse.
    #[error("at character {at} of the architecture text: {what}")]
    Text {
        /// Byte offset into the text.
        at: usize,
        /// Expected and got.
        what: String,
    },
}

/// One layer: `x += mixer(norm(x))`, then `x += ffn(norm(x))`, or the norms behind them; either may be absent, not both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "layer_json::Layer", into = "layer_json::Layer")]
#[schemars(with = "layer_json::Layer")]
pub struct Layer {
    /// The token mixer.
    pub mixer: Option<Mixer>,
    /// The feed-forward network.
    pub ffn: Option<Ffn>,
}

/// A stack of layers between an embedding and a head, checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
#[schemars(with = "Unchecked")]
pub struct Architecture {
    d_model: u32,
    vocab: u32,
    tied_embeddings: bool,
    meta_tokens: u32,
    /// Shared by its clones, of which a campaign holds several.
    layers: Arc<[Layer]>,
}

/// The serialised shape of an [`Architecture`], before its check.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename = "Architecture")]
pub struct Unchecked {
    /// Width of the residual stream.
    pub d_model: u32,
    /// Number of tokens in the vocabulary.
    pub vocab: u32,
    /// Whether the head shares the embedding's matrix.
    pub tied_embeddings: bool,
    /// Learnt vectors before every sequence.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub meta_tokens: u32,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
}

impl TryFrom<Unchecked> for Architecture {
    type Error = ArchitectureError;
    fn try_from(u: Unchecked) -> Result<Self, Self::Error> {
        Self::new(u.d_model, u.vocab, u.tied_embeddings, u.layers)?.with_meta_tokens(u.meta_tokens)
    }
}

impl From<Architecture> for Unchecked {
    fn from(a: Architecture) -> Self {
        Self {
            d_model: a.d_model,
            vocab: a.vocab,
            tied_embeddings: a.tied_embeddings,
            meta_tokens: a.meta_tokens,
            layers: a.layers.to_vec(),
        }
    }
}

/// The identity of an architecture: the first 16 hexadecimal digits of the BLAKE3 hash of its canonical text.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct ArchitectureId(String);

impl ArchitectureId {
    /// The 16 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One that was kept as text; none where the text is no identity.
    pub fn stored(digits: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 16 && digits.bytes().all(is_digit)).then(|| Self(digits.to_owned()))
    }

    /// The identity of what has this canonical text.
    pub(crate) fn of_text(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()).to_hex()[..16].to_owned())
    }
}

impl fmt::Display for ArchitectureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Architecture {
    /// Checks and builds.
    ///
    /// # Errors
    /// When a width is zero or above 2²⁰, heads do not divide, or a layer is empty; the message names the layer.
    pub fn new(
        d_model: u32,
        vocab: u32,
        tied_embeddings: bool,
        layers: Vec<Layer>,
    ) -> Result<Self, ArchitectureError> {
        for (name, n) in [("d_model", d_model), ("vocab", vocab)] {
            if n == 0 || n > MAX_WIDTH {
                return Err(ArchitectureError::Model(format!(
                    "{name} must be 1 to {MAX_WIDTH}, got {n}"
                )));
            }
        }
        if layers.is_empty() || layers.len() > MAX_LAYERS {
            return Err(ArchitectureError::Model(format!(
                "an architecture has 1 to {MAX_LAYERS} layers, got {}",
                layers.len()
            )));
        }
        for (index, layer) in layers.iter().enumerate() {
            layer.check().map_err(|(mixer, what)| ArchitectureError::Layer {
                layer: index,
                mixer,
                what,
            })?;
        }
        Ok(Self { d_model, vocab, tied_embeddings, meta_tokens: 0, layers: layers.into() })
    }

    /// The same with `meta_tokens` learnt vectors before every sequence, which give its mixers a learnt initial state or
    /// cache (arXiv 2511.18890).
    ///
    /// # Errors
    /// When there are more than 2²⁰.
    pub fn with_meta_tokens(self, meta_tokens: u32) -> Result<Self, ArchitectureError> {
        if meta_tokens > MAX_WIDTH {
            return Err(ArchitectureError::Model(format!(
                "meta tokens must be 0 to {MAX_WIDTH}, got {meta_tokens}"
            )));
        }
        Ok(Self { meta_tokens, ..self })
    }

    /// Width of the residual stream.
    pub fn d_model(&self) -> u32 {
        self.d_model
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab(&self) -> u32 {
        self.vocab
    }

    /// Whether the head shares the embedding's matrix.
    pub fn tied_embeddings(&self) -> bool {
        self.tied_embeddings
    }

    /// Learnt vectors before every sequence.
    pub fn meta_tokens(&self) -> u32 {
        self.meta_tokens
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Terms that the residual stream sums, at least 1: mixers and FFNs.
    pub fn branches(&self) -> f64 {
        let of_layer =
            |layer: &Layer| u32::from(layer.mixer.is_some()) + u32::from(layer.ffn.is_some());
        f64::from(self.layers.iter().map(of_layer).sum::<u32>()).max(1.0)
    }

    /// The identity: equal architectures, and only they, have equal ids.
    pub fn id(&self) -> ArchitectureId {
        ArchitectureId::of_text(&self.to_string())
    }
}

impl Layer {
    /// Whether its norms stand behind the mixer and the FFN, and not before them.
    pub fn norms_after(&self) -> bool {
        self.mixer.is_some_and(|mixer| mixer.norms_after())
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.mixer.is_none() && self.ffn.is_none() {
            return Err((
                "empty",
                "a layer needs a mixer, a feed-forward network, or both".to_owned(),
            ));
        }
        if let Some(mixer) = &self.mixer {
            mixer.check().map_err(|what| (mixer.kind().name(), what))?;
        }
        self.ffn.map_or(Ok(()), Ffn::check).map_err(|what| ("ffn", what))
    }
}
