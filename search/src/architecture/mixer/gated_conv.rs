//! The gated short convolution of LFM2 (arXiv 2511.23404): a depthwise causal convolution of few taps between two gates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::family::{Colour, Family, Kind, Past, Usual};
use super::gene::{Gene, Misfit, Settings};
use super::kind::MixerKind;
use crate::architecture::limits;
use crate::architecture::phases::Phases;
use crate::architecture::scale::{nearest_width, whole_width};
use crate::architecture::tensor::{Role, Tensors};

/// y = C ⊙ conv(B ⊙ x̃), with B, C and x̃ projections of the input: no activation and no bias, as LFM2 has it. In LFM2
/// there are as many channels as the model is wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatedConv {
    /// Channels of B, C and x̃.
    pub channels: u32,
    /// Taps: positions that the convolution sees, the current one included.
    pub kernel_width: u32,
}

impl GatedConv {
    /// The kernel widths that there are.
    const KERNEL_WIDTHS: std::ops::RangeInclusive<u32> = 2..=8;
}

/// Taps of LFM2's convolutions.
const USUAL_WIDTH: u32 = 3;

impl Family for GatedConv {
    const KINDS: &'static [Kind] = &[Kind {
        kind: MixerKind::GatedConv,
        name: "gsc",
        title: "gated short convolution",
        sign: '∗',
        colour: Colour::LightMagenta,
        shaped_as: None,
        about: "Gated short convolution.",
        table: ("GatedConvChoices", "Choices for the gated short convolution."),
        genes: &[
            Gene::counts("channels", "c", "Channels; `\"auto\"`: d_model."),
            Gene::numbers(
                "kernel_width",
                "k",
                &[USUAL_WIDTH],
                "Positions that it sees, the current one included: 2 to 8.",
            ),
        ],
        not_both_auto: None,
    }];

    fn build(_: MixerKind, genes: &Settings) -> Self {
        Self { channels: genes.number("channels"), kernel_width: genes.number("kernel_width") }
    }

    fn derive(_: MixerKind, d_model: u32, genes: &mut Settings) -> Result<(), Misfit> {
        if genes.get("channels").is_none() {
            genes.set("channels", Some(d_model));
        }
        Ok(())
    }

    fn usual(_: MixerKind, Usual { d_model, .. }: Usual) -> Self {
        Self { channels: d_model, kernel_width: USUAL_WIDTH }
    }

    fn kind(&self) -> MixerKind {
        MixerKind::GatedConv
    }

    fn gene(&self, name: &str) -> u32 {
        match name {
            "channels" => self.channels,
            "kernel_width" => self.kernel_width,
            _ => unreachable!("the gated short convolution has no gene {name}"),
        }
    }

    fn check(&self) -> Result<(), String> {
        limits::width("channels", self.channels)?;
        if Self::KERNEL_WIDTHS.contains(&self.kernel_width) {
            return Ok(());
        }
        Err(format!("kernel_width must be 2 to 8, got {}", self.kernel_width))
    }

    fn tensors(&self, d: u64, list: &mut Tensors) {
        let (c, taps) = (u64::from(self.channels), u64::from(self.kernel_width));
        // rows in the order B, C, x̃
        list.add("in.weight", &[3 * c, d], Role::Reader);
        list.add("conv.weight", &[c, taps], Role::ConvWeight);
        list.add("out.weight", &[d, c], Role::Writer);
    }

    // in: 3·c·d; conv: c·k; out: d·c
    fn parameters(&self, d: u64) -> u64 {
        let (c, taps) = (u64::from(self.channels), u64::from(self.kernel_width));
        c * (4 * d + taps)
    }

    // in: 3·c·d weights, out: c·d; conv: k taps a channel; gates are left out
    fn token_flops(&self, d: f64) -> f64 {
        let [c, taps] = [self.channels, self.kernel_width].map(f64::from);
        8.0 * d * c + 2.0 * taps * c
    }

    fn past(&self) -> Past {
        Past::States {
            elements: 0,
            inputs: u64::from(self.kernel_width - 1) * u64::from(self.channels),
            heads: 1,
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
        [1, self.kernel_width - 1, self.channels]
    }

    fn brief(&self) -> String {
        format!("c{} k{}", self.channels, self.kernel_width)
    }

    fn scaled(self, scale: f64) -> Result<Self, (&'static str, u32)> {
        Ok(Self { channels: whole_width("channels", self.channels, scale)?, ..self })
    }

    /// It has no heads: its channels follow as the width of the model does.
    fn nearly_scaled(self, scale: f64) -> Self {
        Self { channels: nearest_width(self.channels, scale), ..self }
    }

    fn shaped(self, _: MixerKind) -> Self {
        self
    }
}
