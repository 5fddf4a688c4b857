//! Kimi Delta Attention (Kimi Linear, arXiv 2510.26692): the delta rule with a decay for each channel of the keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::family::{Colour, Family, Kind, Past, Usual};
use super::gene::{Gene, Misfit, Settings, divided};
use super::kind::MixerKind;
use crate::architecture::limits;
use crate::architecture::phases::Phases;
use crate::architecture::scale::{nearest_heads, whole, whole_width};
use crate::architecture::tensor::{CONV_WIDTH, Role, Tensors};

/// Kimi Delta Attention: state of `key_width` × `value_width` per head. The decays, and the gate of the output by σ, come
/// from projections of rank V.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kda {
    /// Heads.
    pub heads: u32,
    /// K, rows of the state.
    pub key_width: u32,
    /// V, columns of the state.
    pub value_width: u32,
}

impl Kda {
    /// Rows of q, of k, and of the decays.
    pub fn key_rows(&self) -> u64 {
        u64::from(self.heads) * u64::from(self.key_width)
    }

    /// Rows of v, and of the output.
    pub fn value_rows(&self) -> u64 {
        u64::from(self.heads) * u64::from(self.value_width)
    }

    /// Rows of q, k and v together: the channels of the short convolutions.
    pub fn channels(&self) -> u64 {
        2 * self.key_rows() + self.value_rows()
    }

    /// Of the projections from which decays and gate come.
    pub fn rank(&self) -> u64 {
        self.value_width.into()
    }
}

impl Family for Kda {
    const KINDS: &'static [Kind] = &[Kind {
        kind: MixerKind::Kda,
        name: "kda",
        title: "Kimi Delta Attention",
        sign: '◮',
        colour: Colour::LightBlue,
        shaped_as: None,
        about: "Kimi Delta Attention.",
        table: ("KdaChoices", "Choices for Kimi Delta Attention."),
        genes: &[
            Gene::counts(
                "heads",
                "h",
                "Heads; `\"auto\"`: d_model / key_width, where that divides.",
            ),
            Gene::numbers("key_width", "k", &[32, 64], "K, rows of the state."),
            Gene::counts("value_width", "v", "V, columns of the state; `\"auto\"`: K."),
        ],
        not_both_auto: None,
    }];

    fn build(_: MixerKind, genes: &Settings) -> Self {
        Self {
            heads: genes.number("heads"),
            key_width: genes.number("key_width"),
            value_width: genes.number("value_width"),
        }
    }

    fn derive(_: MixerKind, d_model: u32, genes: &mut Settings) -> Result<(), Misfit> {
        let key_width = genes.number("key_width");
        if genes.get("heads").is_none() {
            genes.set("heads", Some(divided("key_width", d_model, key_width)?));
        }
        if genes.get("value_width").is_none() {
            genes.set("value_width", Some(key_width));
        }
        Ok(())
    }

    fn usual(_: MixerKind, Usual { heads, head_width, .. }: Usual) -> Self {
        Self { heads, key_width: head_width, value_width: head_width }
    }

    fn kind(&self) -> MixerKind {
        MixerKind::Kda
    }

    fn gene(&self, name: &str) -> u32 {
        match name {
            "heads" => self.heads,
            "key_width" => self.key_width,
            "value_width" => self.value_width,
            _ => unreachable!("Kimi Delta Attention has no gene {name}"),
        }
    }

    fn check(&self) -> Result<(), String> {
        limits::width("heads", self.heads)?;
        limits::width("key_width", self.key_width)?;
        limits::width("value_width", self.value_width)
    }

    fn tensors(&self, d: u64, list: &mut Tensors) {
        let (h, rank) = (u64::from(self.heads), self.rank());
        let (k_rows, v_rows) = (self.key_rows(), self.value_rows());
        list.add("q.weight", &[k_rows, d], Role::Reader);
        list.add("k.weight", &[k_rows, d], Role::Reader);
        list.add("v.weight", &[v_rows, d], Role::Reader);
        list.add("b.weight", &[h, d], Role::Reader);
        list.add("f_a.weight", &[rank, d], Role::Reader);
        list.add("f_b.weight", &[k_rows, rank], Role::Inner);
        list.add("g_a.weight", &[rank, d], Role::Reader);
        list.add("g_b.weight", &[v_rows, rank], Role::Inner);
        list.add("A_log", &[h], Role::ALog);
        list.add("dt_bias", &[k_rows], Role::DtBias);
        list.add("q_conv.weight", &[k_rows, CONV_WIDTH], Role::ConvWeight);
        list.add("k_conv.weight", &[k_rows, CONV_WIDTH], Role::ConvWeight);
        list.add("v_conv.weight", &[v_rows, CONV_WIDTH], Role::ConvWeight);
        list.add("norm.weight", &[self.value_width.into()], Role::NormWeight);
        list.add("o.weight", &[d, v_rows], Role::Writer);
    }

    // q, k: h·K·d; v, o: h·V·d; b: h·d; f_a, g_a: V·d; f_b: h·K·V; g_b: h·V·V; convolutions: 4 a channel; A_log: h;
    // dt_bias: h·K; norm: V
    fn parameters(&self, d: u64) -> u64 {
        let (h, rank) = (u64::from(self.heads), self.rank());
        let (k_rows, v_rows) = (self.key_rows(), self.value_rows());
        self.channels() * (d + CONV_WIDTH)
            + v_rows * d
            + h * (d + 1)
            + rank * (2 * d + k_rows + v_rows)
            + k_rows
            + u64::from(self.value_width)
    }

    fn token_flops(&self, d: f64) -> f64 {
        let [h, k, v] = [self.heads, self.key_width, self.value_width].map(f64::from);
        let (channels, rank) = (self.channels() as f64, self.rank() as f64);
        // q, k, v; b: h; o: h·V; f_a, g_a: V each, then f_b, g_b from V each
        let projections =
            2.0 * d * (channels + h + h * v + 2.0 * rank) + 2.0 * rank * (h * k + h * v);
        let convolutions = 2.0 * CONV_WIDTH as f64 * channels;
        // Diag(e^g) S: K·V; Sᵀk, S += k uᵀ and the read: 2·K·V each; u = β (v − Sᵀk): 2·V
        projections + convolutions + h * (7.0 * k * v + 2.0 * v)
    }

    fn past(&self) -> Past {
        Past::States {
            elements: u64::from(self.key_width).saturating_mul(self.value_rows()),
            inputs: (CONV_WIDTH - 1) * self.channels(),
            heads: self.heads,
            level_flops: 0.0,
        }
    }

    fn levels(&self) -> Option<u32> {
        None
    }

    fn phases(&self) -> Option<Phases> {
        None
    }

    fn sizes(&self) -> [u32; 3] {
        [self.heads, self.key_width, self.value_width]
    }

    fn brief(&self) -> String {
        format!("h{} k{} v{}", self.heads, self.key_width, self.value_width)
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
        Self { heads, key_width, value_width }
    }

    fn shaped(self, _: MixerKind) -> Self {
        self
    }
}
