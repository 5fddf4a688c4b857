//! Which stacks other software holds: a rule for each target of `deltafront export` that does not take every stack.
//!
//! A rule names what of a stack is in its way, the layers that have it, and what they would have to have. `export --check`
//! and the refusals of `export` say it; `space.loads_in` of a campaign file proposes only what has no obstacle. What is
//! written for a target, its keys and the names of its tensors, is `tui`'s affair.

mod common;
mod fla;
mod llama_cpp;
mod nemotron_flash;
mod obstacle;
mod shapes;
mod trainers;
mod transformers;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use llama_cpp::llama_cpp_architecture;
pub use nemotron_flash::has_an_ffn_after_every_mixer;
pub use obstacle::Obstacle;
pub use shapes::{
    attention_of, delta_rule_of, first, first_mixture, gated_delta_of, mamba2_of, plain_mamba2_of,
    taps_of,
};

use crate::Architecture;

/// Software, or a type of it, that holds some stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// transformers' own type: full attention.
    Llama,
    /// The same with windows.
    Ministral,
    /// The same with windows and norms of q and k.
    Qwen3,
    /// Gated DeltaNet, full attention.
    #[serde(rename = "qwen3_5_text")]
    Qwen35Text,
    /// Gated DeltaNet, attention with norms after it.
    OlmoHybrid,
    /// Mamba2, full attention.
    #[serde(rename = "granitemoehybrid")]
    GraniteMoeHybrid,
    /// Mamba2 without FFNs.
    Mamba2,
    /// Mamba2, attention without positions, relu² FFNs.
    NemotronH,
    /// Gated short convolutions, full attention.
    Lfm2,
    /// Nemotron-Flash's type: DeltaNet, Mamba2, full attention, FFNs and meta tokens.
    NemotronFlash,
    /// flash-linear-attention: a delta rule, attention of any shapes.
    Fla,
    /// llama.cpp.
    Gguf,
    /// The trainer lm-engine: attention, Gated DeltaNet, Mamba2, each layer with sizes of its own.
    #[serde(rename = "lm-engine")]
    LmEngine,
    /// The trainer Megatron-core: the same, mixers and FFNs in any order.
    Megatron,
}

impl Target {
    /// Every target that has a rule.
    pub const ALL: [Self; 14] = [
        Self::Llama,
        Self::Ministral,
        Self::Qwen3,
        Self::Qwen35Text,
        Self::OlmoHybrid,
        Self::GraniteMoeHybrid,
        Self::Mamba2,
        Self::NemotronH,
        Self::Lfm2,
        Self::NemotronFlash,
        Self::Fla,
        Self::Gguf,
        Self::LmEngine,
        Self::Megatron,
    ];

    /// Its word after `--to` and in campaign files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Ministral => "ministral",
            Self::Qwen3 => "qwen3",
            Self::Qwen35Text => "qwen3_5_text",
            Self::OlmoHybrid => "olmo_hybrid",
            Self::GraniteMoeHybrid => "granitemoehybrid",
            Self::Mamba2 => "mamba2",
            Self::NemotronH => "nemotron_h",
            Self::Lfm2 => "lfm2",
            Self::NemotronFlash => "nemotron_flash",
            Self::Fla => "fla",
            Self::Gguf => "gguf",
            Self::LmEngine => "lm-engine",
            Self::Megatron => "megatron",
        }
    }

    /// What of `stack` it cannot hold; none: it loads.
    pub fn obstacles(self, stack: &Architecture) -> Vec<Obstacle> {
        match self {
            Self::Llama => transformers::llama(stack),
            Self::Ministral => transformers::ministral(stack),
            Self::Qwen3 => transformers::qwen3(stack),
            Self::Qwen35Text => transformers::qwen3_5_text(stack),
            Self::OlmoHybrid => transformers::olmo_hybrid(stack),
            Self::GraniteMoeHybrid => transformers::granitemoehybrid(stack),
            Self::Mamba2 => transformers::mamba2(stack),
            Self::NemotronH => transformers::nemotron_h(stack),
            Self::Lfm2 => transformers::lfm2(stack),
            Self::NemotronFlash => nemotron_flash::nemotron_flash(stack),
            Self::Fla => fla::fla(stack),
            Self::Gguf => llama_cpp_architecture(stack).err().unwrap_or_default(),
            Self::LmEngine => trainers::lm_engine(stack),
            Self::Megatron => trainers::megatron(stack),
        }
    }
}
