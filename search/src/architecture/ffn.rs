//! The feed-forward network of a layer: its kinds, and what is said of each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits;
use super::tensor::{Role, Tensors};

/// What a feed-forward network computes between its projections.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum FfnKind {
    /// SwiGLU (arXiv 2002.05202): down(SiLU(gate·x) ⊙ up·x).
    #[default]
    SwiGlu,
    /// Squared ReLU (Primer, arXiv 2109.08668): down(max(up·x, 0)²).
    Relu2,
}

impl FfnKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::SwiGlu, Self::Relu2];

    /// Its word in campaign files and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::SwiGlu => "swiglu",
            Self::Relu2 => "relu2",
        }
    }

    /// The name that people read.
    pub fn title(self) -> &'static str {
        match self {
            Self::SwiGlu => "SwiGLU",
            Self::Relu2 => "relu²",
        }
    }

    /// Its word in the text form of a stack.
    pub fn word(self) -> &'static str {
        match self {
            Self::SwiGlu => "ffn",
            Self::Relu2 => "relu2",
        }
    }

    /// The matrices that read the hidden state, f × d each; one more writes it.
    pub fn readers(self) -> &'static [&'static str] {
        match self {
            Self::SwiGlu => &["gate.weight", "up.weight"],
            Self::Relu2 => &["up.weight"],
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::SwiGlu
    }
}

/// A feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Ffn {
    /// Hidden width of the feed-forward network.
    pub width: u32,
    /// What it computes.
    #[serde(default, skip_serializing_if = "FfnKind::is_usual")]
    pub kind: FfnKind,
}

impl Ffn {
    /// A SwiGLU.
    pub fn swiglu(width: u32) -> Self {
        Self { width, kind: FfnKind::SwiGlu }
    }

    /// As campaign files say it: a width, with the kind before it where that is no SwiGLU.
    pub(crate) fn choice(self) -> String {
        if self.kind.is_usual() {
            self.width.to_string()
        } else {
            format!("{} {}", self.kind.name(), self.width)
        }
    }

    /// Expected and got, when the width is impossible.
    pub(super) fn check(self) -> Result<(), String> {
        limits::width("width", self.width)
    }

    /// Adds its tensors at width `d`, in the order of computation.
    pub(crate) fn tensors(self, d: u64, list: &mut Tensors) {
        let f = u64::from(self.width);
        for reader in self.kind.readers() {
            list.add(reader, &[f, d], Role::Reader);
        }
        list.add("down.weight", &[d, f], Role::Writer);
    }

    /// Its matrices, f·d weights each.
    fn matrices(self) -> u64 {
        self.kind.readers().len() as u64 + 1
    }

    /// Parameters at width `d`, its pre-norm not included.
    pub fn parameters(self, d: u64) -> u64 {
        self.matrices() * u64::from(self.width) * d
    }

    /// Operations on one token at width `d`.
    pub(crate) fn token_flops(self, d: f64) -> f64 {
        2.0 * self.matrices() as f64 * f64::from(self.width) * d
    }
}
