//! The feed-forward network of a layer: its kinds, and what is said of each.
//!
//! A mixture of experts is many small SwiGLUs of which a router chooses a few for each token, as Mixtral (arXiv
//! 2401.04088), OLMoE (arXiv 2409.02060) and DeepSeekMoE (arXiv 2401.06066, with shared experts) have it; how it is computed
//! and trained: `docs/mixture-of-experts.md`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::{self, is_zero};
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
    /// A mixture of experts, each a SwiGLU.
    Moe(Experts),
}

/// The experts of a mixture: a router gives each token to some, a shared one takes all.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// Experts that the router chooses among, E.
    pub experts: u32,
    /// Those that each token goes through, k.
    pub per_token: u32,
    /// Experts that every token goes through beside them; together one SwiGLU of so many widths.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shared: u32,
}

/// Experts of one layer at most.
const MAX_EXPERTS: u32 = 1024;

impl Experts {
    /// Expected and got, when there is no such mixture.
    fn check(self) -> Result<(), String> {
        let Self { experts, per_token, shared } = self;
        if !(2..=MAX_EXPERTS).contains(&experts) {
            return Err(format!("experts must be 2 to {MAX_EXPERTS}, got {experts}"));
        }
        if !(1..=experts).contains(&per_token) {
            return Err(format!("a token goes through 1 to {experts} experts, got {per_token}"));
        }
        if shared > MAX_EXPERTS {
            return Err(format!("shared experts must be 0 to {MAX_EXPERTS}, got {shared}"));
        }
        Ok(())
    }

    /// Routed experts that a step of `tokens` tokens is expected to read, each of which chooses by itself and all alike: of E
    /// experts one is missed by all with (1 − k/E)^tokens.
    pub fn read(self, tokens: u32) -> f64 {
        let (experts, per_token) = (f64::from(self.experts), f64::from(self.per_token));
        if tokens == 1 {
            return per_token;
        }
        experts * (1.0 - (1.0 - per_token / experts).powf(tokens.into()))
    }
}

/// What a kind is called.
struct Words {
    /// In campaign files and JSON.
    name: &'static str,
    /// For people.
    title: &'static str,
    /// In the text form of a stack.
    text: &'static str,
}

impl FfnKind {
    /// One of every kind; of a mixture of experts the smallest.
    pub const ALL: [Self; 3] =
        [Self::SwiGlu, Self::Relu2, Self::Moe(Experts { experts: 2, per_token: 1, shared: 0 })];

    const fn words(self) -> Words {
        match self {
            Self::SwiGlu => Words { name: "swiglu", title: "SwiGLU", text: "ffn" },
            Self::Relu2 => Words { name: "relu2", title: "relu²", text: "relu2" },
            Self::Moe(_) => Words { name: "moe", title: "mixture of experts", text: "moe" },
        }
    }

    /// Its word in campaign files and JSON.
    pub fn name(self) -> &'static str {
        self.words().name
    }

    /// The name that people read.
    pub fn title(self) -> &'static str {
        self.words().title
    }

    /// Its word in the text form of a stack.
    pub fn word(self) -> &'static str {
        self.words().text
    }

    /// The experts of a mixture.
    pub fn experts(self) -> Option<Experts> {
        match self {
            Self::Moe(experts) => Some(experts),
            Self::SwiGlu | Self::Relu2 => None,
        }
    }

    /// The matrices of a network or an expert that read the hidden state, f × d each; one more writes it.
    pub fn readers(self) -> &'static [&'static str] {
        match self {
            Self::SwiGlu | Self::Moe(_) => &["gate.weight", "up.weight"],
            Self::Relu2 => &["up.weight"],
        }
    }

    /// As campaign files say it before a size: `relu2`, `moe e=8 k=2 s=1`.
    pub(crate) fn choice(self) -> String {
        match self {
            Self::Moe(Experts { experts, per_token, shared: 0 }) => {
                format!("moe e={experts} k={per_token}")
            }
            Self::Moe(Experts { experts, per_token, shared }) => {
                format!("moe e={experts} k={per_token} s={shared}")
            }
            kind => kind.name().to_owned(),
        }
    }

    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::SwiGlu
    }
}

/// A feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Ffn {
    /// Hidden width of the feed-forward network; of a mixture that of one expert.
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
        match self.kind {
            FfnKind::SwiGlu => self.width.to_string(),
            kind => format!("{} {}", kind.choice(), self.width),
        }
    }

    /// Its sizes beside its word, for people: `768`, `256 e8 k2 s1`.
    pub fn brief(self) -> String {
        let width = self.width;
        match self.kind.experts() {
            None => width.to_string(),
            Some(Experts { experts, per_token, shared: 0 }) => {
                format!("{width} e{experts} k{per_token}")
            }
            Some(Experts { experts, per_token, shared }) => {
                format!("{width} e{experts} k{per_token} s{shared}")
            }
        }
    }

    /// Expected and got, when it is impossible.
    pub(crate) fn check(self) -> Result<(), String> {
        limits::width("width", self.width)?;
        let Some(experts) = self.kind.experts() else { return Ok(()) };
        experts.check()?;
        // what a matrix of all of them holds stays inside u64
        limits::width("the width of all experts", self.width.saturating_mul(experts.experts))?;
        limits::width("the width of all shared experts", (self.width * experts.shared).max(1))
    }

    /// Hidden width that a token goes through: of a mixture that of its experts, shared ones included.
    pub fn active_width(self) -> u32 {
        self.width * self.kind.experts().map_or(1, |of| of.per_token + of.shared)
    }

    /// Adds its tensors at width `d`, in the order of computation. The experts of a mixture are one tensor,
    /// `[E, out, in]`.
    pub(crate) fn tensors(self, d: u64, list: &mut Tensors) {
        let f = u64::from(self.width);
        let Some(Experts { experts, shared, .. }) = self.kind.experts() else {
            for reader in self.kind.readers() {
                list.add(reader, &[f, d], Role::Reader);
            }
            return list.add("down.weight", &[d, f], Role::Writer);
        };
        let experts = u64::from(experts);
        list.add("router.weight", &[experts, d], Role::Reader);
        for reader in self.kind.readers() {
            list.add(reader, &[experts, f, d], Role::Reader);
        }
        list.add("down.weight", &[experts, d, f], Role::Writer);
        if shared > 0 {
            let f = f * u64::from(shared);
            for reader in self.kind.readers() {
                list.add(&format!("shared.{reader}"), &[f, d], Role::Reader);
            }
            list.add("shared.down.weight", &[d, f], Role::Writer);
        }
    }

    /// Matrices of a network or an expert, f·d weights each.
    fn matrices(self) -> u64 {
        self.kind.readers().len() as u64 + 1
    }

    /// Weights of a network or an expert at width `d`.
    fn of_one(self, d: u64) -> u64 {
        self.matrices() * u64::from(self.width) * d
    }

    /// Parameters at width `d`, its pre-norm not included.
    pub fn parameters(self, d: u64) -> u64 {
        self.with_experts(d, |experts| u64::from(experts.experts) * self.of_one(d))
    }

    /// Those of them that one token is multiplied by.
    pub fn active_parameters(self, d: u64) -> u64 {
        self.read_parameters(d, 1)
    }

    /// Those of them that a step of `tokens` tokens is expected to read, see [`Experts::read`].
    pub fn read_parameters(self, d: u64, tokens: u32) -> u64 {
        self.with_experts(d, |experts| {
            (experts.read(tokens) * self.of_one(d) as f64).round() as u64
        })
    }

    /// Parameters at width `d` where those of the routed experts are as `routed` says.
    fn with_experts(self, d: u64, routed: impl FnOnce(Experts) -> u64) -> u64 {
        match self.kind.experts() {
            None => self.of_one(d),
            Some(of) => {
                u64::from(of.experts) * d + routed(of) + u64::from(of.shared) * self.of_one(d)
            }
        }
    }

    /// Operations on one token at width `d`.
    pub(crate) fn token_flops(self, d: f64) -> f64 {
        let router = self.kind.experts().map_or(0.0, |of| f64::from(of.experts));
        2.0 * d * (self.matrices() as f64 * f64::from(self.active_width()) + router)
    }
}
