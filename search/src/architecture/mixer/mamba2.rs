//! Mamba-2's state-space duality layer (arXiv 2405.21060), log-linear (arXiv 2506.04761) or not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::family::{Colour, Family, Kind, Past, Usual};
use super::gene::{Gene, Misfit, Settings, divided};
use super::kind::MixerKind;
use crate::architecture::limits;
use crate::architecture::phases::Phases;
use crate::architecture::scale::{nearest_heads, whole, whole_width};
use crate::architecture::tensor::{CONV_WIDTH, Role, Tensors};

/// Mamba2: inner width `heads · head_width` (the reference expands d_model twice), one group of B and C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mamba2 {
    /// Heads.
    pub heads: u32,
    /// P, channels of a head.
    pub head_width: u32,
    /// N, width of the state.
    pub state_width: u32,
    /// Log-linear (arXiv 2506.04761): a state for each of so many pieces of the past; none: one state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<u32>,
}

impl Mamba2 {
    /// The reference layer.
    pub fn new(heads: u32, head_width: u32, state_width: u32) -> Self {
        Self { heads, head_width, state_width, levels: None }
    }

    /// Rows of the input projection from which λ comes.
    pub fn level_rows(&self) -> u64 {
        u64::from(self.heads) * u64::from(self.levels.unwrap_or(0))
    }

    /// Channels of all heads together.
    fn inner(&self) -> u64 {
        u64::from(self.heads) * u64::from(self.head_width)
    }
}

/// Levels of the log-linear form: enough for 16,384 positions, as in arXiv 2506.04761.
const LEVELS: u32 = 15;

const HEADS: Gene =
    Gene::counts("heads", "h", "Heads; `\"auto\"`: 2 d_model / head_width, where that divides.");
const HEAD_WIDTH: Gene = Gene::numbers("head_width", "p", &[32, 64], "P, channels of a head.");
const STATE_WIDTH: &[u32] = &[64, 128];
const LEVELS_GENE: Gene = Gene::numbers(
    "levels",
    "l",
    &[LEVELS],
    "States of a head; l of them tell 2^(l − 1) positions apart.",
)
.late();

impl Family for Mamba2 {
    const KINDS: &'static [Kind] = &[
        Kind {
            kind: MixerKind::Mamba2,
            name: "m2",
            title: "Mamba2",
            sign: '●',
            colour: Colour::Yellow,
            shaped_as: None,
            about: "Mamba2.",
            table: ("Mamba2Choices", "Choices for Mamba2."),
            genes: &[
                HEADS,
                HEAD_WIDTH,
                Gene::numbers("state_width", "n", STATE_WIDTH, "N, width of the state."),
            ],
            not_both_auto: None,
        },
        Kind {
            kind: MixerKind::LogLinearMamba2,
            name: "lm2",
            title: "log-linear Mamba2",
            sign: '◉',
            colour: Colour::LightYellow,
            shaped_as: Some(MixerKind::Mamba2),
            about: "Log-linear Mamba2.",
            table: ("LogLinearMamba2Choices", "Choices for log-linear Mamba2."),
            genes: &[
                HEADS,
                HEAD_WIDTH,
                Gene::numbers("state_width", "n", STATE_WIDTH, "N, width of the states."),
                LEVELS_GENE,
            ],
            not_both_auto: None,
        },
    ];

    fn build(_: MixerKind, genes: &Settings) -> Self {
        Self {
            heads: genes.number("heads"),
            head_width: genes.number("head_width"),
            state_width: genes.number("state_width"),
            levels: genes.get("levels"),
        }
    }

    fn derive(_: MixerKind, d_model: u32, genes: &mut Settings) -> Result<(), Misfit> {
        if genes.get("heads").is_none() {
            let heads = divided("head_width", 2 * d_model, genes.number("head_width"))?;
            genes.set("heads", Some(heads));
        }
        Ok(())
    }

    fn usual(kind: MixerKind, Usual { d_model, heads, head_width }: Usual) -> Self {
        Self::new(2 * heads, head_width, if d_model < 256 { 64 } else { 128 }).shaped(kind)
    }

    fn kind(&self) -> MixerKind {
        match self.levels {
            None => MixerKind::Mamba2,
            Some(_) => MixerKind::LogLinearMamba2,
        }
    }

    fn gene(&self, name: &str) -> u32 {
        match name {
            "heads" => self.heads,
            "head_width" => self.head_width,
            "state_width" => self.state_width,
            "levels" => self.levels.unwrap_or(0),
            _ => unreachable!("Mamba2 has no gene {name}"),
        }
    }

    fn check(&self) -> Result<(), String> {
        limits::width("heads", self.heads)?;
        limits::width("head_width", self.head_width)?;
        limits::width("state_width", self.state_width)?;
        limits::levels(self.levels)
    }

    fn tensors(&self, d: u64, list: &mut Tensors) {
        let (h, n, inner) = (u64::from(self.heads), u64::from(self.state_width), self.inner());
        // rows in the order z, x, B, C, dt, λ
        let rows = 2 * inner + 2 * n + h + self.level_rows();
        list.add("in.weight", &[rows, d], Role::Reader);
        list.add("conv.weight", &[inner + 2 * n, CONV_WIDTH], Role::ConvWeight);
        list.add("conv.bias", &[inner + 2 * n], Role::ConvBias);
        list.add("A_log", &[h], Role::ALog);
        list.add("dt_bias", &[h], Role::DtBias);
        list.add("D", &[h], Role::SkipD);
        if let Some(levels) = self.levels {
            list.add("L", &[h, levels.into()], Role::LevelScale);
        }
        list.add("norm.weight", &[inner], Role::NormWeight);
        list.add("out.weight", &[d, inner], Role::Writer);
    }

    // I = h·P. in: (2I + 2N + h)·d; conv: (I + 2N)·5; A_log, dt_bias, D: h; norm: I; out: d·I; with levels λ:
    // h·l·(d + 1)
    fn parameters(&self, d: u64) -> u64 {
        let (h, n, inner) = (u64::from(self.heads), u64::from(self.state_width), self.inner());
        (2 * inner + 2 * n + h) * d
            + (inner + 2 * n) * (CONV_WIDTH + 1)
            + 3 * h
            + inner
            + d * inner
            + self.level_rows() * (d + 1)
    }

    fn token_flops(&self, d: f64) -> f64 {
        let [h, p, n] = [self.heads, self.head_width, self.state_width].map(f64::from);
        // in: (2·h·P + 2·N + h)·d, and h·l·d for λ; out: h·P·d
        let projections = 2.0 * d * (3.0 * h * p + 2.0 * n + h + self.level_rows() as f64);
        let conv = (2.0 * CONV_WIDTH as f64 + 1.0) * (h * p + 2.0 * n); // with a bias
        // dt·x: P; e^{dt·A} S: P·N; S += (dt·x) Bᵀ and S·C: 2·P·N each; + D·x: 2·P
        projections + conv + h * (5.0 * p * n + 3.0 * p)
    }

    fn past(&self) -> Past {
        let (n, inner) = (u64::from(self.state_width), self.inner());
        let [k, v] = [self.state_width, self.head_width].map(f64::from);
        Past::States {
            elements: inner * n,
            inputs: (CONV_WIDTH - 1) * (inner + 2 * n),
            heads: self.heads,
            // e^g S: K·V; the read: 2·K·V; λ · and its sum: 2·V
            level_flops: 3.0 * k * v + 2.0 * v,
        }
    }

    fn levels(&self) -> Option<u32> {
        self.levels
    }

    fn phases(&self) -> Option<Phases> {
        None
    }

    fn sizes(&self) -> [u32; 3] {
        [self.heads, self.state_width, self.head_width]
    }

    fn brief(&self) -> String {
        let levels = self.levels.map_or_else(String::new, |levels| format!(" l{levels}"));
        format!("h{} p{} n{}{levels}", self.heads, self.head_width, self.state_width)
    }

    fn scaled(self, scale: f64) -> Result<Self, (&'static str, u32)> {
        Ok(match whole(self.heads, scale) {
            Some(heads) => Self { heads, ..self },
            None => Self { head_width: whole_width("head_width", self.head_width, scale)?, ..self },
        })
    }

    fn nearly_scaled(self, scale: f64) -> Self {
        let (heads, narrowed) = nearest_heads(self.heads, scale);
        Self { heads, head_width: narrowed(self.head_width), ..self }
    }

    fn shaped(self, kind: MixerKind) -> Self {
        let levels = (kind == MixerKind::LogLinearMamba2).then_some(LEVELS);
        Self { levels, ..self }
    }
}
