//! Parallel heads: attention beside Mamba2 or a delta rule in one layer, each normed and added (Hymba, arXiv 2411.13676,
//! section 2.1), or added as they are (Falcon-H1, arXiv 2507.22448).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attention::{self, Attention};
use super::delta::Delta;
use super::family::{Colour, Family, Kind, Past, Usual};
use super::gene::{Form, Gene, Letter, Misfit, Settings, Turn};
use super::kind::MixerKind;
use super::mamba2::Mamba2;
use super::qk_norm::QkNorm;
use crate::architecture::limits::{MAX_WIDTH, is_zero};
use crate::architecture::phases::Phases;
use crate::architecture::tensor::{Role, Tensors};

/// What stands beside attention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Beside {
    /// Mamba2.
    #[default]
    M2,
    /// Gated DeltaNet.
    Gdn,
    /// DeltaNet.
    Dn,
}

impl Beside {
    const ALL: [Self; 3] = [Self::M2, Self::Gdn, Self::Dn];
    /// As campaign files say them, …
    const FORMS: [Form; 3] = [Form::Named("m2"), Form::Named("gdn"), Form::Named("dn")];
    /// … and as the text form does.
    const WORDS: [&str; 3] = ["", "gdn", "dn"];
}

/// y = norm(attention(x)) + norm(the other(x)), each norm an RMSNorm with a weight of its own, or without the norms. Both
/// are as their reference layers have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parallel {
    /// Query heads of attention.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Channels of a head, even.
    pub head_width: u32,
    /// The last positions attended to, the current one included; 0: all of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub window: u32,
    /// RMSNorm of q and k.
    #[serde(default)]
    pub qk_norm: QkNorm,
    /// The part of a head that turns with its position, in hundredths; 0: no positions at all (NoPE).
    pub rotary_percent: u32,
    /// What stands beside attention.
    #[serde(default)]
    pub beside: Beside,
    /// Its heads.
    pub beside_heads: u32,
    /// K of a delta rule, N of Mamba2.
    pub beside_key_width: u32,
    /// V of a delta rule, P of Mamba2.
    pub beside_value_width: u32,
    /// Whether what either says is normed before it is added.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub branch_norms: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_yes(flag: &bool) -> bool {
    *flag
}

/// The shape of what stands beside attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Side {
    /// Mamba2.
    Mamba2(Mamba2),
    /// A delta rule.
    Delta(Delta),
}

/// Runs `$body` with `$member` bound to the shape of a side, in its family's own type.
macro_rules! of_side {
    ($side:expr, $member:ident => $body:expr) => {
        match $side {
            Side::Mamba2($member) => $body,
            Side::Delta($member) => $body,
        }
    };
}

impl Parallel {
    /// The attention.
    pub fn attention(&self) -> Attention {
        Attention {
            window: (self.window > 0).then_some(self.window),
            qk_norm: self.qk_norm,
            rotary_percent: self.rotary_percent,
            ..Attention::full(self.heads, self.kv_heads, self.head_width)
        }
    }

    /// What stands beside it.
    pub fn side(&self) -> Side {
        let (heads, key, value) =
            (self.beside_heads, self.beside_key_width, self.beside_value_width);
        match self.beside {
            Beside::M2 => Side::Mamba2(Mamba2::new(heads, value, key)),
            Beside::Gdn => Side::Delta(Delta::gated(heads, key, value)),
            Beside::Dn => Side::Delta(Delta::deltanet(heads, key, value)),
        }
    }

    /// The same of other sizes.
    fn of(self, attention: Attention, side: Side) -> Self {
        let [beside_heads, beside_key_width, beside_value_width] = of_side!(side, m => m.sizes());
        Self {
            heads: attention.heads,
            kv_heads: attention.kv_heads,
            head_width: attention.head_width,
            beside_heads,
            beside_key_width,
            beside_value_width,
            ..self
        }
    }
}

/// As of attention, with the same defaults.
const BESIDE_KEY_WIDTH: &[u32] = &[32, 64];

impl Family for Parallel {
    const KINDS: &'static [Kind] = &[Kind {
        kind: MixerKind::Parallel,
        name: "par",
        title: "parallel heads",
        sign: '◨',
        colour: Colour::LightRed,
        shaped_as: None,
        about: "Attention beside Mamba2 or a delta rule in one layer, each normed and added.",
        table: ("ParallelChoices", "Choices for parallel heads."),
        genes: &[
            attention::HEADS,
            attention::KV_HEADS,
            attention::HEAD_WIDTH,
            Gene {
                letter: Letter::Unless("w", 0),
                ..Gene::numbers(
                    "window",
                    "w",
                    &[0],
                    "The last positions attended to, the current one included; 0: all of them.",
                )
            }
            .within(0, MAX_WIDTH),
            attention::QK_NORM,
            Gene { turn: Turn::First, ..attention::ROTARY },
            Gene::forms("beside", &Beside::FORMS, &Beside::WORDS, "What stands beside attention."),
            Gene::counts("beside_heads", "bh", "Its heads; `\"auto\"`: as of a layer of its own."),
            Gene::numbers(
                "beside_key_width",
                "bk",
                BESIDE_KEY_WIDTH,
                "K of a delta rule, N, the width of the state, of Mamba2.",
            ),
            Gene::counts(
                "beside_value_width",
                "bv",
                "V of a delta rule, P, the channels of a head, of Mamba2; `\"auto\"`: K of DeltaNet, 2 K of Gated DeltaNet, head_width of Mamba2.",
            ),
            Gene::flag(
                "branch_norms",
                Letter::Off("nonorms"),
                true,
                "Whether both outputs are normed before they are added; Falcon-H1 adds them as they are.",
            )
            .if_chosen(),
        ],
        not_both_auto: Some(["heads", "head_width"]),
    }];

    fn build(_: MixerKind, genes: &Settings) -> Self {
        Self {
            heads: genes.number("heads"),
            kv_heads: genes.number("kv_heads"),
            head_width: genes.number("head_width"),
            window: genes.number("window"),
            qk_norm: QkNorm::ALL[genes.number("qk_norm") as usize],
            rotary_percent: genes.number("rotary_percent"),
            beside: Beside::ALL[genes.number("beside") as usize],
            beside_heads: genes.number("beside_heads"),
            beside_key_width: genes.number("beside_key_width"),
            beside_value_width: genes.number("beside_value_width"),
            branch_norms: genes.flag("branch_norms") != Some(false),
        }
    }

    fn derive(_: MixerKind, d_model: u32, genes: &mut Settings) -> Result<(), Misfit> {
        Attention::derive(MixerKind::FullAttention, d_model, genes)?;
        let beside = Beside::ALL[genes.number("beside") as usize];
        let key_width = genes.number("beside_key_width");
        let (heads, value_width) = (genes.get("beside_heads"), genes.get("beside_value_width"));
        let mut own = Settings::default();
        own.set("heads", heads);
        let names = match beside {
            Beside::M2 => {
                own.set("head_width", value_width.or(Some(genes.number("head_width"))));
                Mamba2::derive(MixerKind::Mamba2, d_model, &mut own)
                    .map_err(|(_, what)| ("beside_value_width", what))?;
                "head_width"
            }
            Beside::Gdn | Beside::Dn => {
                own.set("key_width", Some(key_width));
                own.set("value_width", value_width);
                let kind = if beside == Beside::Dn {
                    MixerKind::DeltaNet
                } else {
                    MixerKind::GatedDeltaNet
                };
                Delta::derive(kind, d_model, &mut own)
                    .map_err(|(_, what)| ("beside_key_width", what))?;
                "value_width"
            }
        };
        genes.set("beside_heads", own.get("heads"));
        genes.set("beside_value_width", own.get(names));
        Ok(())
    }

    fn usual(_: MixerKind, usual: Usual) -> Self {
        let attention = Attention::usual(MixerKind::FullAttention, usual);
        let beside = Mamba2::usual(MixerKind::Mamba2, usual);
        Self {
            heads: 0,
            kv_heads: 0,
            head_width: 0,
            window: 0,
            qk_norm: attention.qk_norm,
            rotary_percent: attention.rotary_percent,
            beside: Beside::M2,
            beside_heads: 0,
            beside_key_width: 0,
            beside_value_width: 0,
            branch_norms: true,
        }
        .of(attention, Side::Mamba2(beside))
    }

    fn kind(&self) -> MixerKind {
        MixerKind::Parallel
    }

    fn gene(&self, name: &str) -> u32 {
        match name {
            "window" => self.window,
            "beside" => self.beside as u32,
            "beside_heads" => self.beside_heads,
            "beside_key_width" => self.beside_key_width,
            "beside_value_width" => self.beside_value_width,
            "branch_norms" => self.branch_norms.into(),
            of_attention => self.attention().gene(of_attention),
        }
    }

    fn check(&self) -> Result<(), String> {
        self.attention().check()?;
        of_side!(self.side(), m => m.check()).map_err(|what| format!("beside attention: {what}"))
    }

    fn tensors(&self, d: u64, list: &mut Tensors) {
        let prefix = list.prefix.clone();
        list.prefix = format!("{prefix}attention.");
        self.attention().tensors(d, list);
        list.prefix = format!("{prefix}beside.");
        of_side!(self.side(), m => m.tensors(d, list));
        list.prefix = prefix;
        if self.branch_norms {
            list.add("attention_norm.weight", &[d], Role::NormWeight);
            list.add("beside_norm.weight", &[d], Role::NormWeight);
        }
    }

    fn parameters(&self, d: u64) -> u64 {
        let norms = if self.branch_norms { 2 * d } else { 0 };
        self.attention().parameters(d) + of_side!(self.side(), m => m.parameters(d)) + norms
    }

    fn token_flops(&self, d: f64) -> f64 {
        self.attention().token_flops(d) + of_side!(self.side(), m => m.token_flops(d))
    }

    fn past(&self) -> Past {
        self.attention().past()
    }

    fn past_beside(&self) -> Option<Past> {
        Some(of_side!(self.side(), m => m.past()))
    }

    fn levels(&self) -> Option<u32> {
        None
    }

    fn phases(&self) -> Option<Phases> {
        None
    }

    fn sizes(&self) -> [u32; 3] {
        let (attention, beside) = (self.attention().sizes(), of_side!(self.side(), m => m.sizes()));
        [0, 1, 2].map(|at| attention[at] + beside[at])
    }

    fn brief(&self) -> String {
        let beside = of_side!(self.side(), m => m.brief());
        let name = Beside::FORMS[self.beside as usize];
        let norms = if self.branch_norms { "" } else { " nonorms" };
        format!("{} + {name} {beside}{norms}", self.attention().brief())
    }

    fn scaled(self, scale: f64) -> Result<Self, (&'static str, u32)> {
        let side = match self.side() {
            Side::Mamba2(m) => Side::Mamba2(m.scaled(scale)?),
            Side::Delta(m) => Side::Delta(m.scaled(scale)?),
        };
        Ok(self.of(self.attention().scaled(scale)?, side))
    }

    fn nearly_scaled(self, scale: f64) -> Self {
        let side = match self.side() {
            Side::Mamba2(m) => Side::Mamba2(m.nearly_scaled(scale)),
            Side::Delta(m) => Side::Delta(m.nearly_scaled(scale)),
        };
        self.of(self.attention().nearly_scaled(scale), side)
    }

    fn shaped(self, _: MixerKind) -> Self {
        self
    }
}
