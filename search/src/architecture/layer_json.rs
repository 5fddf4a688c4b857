//! How a layer stands in JSON and TOML.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ffn, FfnKind, Mixer};

/// One layer: `x += mixer(norm(x))`, then `x += ffn(norm(x))`; either may be absent, not both.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Layer {
    /// The token mixer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mixer: Option<Mixer>,
    /// Hidden width of the feed-forward network; of a mixture of experts that of one expert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ffn_width: Option<u32>,
    /// What it computes.
    #[serde(default, skip_serializing_if = "FfnKind::is_usual")]
    ffn_kind: FfnKind,
}

impl TryFrom<Layer> for super::Layer {
    type Error = &'static str;
    fn try_from(json: Layer) -> Result<Self, Self::Error> {
        let Layer { mixer, ffn_width, ffn_kind } = json;
        if ffn_width.is_none() && !ffn_kind.is_usual() {
            return Err("an ffn_kind wants an ffn_width beside it");
        }
        Ok(Self { mixer, ffn: ffn_width.map(|width| Ffn { width, kind: ffn_kind }) })
    }
}

impl From<super::Layer> for Layer {
    fn from(layer: super::Layer) -> Self {
        let super::Layer { mixer, ffn } = layer;
        let ffn_kind = ffn.map(|ffn| ffn.kind).unwrap_or_default();
        Self { mixer, ffn_width: ffn.map(|ffn| ffn.width), ffn_kind }
    }
}
