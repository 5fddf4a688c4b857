//! The delta family: one type for DeltaNet (arXiv 2406.06484), Gated DeltaNet (arXiv 2412.06464), DeltaProduct with a
//! decay or without (arXiv 2502.10297) and log-linear Gated DeltaNet (arXiv 2506.04761).

use std::fmt::Write as _;

use super::family::{Colour, Family, Kind, Past, Usual};
use super::gene::{Choice, Gene, Letter, Misfit, Settings, divided};
use super::kind::MixerKind;
use super::phase_genes;
use crate::architecture::limits;
use crate::architecture::phases::{PhaseForms, Phases};
use crate::architecture::scale::{nearest_heads, whole, whole_width};
use crate::architecture::tensor::{CONV_WIDTH, Role, Tensors};

/// A member of the delta family: state of `key_width` × `value_width` per value head.
///
/// Its kind follows from `decay`, `steps` and `levels`; the rest every member may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each says of one part whether it is there")]
pub struct Delta {
    /// Heads of q and k.
    pub heads: u32,
    /// K, rows of the state.
    pub key_width: u32,
    /// V, columns of the state.
    pub value_width: u32,
    /// Value heads for each key head. The state, β and the decay are those of a value head.
    pub value_groups: u32,
    /// Whether the state decays, once per token and before the first step.
    pub decay: bool,
    /// Delta steps per token, each with a key, a value and a β of its own, and one read: 2 to 8; none: one step.
    pub steps: Option<u32>,
    /// Log-linear: a state for each of so many pieces of the past, with a scale λ of its own; none: one state without a
    /// scale. Only of a member with a decay and one step.
    pub levels: Option<u32>,
    /// Whether the normed output is gated by SiLU(g·x).
    pub output_gate: bool,
    /// β in (0, 2) and not in (0, 1), so that the state's transition has eigenvalues down to −1.
    pub negative_eigenvalues: bool,
    /// The short convolutions on q, k and v.
    pub short_conv: bool,
    /// Selective RoPE (arXiv 2511.17388) on q and k.
    pub selective_rope: bool,
    /// What of it is not plain.
    pub phases: PhaseForms,
}

impl Delta {
    /// DeltaNet, the reference layer: without decay and without output gate.
    pub fn deltanet(heads: u32, key_width: u32, value_width: u32) -> Self {
        Self {
            heads,
            key_width,
            value_width,
            value_groups: 1,
            decay: false,
            steps: None,
            levels: None,
            output_gate: false,
            negative_eigenvalues: false,
            short_conv: true,
            selective_rope: false,
            phases: PhaseForms::default(),
        }
    }

    /// Gated DeltaNet, the reference layer: with both.
    pub fn gated(heads: u32, key_width: u32, value_width: u32) -> Self {
        let deltanet = Self::deltanet(heads, key_width, value_width);
        Self { decay: true, output_gate: true, ..deltanet }
    }

    /// Heads of v, of the state, and of the output: neighbours share a key head.
    pub fn value_heads(&self) -> u32 {
        self.heads.saturating_mul(self.value_groups)
    }

    /// Delta steps per token. Step j owns the j-th block of rows of k, v and b.
    pub fn steps_per_token(&self) -> u32 {
        self.steps.unwrap_or(1)
    }

    /// What multiplies the read: K^−½, or 1 where λ does.
    pub fn scale(&self) -> f64 {
        if self.levels.is_some() { 1.0 } else { f64::from(self.key_width).powf(-0.5) }
    }

    /// Rows of the projection from which λ comes.
    pub fn level_rows(&self) -> u64 {
        u64::from(self.value_heads()) * u64::from(self.levels.unwrap_or(0))
    }

    /// Rows of q, and of each step's k.
    pub fn key_rows(&self) -> u64 {
        u64::from(self.heads) * u64::from(self.key_width)
    }

    /// Rows of each step's v, and of the output.
    pub fn value_rows(&self) -> u64 {
        u64::from(self.value_heads()) * u64::from(self.value_width)
    }

    /// Rows of q, k and v together: the channels of the short convolutions.
    pub fn channels(&self) -> u64 {
        let steps = u64::from(self.steps_per_token());
        self.key_rows() + steps * (self.key_rows() + self.value_rows())
    }
}

/// Levels of the log-linear form: enough for 16,384 positions, as in arXiv 2506.04761.
const LEVELS: u32 = 15;

const fn heads(about: &'static str) -> Gene {
    Gene::counts("heads", "h", about)
}
const KEY_WIDTH: Gene = Gene::numbers("key_width", "k", &[32, 64], "K, rows of the state.");
const fn value_width(about: &'static str) -> Gene {
    Gene::counts("value_width", "v", about)
}
const ONE_STEP: Gene = Gene {
    name: "steps",
    about: "One step.",
    choice: Choice::Fixed,
    letter: Letter::Silent,
    ..STEPS
};
const STEPS: Gene = Gene::numbers("steps", "n", &[2], "Delta steps per token, 2 to 8.");
const LEVELS_GENE: Gene = Gene::numbers(
    "levels",
    "l",
    &[LEVELS],
    "States of a head; l of them tell 2^(l − 1) positions apart.",
)
.late();
const OUTPUT_GATE: Gene =
    Gene::flag("output_gate", Letter::Off("nogate"), true, "Whether the output is gated.");
const fn reference_gate(letter: Letter) -> Gene {
    let about = "Whether the output is gated; none: as the reference layers, DeltaNet not and Gated DeltaNet gated.";
    Gene { about, letter, ..OUTPUT_GATE }.with(Choice::FlagOfKind)
}
const VALUE_GROUPS: Gene = Gene {
    letter: Letter::Unless("vg", 1),
    ..Gene::numbers("value_groups", "vg", &[1], "Value heads for each key head.")
};
const fn negative_eigenvalues(usual: bool) -> Gene {
    Gene::flag(
        "negative_eigenvalues",
        Letter::On("neg"),
        usual,
        "β in (0, 2) and not in (0, 1), so that the state's transition has eigenvalues down to −1.",
    )
}
const SHORT_CONV: Gene =
    Gene::flag("short_conv", Letter::Off("noconv"), true, "The short convolutions on q, k and v.");
const SELECTIVE_ROPE: Gene =
    Gene::flag("selective_rope", Letter::On("srope"), false, "Selective RoPE on q and k.");

/// Of DeltaNet and Gated DeltaNet, which differ in how the text form says that the output gate is not the usual one.
const fn one_step(gate: Letter) -> [Gene; 13] {
    [
        heads(
            "Heads; `\"auto\"`: d_model / key_width where that divides; for Gated DeltaNet ¾ of it, rounded, at least 1.",
        ),
        KEY_WIDTH,
        value_width("V, columns of the state; `\"auto\"`: K, for Gated DeltaNet 2 K."),
        ONE_STEP,
        reference_gate(gate),
        VALUE_GROUPS,
        negative_eigenvalues(false),
        SHORT_CONV,
        SELECTIVE_ROPE,
        phase_genes::GATE,
        phase_genes::BIAS,
        phase_genes::FULL_RANK,
        phase_genes::TEMPERATURE,
    ]
}
const DELTANET: &[Gene] = &one_step(Letter::On("gate"));
const GATED_DELTANET: &[Gene] = &one_step(Letter::Off("nogate"));
const DELTA_PRODUCT: &[Gene] = &[
    heads(
        "Heads; `\"auto\"`: d_model / key_width where that divides; with a decay ¾ of it, rounded, at least 1.",
    ),
    KEY_WIDTH,
    value_width("V, columns of the state; `\"auto\"`: K, with a decay 2 K."),
    STEPS,
    OUTPUT_GATE,
    VALUE_GROUPS,
    negative_eigenvalues(true),
    SHORT_CONV,
    SELECTIVE_ROPE,
    phase_genes::GATE,
    phase_genes::BIAS,
    phase_genes::FULL_RANK,
    phase_genes::TEMPERATURE,
];
const LOG_LINEAR: &[Gene] = &[
    heads("Heads; `\"auto\"`: ¾ of d_model / key_width, rounded, at least 1."),
    Gene { about: "K, rows of the states.", ..KEY_WIDTH },
    value_width("V, columns of the states; `\"auto\"`: 2 K."),
    ONE_STEP,
    LEVELS_GENE,
    OUTPUT_GATE,
    VALUE_GROUPS,
    negative_eigenvalues(false),
    SHORT_CONV,
    SELECTIVE_ROPE,
    phase_genes::GATE,
    phase_genes::BIAS,
    phase_genes::FULL_RANK,
    phase_genes::TEMPERATURE,
];

impl Family for Delta {
    const KINDS: &'static [Kind] = &[
        Kind {
            kind: MixerKind::DeltaNet,
            name: "dn",
            title: "DeltaNet",
            sign: '△',
            colour: Colour::Green,
            shaped_as: None,
            about: "DeltaNet.",
            table: ("DeltaChoices", "Choices for DeltaNet and Gated DeltaNet."),
            genes: DELTANET,
            not_both_auto: None,
        },
        Kind {
            kind: MixerKind::GatedDeltaNet,
            name: "gdn",
            title: "Gated DeltaNet",
            sign: '▲',
            colour: Colour::Cyan,
            shaped_as: None,
            about: "Gated DeltaNet.",
            table: ("DeltaChoices", "Choices for DeltaNet and Gated DeltaNet."),
            genes: GATED_DELTANET,
            not_both_auto: None,
        },
        Kind {
            kind: MixerKind::DeltaProduct,
            name: "dp",
            title: "DeltaProduct",
            sign: '▽',
            colour: Colour::LightGreen,
            shaped_as: Some(MixerKind::GatedDeltaNet),
            about: "DeltaProduct.",
            table: ("DeltaProductChoices", "Choices for DeltaProduct, with a decay or without."),
            genes: DELTA_PRODUCT,
            not_both_auto: None,
        },
        Kind {
            kind: MixerKind::GatedDeltaProduct,
            name: "gdp",
            title: "Gated DeltaProduct",
            sign: '▼',
            colour: Colour::LightCyan,
            shaped_as: Some(MixerKind::GatedDeltaNet),
            about: "DeltaProduct with a decay.",
            table: ("DeltaProductChoices", "Choices for DeltaProduct, with a decay or without."),
            genes: DELTA_PRODUCT,
            not_both_auto: None,
        },
        Kind {
            kind: MixerKind::LogLinearGatedDeltaNet,
            name: "lgdn",
            title: "log-linear Gated DeltaNet",
            sign: '◭',
            colour: Colour::Blue,
            shaped_as: Some(MixerKind::GatedDeltaNet),
            about: "Log-linear Gated DeltaNet.",
            table: ("LogLinearDeltaChoices", "Choices for log-linear Gated DeltaNet."),
            genes: LOG_LINEAR,
            not_both_auto: None,
        },
    ];

    fn build(kind: MixerKind, genes: &Settings) -> Self {
        Self {
            heads: genes.number("heads"),
            key_width: genes.number("key_width"),
            value_width: genes.number("value_width"),
            value_groups: genes.number("value_groups"),
            decay: decays(kind),
            steps: genes.get("steps"),
            levels: genes.get("levels"),
            output_gate: genes.flag("output_gate").unwrap_or(kind != MixerKind::DeltaNet),
            negative_eigenvalues: genes.flag("negative_eigenvalues") == Some(true),
            short_conv: genes.flag("short_conv") != Some(false),
            selective_rope: genes.flag("selective_rope") == Some(true),
            phases: PhaseForms::build(genes),
        }
    }

    fn derive(kind: MixerKind, d_model: u32, genes: &mut Settings) -> Result<(), Misfit> {
        let (decay, key_width) = (decays(kind), genes.number("key_width"));
        if genes.get("heads").is_none() {
            let heads = if decay {
                // H·K = ¾ d: with V = 2 K the mixer then has about 6 d² parameters, as in arXiv 2412.06464
                ((3 * d_model + 2 * key_width) / (4 * key_width)).max(1)
            } else {
                divided("key_width", d_model, key_width)?
            };
            genes.set("heads", Some(heads));
        }
        if genes.get("value_width").is_none() {
            genes.set("value_width", Some(if decay { 2 * key_width } else { key_width }));
        }
        Ok(())
    }

    fn usual(kind: MixerKind, Usual { heads, head_width, .. }: Usual) -> Self {
        if kind == MixerKind::DeltaNet {
            Self::deltanet(heads, head_width, head_width)
        } else {
            let gated_heads = ((3 * heads + 2) / 4).max(1);
            Self::gated(gated_heads, head_width, 2 * head_width).shaped(kind)
        }
    }

    fn kind(&self) -> MixerKind {
        match (self.levels, self.steps, self.decay) {
            (Some(_), ..) => MixerKind::LogLinearGatedDeltaNet,
            (None, None, false) => MixerKind::DeltaNet,
            (None, None, true) => MixerKind::GatedDeltaNet,
            (None, Some(_), false) => MixerKind::DeltaProduct,
            (None, Some(_), true) => MixerKind::GatedDeltaProduct,
        }
    }

    fn gene(&self, name: &str) -> u32 {
        match name {
            "heads" => self.heads,
            "key_width" => self.key_width,
            "value_width" => self.value_width,
            "value_groups" => self.value_groups,
            "steps" => self.steps_per_token(),
            "levels" => self.levels.unwrap_or(0),
            "output_gate" => self.output_gate.into(),
            "negative_eigenvalues" => self.negative_eigenvalues.into(),
            "short_conv" => self.short_conv.into(),
            "selective_rope" => self.selective_rope.into(),
            _ => self.phases.gene(name).expect("a gene of the delta family"),
        }
    }

    fn check(&self) -> Result<(), String> {
        limits::width("heads", self.heads)?;
        limits::width("key_width", self.key_width)?;
        limits::width("value_width", self.value_width)?;
        limits::width("value_groups · heads", self.value_heads())?;
        self.phases.check(self.selective_rope, self.key_width)?;
        if self.selective_rope && !self.key_width.is_multiple_of(2) {
            let got = self.key_width;
            return Err(format!("key_width must be even for Selective RoPE, got {got}"));
        }
        if let Some(steps) = self.steps
            && !(2..=8).contains(&steps)
        {
            return Err(format!("steps must be 2 to 8, got {steps}"));
        }
        if self.levels.is_some() && (self.steps.is_some() || !self.decay) {
            return Err("levels are of a mixer with a decay and one step".to_owned());
        }
        limits::levels(self.levels)
    }

    fn tensors(&self, d: u64, list: &mut Tensors) {
        let (steps, heads) = (u64::from(self.steps_per_token()), u64::from(self.value_heads()));
        let (k_rows, v_rows) = (self.key_rows(), self.value_rows());
        list.add("q.weight", &[k_rows, d], Role::Reader);
        list.add("k.weight", &[steps * k_rows, d], Role::Reader);
        list.add("v.weight", &[steps * v_rows, d], Role::Reader);
        list.add("b.weight", &[steps * heads, d], Role::Reader);
        if self.decay {
            list.add("a.weight", &[heads, d], Role::Reader);
        }
        if self.output_gate {
            list.add("g.weight", &[v_rows, d], Role::Reader);
        }
        if self.decay {
            list.add("A_log", &[heads], Role::ALog);
            list.add("dt_bias", &[heads], Role::DtBias);
        }
        if let Some(levels) = self.levels {
            list.add("l.weight", &[self.level_rows(), d], Role::Reader);
            list.add("L", &[heads, levels.into()], Role::LevelScale);
        }
        if self.short_conv {
            list.add("q_conv.weight", &[k_rows, CONV_WIDTH], Role::ConvWeight);
            list.add("k_conv.weight", &[steps * k_rows, CONV_WIDTH], Role::ConvWeight);
            list.add("v_conv.weight", &[steps * v_rows, CONV_WIDTH], Role::ConvWeight);
        }
        list.add("norm.weight", &[self.value_width.into()], Role::NormWeight);
        list.add("o.weight", &[d, v_rows], Role::Writer);
    }

    // q: h·K·d; k: n·h·K·d; v: n·H·V·d, H value heads; their convolutions: 4 each; b: n·H·d; a: H·d;
    // g, o: H·V·d; A_log, dt_bias: H; norm: V; with levels λ: H·l·(d + 1)
    fn parameters(&self, d: u64) -> u64 {
        let (n, h) = (u64::from(self.steps_per_token()), u64::from(self.value_heads()));
        let taps = if self.short_conv { CONV_WIDTH } else { 0 };
        let decay = if self.decay { h * (d + 2) } else { 0 };
        let outputs = if self.output_gate { 2 } else { 1 };
        self.channels() * (d + taps)
            + n * h * d
            + decay
            + self.level_rows() * (d + 1)
            + outputs * self.value_rows() * d
            + u64::from(self.value_width)
    }

    fn token_flops(&self, d: f64) -> f64 {
        let (n, h) = (f64::from(self.steps_per_token()), f64::from(self.value_heads()));
        let (k, v) = (f64::from(self.key_width), f64::from(self.value_width));
        let (channels, outputs) = (self.channels() as f64, self.value_rows() as f64);
        // q, k, v; b: n·H; o: H·V; and where they are there, g: H·V; a: H
        let gate = if self.output_gate { outputs } else { 0.0 };
        let decay = if self.decay { h } else { 0.0 };
        let levels = self.level_rows() as f64;
        let projections = 2.0 * d * (channels + n * h + outputs + gate + decay + levels);
        let taps = 2.0 * CONV_WIDTH as f64;
        let convolutions = if self.short_conv { taps * channels } else { 0.0 };
        // Sᵀk and S += k uᵀ: 2·K·V each; u = β (v − Sᵀk): 2·V
        let step = 4.0 * k * v + 2.0 * v;
        // e^g S: K·V; each step; the read: 2·K·V
        projections + convolutions + decay * k * v + h * (n * step + 2.0 * k * v)
    }

    fn past(&self) -> Past {
        let (k, v) = (f64::from(self.key_width), f64::from(self.value_width));
        Past::States {
            elements: u64::from(self.key_width).saturating_mul(self.value_rows()),
            inputs: if self.short_conv { (CONV_WIDTH - 1) * self.channels() } else { 0 },
            heads: self.value_heads(),
            // e^g S: K·V; Sᵀk and S −= β k (Sᵀk)ᵀ: 2·K·V each, β ·: V; the read: 2·K·V; λ · and its sum: 2·V
            level_flops: 3.0 * k * v + (4.0 * k * v + v) + 2.0 * v,
        }
    }

    fn levels(&self) -> Option<u32> {
        self.levels
    }

    fn phases(&self) -> Option<Phases> {
        Phases::of(self.selective_rope, self.heads, self.key_width, self.phases)
    }

    fn sizes(&self) -> [u32; 3] {
        [self.heads, self.key_width, self.value_width]
    }

    fn brief(&self) -> String {
        let mut text = format!("h{}", self.heads);
        if self.value_heads() != self.heads {
            let _ = write!(text, "/{}", self.value_heads());
        }
        let _ = write!(text, " k{} v{}", self.key_width, self.value_width);
        if let Some(steps) = self.steps {
            let _ = write!(text, " n{steps}");
        }
        if let Some(levels) = self.levels {
            let _ = write!(text, " l{levels}");
        }
        text += if self.negative_eigenvalues { " neg" } else { "" };
        text += if self.selective_rope { " srope" } else { "" };
        text + &self.phases.brief()
    }

    fn scaled(self, scale: f64) -> Result<Self, (&'static str, u32)> {
        Ok(match whole(self.heads, scale) {
            Some(heads) => Self { heads, ..self },
            None => Self {
                key_width: whole_width("key_width", self.key_width, scale)?,
                value_width: whole_width("value_width", self.value_width, scale)?,
                ..self
            },
        })
    }

    fn nearly_scaled(self, scale: f64) -> Self {
        let (heads, narrowed) = nearest_heads(self.heads, scale);
        let (key_width, value_width) = (narrowed(self.key_width), narrowed(self.value_width));
        Self { heads, key_width, value_width, ..self }
    }

    /// DeltaProduct takes two steps with negative eigenvalues.
    fn shaped(self, kind: MixerKind) -> Self {
        let decay = decays(kind);
        match kind {
            MixerKind::DeltaProduct | MixerKind::GatedDeltaProduct => {
                Self { decay, steps: Some(2), levels: None, negative_eigenvalues: true, ..self }
            }
            MixerKind::LogLinearGatedDeltaNet => {
                Self { decay, steps: None, levels: Some(LEVELS), ..self }
            }
            _ => Self { decay, steps: None, levels: None, ..self },
        }
    }
}

/// Whether the members of a kind decay.
fn decays(kind: MixerKind) -> bool {
    !matches!(kind, MixerKind::DeltaNet | MixerKind::DeltaProduct)
}
