//! Softmax attention, over the whole past or over a window of it.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::family::{Colour, Family, Kind, Past, Usual};
use super::gene::{Choice, Gene, Letter, Misfit, Settings, divided};
use super::kind::MixerKind;
use super::phase_genes;
use super::qk_norm::QkNorm;
use crate::architecture::limits;
use crate::architecture::phases::{PhaseForms, Phases};
use crate::architecture::scale::{nearest_heads, whole, whole_width};
use crate::architecture::tensor::{Role, Tensors};

/// Grouped-query softmax attention with rotary positions on all channels of a head, some or none (NoPE), or with
/// Selective RoPE.
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
    /// RMSNorm of q and k: before rotary positions, but after Selective RoPE.
    #[serde(default)]
    pub qk_norm: QkNorm,
    /// Selective RoPE (arXiv 2511.17388) in place of rotary positions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub selective_rope: bool,
    /// What of it is not plain.
    #[serde(default, skip_serializing_if = "PhaseForms::is_plain")]
    pub phases: PhaseForms,
    /// Whether the heads' outputs are gated by σ(g·x), channel by channel, as in Qwen3-Next (arXiv 2505.06708).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_gate: bool,
    /// The part of a head that turns with its position, its first channels, in hundredths; 0: no positions at all (NoPE).
    #[serde(default = "whole_head", skip_serializing_if = "is_whole_head")]
    pub rotary_percent: u32,
    /// θ, the base of the rotary frequencies.
    #[serde(default = "usual_theta", skip_serializing_if = "is_usual_theta")]
    pub rope_theta: u32,
    /// Whether the norms of its layer stand behind attention and behind the FFN, and not before them, as in OLMo 2 (arXiv
    /// 2501.00656) and in the attention layers of Olmo Hybrid.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub norm_after: bool,
}

/// All channels of a head, in hundredths.
const WHOLE_HEAD: u32 = 100;
/// θ of RoFormer (arXiv 2104.09864).
const USUAL_THETA: u32 = 10_000;

fn whole_head() -> u32 {
    WHOLE_HEAD
}

fn usual_theta() -> u32 {
    USUAL_THETA
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_whole_head(percent: &u32) -> bool {
    *percent == WHOLE_HEAD
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_usual_theta(theta: &u32) -> bool {
    *theta == USUAL_THETA
}

impl Attention {
    /// Over the whole past, with rotary positions on all channels and nothing else.
    pub fn full(heads: u32, kv_heads: u32, head_width: u32) -> Self {
        Self {
            heads,
            kv_heads,
            head_width,
            window: None,
            qk_norm: QkNorm::None,
            selective_rope: false,
            phases: PhaseForms::default(),
            output_gate: false,
            rotary_percent: WHOLE_HEAD,
            rope_theta: USUAL_THETA,
            norm_after: false,
        }
    }

    /// Channels of a head that turn with their position, its first ones: channel i with channel i + half of them.
    pub fn rotary_width(&self) -> u32 {
        if self.selective_rope { 0 } else { self.head_width * self.rotary_percent / WHOLE_HEAD }
    }

    fn check_positions(&self) -> Result<(), String> {
        let percent = self.rotary_percent;
        self.phases.check(self.selective_rope, self.head_width)?;
        if percent > WHOLE_HEAD {
            return Err(format!("rotary_percent must be 0 to {WHOLE_HEAD}, got {percent}"));
        }
        if !(2..=MAX_THETA).contains(&self.rope_theta) {
            return Err(format!("rope_theta must be 2 to {MAX_THETA}, got {}", self.rope_theta));
        }
        if self.selective_rope && self.norm_after {
            return Err("Selective RoPE reads a normed input; norm_after leaves none".to_owned());
        }
        if self.selective_rope && (percent, self.rope_theta) != (WHOLE_HEAD, USUAL_THETA) {
            return Err("Selective RoPE has neither a rotary_percent nor a rope_theta".to_owned());
        }
        if percent == 0 && self.rope_theta != USUAL_THETA {
            return Err("without rotary positions there is no rope_theta".to_owned());
        }
        let share = u64::from(self.head_width) * u64::from(percent);
        if !share.is_multiple_of(2 * u64::from(WHOLE_HEAD)) {
            return Err(format!(
                "{percent} % of head_width must be an even number of channels, got {} of {}",
                share as f64 / f64::from(WHOLE_HEAD),
                self.head_width
            ));
        }
        Ok(())
    }
}

/// The largest θ that is accepted.
const MAX_THETA: u32 = 1_000_000_000;
/// Positions that a window of a reference stack sees.
const WINDOW: u32 = 128;

pub(super) const HEADS: Gene = Gene::counts(
    "heads",
    "h",
    "Query heads; `\"auto\"`: d_model / head_width, where that divides.",
);
pub(super) const KV_HEADS: Gene = Gene::counts(
    "kv_heads",
    "kv",
    "Key and value heads, which divide the heads; `\"auto\"`: as many as heads.",
);
pub(super) const HEAD_WIDTH: Gene = Gene::counts(
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
pub(super) const QK_NORM: Gene = Gene::forms(
    "qk_norm",
    &QkNorm::FORMS,
    &QkNorm::WORDS,
    "RMSNorm of q and k: of each head, or of all heads together (`\"whole\"`).",
);
const SELECTIVE_ROPE: Gene = Gene::flag(
    "selective_rope",
    Letter::On("srope"),
    false,
    "Selective RoPE in place of rotary positions.",
);
const OUTPUT_GATE: Gene = Gene::flag(
    "output_gate",
    Letter::On("gate"),
    false,
    "Whether the output is gated by σ(g·x), channel by channel.",
)
.if_chosen();
pub(super) const ROTARY: Gene = Gene {
    letter: Letter::Unless("rot", WHOLE_HEAD),
    ..Gene::numbers(
        "rotary_percent",
        "rot",
        &[WHOLE_HEAD],
        "The part of a head that turns with its position, in hundredths; 0: no positions at all (NoPE).",
    )
}
.if_chosen()
.within(0, WHOLE_HEAD);
const THETA: Gene = Gene {
    letter: Letter::Unless("theta", USUAL_THETA),
    ..Gene::numbers("rope_theta", "theta", &[USUAL_THETA], "θ, the base of the rotary frequencies.")
}
.if_chosen()
.within(2, MAX_THETA);
const NORM_AFTER: Gene = Gene::flag(
    "norm_after",
    Letter::On("post"),
    false,
    "Whether the layer's norms stand behind attention and the FFN, and not before them.",
)
.if_chosen();

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
            genes: &[
                HEADS,
                KV_HEADS,
                HEAD_WIDTH,
                QK_NORM,
                SELECTIVE_ROPE,
                OUTPUT_GATE,
                ROTARY,
                THETA,
                NORM_AFTER,
                phase_genes::GATE,
                phase_genes::BIAS,
                phase_genes::FULL_RANK,
                phase_genes::TEMPERATURE,
            ],
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
            genes: &[
                HEADS,
                KV_HEADS,
                HEAD_WIDTH,
                WINDOW_GENE,
                QK_NORM,
                SELECTIVE_ROPE,
                OUTPUT_GATE,
                ROTARY,
                THETA,
                NORM_AFTER,
                phase_genes::GATE,
                phase_genes::BIAS,
                phase_genes::FULL_RANK,
                phase_genes::TEMPERATURE,
            ],
            not_both_auto: Some(["heads", "head_width"]),
        },
    ];

    fn build(_: MixerKind, genes: &Settings) -> Self {
        Self {
            heads: genes.number("heads"),
            kv_heads: genes.number("kv_heads"),
            head_width: genes.number("head_width"),
            window: genes.get("window"),
            qk_norm: QkNorm::ALL[genes.number("qk_norm") as usize],
            selective_rope: genes.flag("selective_rope") == Some(true),
            phases: PhaseForms::build(genes),
            output_gate: genes.flag("output_gate") == Some(true),
            rotary_percent: genes.number("rotary_percent"),
            rope_theta: genes.number("rope_theta"),
            norm_after: genes.flag("norm_after") == Some(true),
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
        Self::full(heads, heads, head_width).shaped(kind)
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
            "qk_norm" => self.qk_norm as u32,
            "selective_rope" => self.selective_rope.into(),
            "output_gate" => self.output_gate.into(),
            "rotary_percent" => self.rotary_percent,
            "rope_theta" => self.rope_theta,
            "norm_after" => self.norm_after.into(),
            _ => self.phases.gene(name).expect("a gene of attention"),
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
        self.check_positions()
    }

    fn tensors(&self, d: u64, list: &mut Tensors) {
        let k = u64::from(self.head_width);
        let (q_rows, kv_rows) = (u64::from(self.heads) * k, u64::from(self.kv_heads) * k);
        list.add("q.weight", &[q_rows, d], Role::Reader);
        list.add("k.weight", &[kv_rows, d], Role::Reader);
        list.add("v.weight", &[kv_rows, d], Role::Reader);
        if self.output_gate {
            list.add("g.weight", &[q_rows, d], Role::Reader);
        }
        let norms = [("q_norm.weight", self.heads), ("k_norm.weight", self.kv_heads)];
        for (name, heads) in norms {
            if let Some(width) = self.qk_norm.width(heads, self.head_width) {
                list.add(name, &[width], Role::NormWeight);
            }
        }
        list.add("o.weight", &[d, q_rows], Role::Writer);
    }

    // q, o: h·k·d; k, v: h_kv·k·d; the gate: h·k·d; the two norms: k, or h·k and h_kv·k
    fn parameters(&self, d: u64) -> u64 {
        let (h, kv, k) =
            (u64::from(self.heads), u64::from(self.kv_heads), u64::from(self.head_width));
        let norm = |heads| self.qk_norm.width(heads, self.head_width).unwrap_or(0);
        let gate = if self.output_gate { h * k * d } else { 0 };
        2 * d * k * (h + kv) + gate + norm(self.heads) + norm(self.kv_heads)
    }

    // q, o: h·k·d weights each; k, v: h_kv·k·d; the gate: h·k·d
    fn token_flops(&self, d: f64) -> f64 {
        let [h, kv, k] = [self.heads, self.kv_heads, self.head_width].map(f64::from);
        let gate = if self.output_gate { 2.0 * d * h * k } else { 0.0 };
        4.0 * d * k * (h + kv) + gate
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

    fn norms_after(&self) -> bool {
        self.norm_after
    }

    fn phases(&self) -> Option<Phases> {
        Phases::of(self.selective_rope, self.kv_heads, self.head_width, self.phases)
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
        if self.qk_norm != QkNorm::None {
            let _ = write!(text, " {}", QkNorm::WORDS[self.qk_norm as usize]);
        }
        text += if self.selective_rope { " srope" } else { "" };
        text += &self.phases.brief();
        text += if self.output_gate { " gate" } else { "" };
        match self.rotary_percent {
            WHOLE_HEAD => {}
            0 => text += " nope",
            percent => {
                let _ = write!(text, " rot{percent}");
            }
        }
        if self.rope_theta != USUAL_THETA {
            let _ = write!(text, " θ{}", self.rope_theta);
        }
        text + if self.norm_after { " post" } else { "" }
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
        let narrowed = narrowed(self.head_width);
        // the part that turns is to be an even number of channels
        let unit = (1..=WHOLE_HEAD)
            .map(|half| 2 * half)
            .find(|unit| (unit * self.rotary_percent).is_multiple_of(2 * WHOLE_HEAD))
            .expect("of 200 channels every hundredth is even");
        let head_width = (narrowed + unit / 2) / unit * unit;
        Self { heads, kv_heads, head_width: head_width.max(unit), ..self }
    }

    fn shaped(self, kind: MixerKind) -> Self {
        let window = (kind == MixerKind::SlidingWindow).then(|| self.window.unwrap_or(WINDOW));
        Self { window, ..self }
    }
}
