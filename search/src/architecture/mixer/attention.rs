//! Softmax attention, over the whole past or over a window of it.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::family::{Colour, Family, Kind, Past, Usual};
use super::gene::{Choice, Gene, Letter, Misfit, Settings, divided};
use super::kind::MixerKind;
use crate::architecture::limits;
use crate::architecture::phases::Phases;
use crate::architecture::scale::{nearest_heads, whole, whole_width};
use crate::architecture::tensor::{Role, Tensors};

/// Grouped-query softmax attention with rotary positions: θ = 10⁴, or Selective RoPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Channels of a head, even (rotary positions act on halves).
    pub head_width: u32,
    /// The last positions attended to, the current one included; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// RMSNorm with a learnt weight on each head's q and k: before rotary positions, but after Selective RoPE.
    #[serde(default)]
    pub qk_norm: bool,
    /// Selective RoPE (arXiv 2511.17388) in place of rotary positions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub selective_rope: bool,
}

/// Positions that a window of a reference stack sees.
const WINDOW: u32 = 128;

const HEADS: Gene = Gene::counts(
    "heads",
    "h",
    "Query heads; `\"auto\"`: d_model / head_width, where that divides.",
);
const KV_HEADS: Gene = Gene::counts(
    "kv_heads",
    "kv",
    "Key and value heads, which divide the heads; `\"auto\"`: as many as heads.",
);
const HEAD_WIDTH: Gene = Gene::counts(
    "head_width",
    "k",
    "Channels of a head, even; `\"auto\"`: d_model / heads, where that divides.",
)
.with(Choice::NumbersOrAuto(Some(&[32, 64])));
const WINDOW_GENE: Gene = Gene::numbers(
    "window",
    "w",
    &[64, 128],
    "The last positions attended to, the current one included.",
)
.late();
const QK_NORM: Gene =
    Gene::flag("qk_norm", Letter::On("qknorm"), false, "RMSNorm on each head's q and k.");
const SELECTIVE_ROPE: Gene = Gene::flag(
    "selective_rope",
    Letter::On("srope"),
    false,
    "Selective RoPE in place of rotary positions.",
);

impl Family for Attention {
    const KINDS: &'static [Kind] = &[
        Kind {
            kind: MixerKind::FullAttention,
            name: "attn",
            title: "full attention",
            sign: '■',
            colour: Colour::Red,
            shaped_as: None,
            about: "Full attention.",
            table: ("AttentionChoices", "Choices for full attention."),
            genes: &[HEADS, KV_HEADS, HEAD_WIDTH, QK_NORM, SELECTIVE_ROPE],
            not_both_auto: Some(["heads", "head_width"]),
        },
        Kind {
            kind: MixerKind::SlidingWindow,
            name: "swa",
            title: "sliding-window attention",
            sign: '◧',
            colour: Colour::Magenta,
            shaped_as: Some(MixerKind::FullAttention),
            about: "Sliding-window attention.",
            table: ("WindowChoices", "Choices for sliding-window attention."),
            genes: &[HEADS, KV_HEADS, HEAD_WIDTH, WINDOW_GENE, QK_NORM, SELECTIVE_ROPE],
            not_both_auto: Some(["heads", "head_width"]),
        },
    ];

    fn build(_: MixerKind, genes: &Settings) -> Self {
        Self {
            heads: genes.number("heads"),
            kv_heads: genes.number("kv_heads"),
            head_width: genes.number("head_width"),
            window: genes.get("window"),
            qk_norm: genes.flag("qk_norm") == Some(true),
            selective_rope: genes.flag("selective_rope") == Some(true),
        }
    }

    fn derive(_: MixerKind, d_model: u32, genes: &mut Settings) -> Result<(), Misfit> {
        let heads = match (genes.get("heads"), genes.get("head_width")) {
            (Some(heads), Some(_)) => heads,
            (Some(heads), None) => {
                let width = divided("heads", d_model, heads)?;
                if width % 2 == 1 {
                    let what =
                        format!("{heads} heads of d_model {d_model} would be {width} wide, odd");
                    return Err(("heads", what));
                }
                genes.set("head_width", Some(width));
                heads
            }
            (None, width) => {
                let width = width.expect("a file that lists neither is refused");
                divided("head_width", d_model, width)?
            }
        };
        let kv_heads = genes.get("kv_heads").unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(("kv_heads", format!("{kv_heads} kv_heads do not divide {heads} heads")));
        }
        let head_width = genes.number("head_width");
        if !head_width.is_multiple_of(2) {
            let what = format!("must be even for rotary positions, got {head_width}");
            return Err(("head_width", what));
        }
        genes.set("heads", Some(heads));
        genes.set("kv_heads", Some(kv_heads));
        Ok(())
    }

    fn usual(kind: MixerKind, Usual { heads, head_width, .. }: Usual) -> Self {
        let (window, qk_norm, selective_rope) = (None, false, false);
        Self { heads, kv_heads: heads, head_width, window, qk_norm, selective_rope }.shaped(kind)
    }

    fn kind(&self) -> MixerKind {
        match self.window {
            None => MixerKind::FullAttention,
            Some(_) => MixerKind::SlidingWindow,
        }
    }

    fn gene(&self, name: &str) -> u32 {
        match name {
            "heads" => self.heads,
            "kv_heads" => self.kv_heads,
            "head_width" => self.head_width,
            "window" => self.window.unwrap_or(0),
            "qk_norm" => self.qk_norm.into(),
            "selective_rope" => self.selective_rope.into(),
            _ => unreachable!("attention has no gene {name}"),
        }
    }

    fn check(&self) -> Result<(), String> {
        limits::width("heads", self.heads)?;
        limits::width("kv_heads", self.kv_heads)?;
        limits::width("head_width", self.head_width)?;
        if let Some(window) = self.window {
            limits::width("window", window)?;
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!(
                "kv_heads must divide heads, got {} heads and {} kv_heads",
                self.heads, self.kv_heads
            ));
        }
        if !self.head_width.is_multiple_of(2) {
            return Err(format!(
                "head_width must be even for rotary positions, got {}",
                self.head_width
            ));
        }
        Ok(())
    }

    fn tensors(&self, d: u64, list: &mut Tensors) {
        let k = u64::from(self.head_width);
        let (q_rows, kv_rows) = (u64::from(self.heads) * k, u64::from(self.kv_heads) * k);
        list.add("q.weight", &[q_rows, d], Role::Reader);
        list.add("k.weight", &[kv_rows, d], Role::Reader);
        list.add("v.weight", &[kv_rows, d], Role::Reader);
        if self.qk_norm {
            list.add("q_norm.weight", &[k], Role::NormWeight);
            list.add("k_norm.weight", &[k], Role::NormWeight);
        }
        list.add("o.weight", &[d, q_rows], Role::Writer);
    }

    // q, o: h·k·d; k, v: h_kv·k·d; the two norms: k
    fn parameters(&self, d: u64) -> u64 {
        let k = u64::from(self.head_width);
        let norms = if self.qk_norm { 2 * k } else { 0 };
        2 * d * k * (u64::from(self.heads) + u64::from(self.kv_heads)) + norms
    }

    // q, o: h·k·d weights each; k, v: h_kv·k·d
    fn token_flops(&self, d: f64) -> f64 {
        4.0 * d * f64::from(self.head_width) * (f64::from(self.heads) + f64::from(self.kv_heads))
    }

    fn past(&self) -> Past {
        Past::Positions {
            window: self.window,
            elements: 2 * u64::from(self.kv_heads) * u64::from(self.head_width),
            // the score and the weighted sum: 2·k each for every query head
            flops: 4.0 * f64::from(self.heads) * f64::from(self.head_width),
        }
    }

    fn levels(&self) -> Option<u32> {
        None
    }

    fn phases(&self) -> Option<Phases> {
        Phases::of(self.selective_rope, self.kv_heads, self.head_width)
    }

    fn sizes(&self) -> [u32; 3] {
        [self.heads, self.head_width, self.head_width]
    }

    fn brief(&self) -> String {
        let mut text = format!("h{}", self.heads);
        if self.kv_heads != self.heads {
            let _ = write!(text, "/{}", self.kv_heads);
        }
        let _ = write!(text, " k{}", self.head_width);
        if let Some(window) = self.window {
            let _ = write!(text, " w{window}");
        }
        text += if self.qk_norm { " qknorm" } else { "" };
        text + if self.selective_rope { " srope" } else { "" }
    }

    fn scaled(self, scale: f64) -> Result<Self, (&'static str, u32)> {
        Ok(match (whole(self.heads, scale), whole(self.kv_heads, scale)) {
            (Some(heads), Some(kv_heads)) => Self { heads, kv_heads, ..self },
            // One KV head for all stays one.
            (Some(heads), None) if self.kv_heads == 1 => Self { heads, ..self },
            _ => Self { head_width: whole_width("head_width", self.head_width, scale)?, ..self },
        })
    }

    fn nearly_scaled(self, scale: f64) -> Self {
        let (kv_heads, narrowed) = nearest_heads(self.kv_heads, scale);
        let heads = kv_heads * (self.heads / self.kv_heads);
        Self { heads, kv_heads, head_width: narrowed(self.head_width), ..self }
    }

    fn shaped(self, kind: MixerKind) -> Self {
        let window = (kind == MixerKind::SlidingWindow).then(|| self.window.unwrap_or(WINDOW));
        Self { window, ..self }
    }
}
