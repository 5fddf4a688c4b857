//! Selective RoPE (arXiv 2511.17388): the angles by which q and k turn are learnt from the input and summed over the
//! past, in place of positions times a constant.

use std::f64::consts::FRAC_PI_2;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tensor::{CONV_WIDTH, Role, Tensors};

/// What the angles of a mixer with Selective RoPE are made of:
/// φ = conv4(W · l2norm(x)), W = up · down; angle_i = τ_i · Σ_{s≤t} φ_{s,i}, τ_i = θ^(−2i/K); and what [`PhaseForms`]
/// make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// Heads that turn on their own: those of k. Query heads that share a key head turn with it.
    pub heads: u32,
    /// Channels of a head over two: one angle for each pair (i, i + K/2).
    pub half: u32,
    /// What is not as in the plain form.
    pub forms: PhaseForms,
}

/// The parts of Selective RoPE that are there or not: (conv4(W · l2norm(x)) + e^b) · σ(W_g · l2norm(x) + b_g) is what is
/// summed, and τ may be another. None of them is the form of the paper's language models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PhaseForms {
    /// The phase gate: each head's φ times σ(W_g · l2norm(x) + b_g), so that a position may turn nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gate: bool,
    /// e^b, b learnt for each angle, is added to φ: every position turns by a part that no input changes, as in RoPE.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bias: bool,
    /// W of a head reads its share of x alone, with full rank: s · its rows, each brought to unit length, s learnt for each
    /// head (weight normalisation, arXiv 1602.07868).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub full_rank: bool,
    /// τ.
    #[serde(skip_serializing_if = "Temperature::is_usual")]
    pub temperature: Temperature,
}

/// τ, which multiplies the sums of φ, from the first pair of channels to the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Temperature {
    /// The frequencies of RoPE, θ^(−2i/K) with θ = 5e5.
    #[default]
    Rope,
    /// Those of random Fourier features: ¼ tan(ω_i / 2) / tan(ω_max / 2), ω evenly from 0 to ω_max = 0.9999 π, as the
    /// paper copies.
    Rfa,
    /// 1: as the paper tracks states.
    Ones,
    /// Learnt, from those of RoPE on.
    Learnt,
}

impl Temperature {
    /// θ of the paper's models.
    const THETA: f64 = 5e5;
    /// ω_max / π, and the largest τ, of the paper's copying.
    const RFA: (f64, f64) = (0.9999, 0.25);

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
    fn is_usual(&self) -> bool {
        *self == Self::Rope
    }

    /// τ of `half` pairs of channels, of those that are learnt what they begin with.
    pub fn values(self, half: u32) -> Vec<f64> {
        let count = f64::from(half);
        let each = |i: u32| match self {
            Self::Rope | Self::Learnt => Self::THETA.powf(-f64::from(i) / count),
            // √((1 − cos ω) / (1 + cos ω)) = tan(ω / 2)
            Self::Rfa => {
                let (last, largest) = (Self::RFA.0 * FRAC_PI_2, Self::RFA.1);
                largest * (last * f64::from(i) / (count - 1.0).max(1.0)).tan() / last.tan()
            }
            Self::Ones => 1.0,
        };
        (0..half).map(each).collect()
    }
}

impl PhaseForms {
    /// Whether all is as in the plain form.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Expected and got, of a mixer of `key_width` that turns or does not.
    pub(super) fn check(self, turns: bool, key_width: u32) -> Result<(), String> {
        if !turns && !self.is_plain() {
            return Err("phases are of a mixer with selective_rope".to_owned());
        }
        if self.temperature == Temperature::Rfa && key_width < 4 {
            return Err(format!("the temperature rfa needs heads of 4 channels, got {key_width}"));
        }
        Ok(())
    }
}

impl Phases {
    /// Rank of the projection, as in the paper's models.
    pub const RANK: u64 = 16;

    /// Angles of a position.
    pub fn channels(self) -> u64 {
        u64::from(self.heads) * u64::from(self.half)
    }

    /// Channels of x that are normed together, and that a head of full rank reads: a head's share, as the paper's code has
    /// it, which refuses widths that the heads do not divide; there all of x.
    pub fn norm_width(self, d_model: u64) -> u64 {
        let heads = u64::from(self.heads);
        if d_model.is_multiple_of(heads) { d_model / heads } else { d_model }
    }

    /// τ, of those that are learnt what they begin with.
    pub fn temperatures(self) -> Vec<f64> {
        self.forms.temperature.values(self.half)
    }

    /// Those of a mixer with `heads` keys of `width` channels, if it turns.
    pub(super) fn of(turns: bool, heads: u32, width: u32, forms: PhaseForms) -> Option<Self> {
        turns.then_some(Self { heads, half: width / 2, forms })
    }

    /// Adds its tensors, the last of their mixer.
    pub(super) fn tensors(self, d: u64, list: &mut Tensors) {
        let (heads, half, angles) = (self.heads.into(), self.half.into(), self.channels());
        if self.forms.full_rank {
            list.add("phi_full.weight", &[angles, self.norm_width(d)], Role::Inner);
            list.add("phi_scale", &[heads], Role::PhaseScale);
        } else {
            list.add("phi_down.weight", &[Self::RANK, d], Role::Reader);
            list.add("phi_up.weight", &[angles, Self::RANK], Role::Inner);
        }
        list.add("phi_conv.weight", &[angles, CONV_WIDTH], Role::ConvWeight);
        if self.forms.bias {
            list.add("phi_bias", &[heads, half], Role::Bias);
        }
        if self.forms.gate {
            list.add("phi_gate.weight", &[heads, d], Role::Reader);
            list.add("phi_gate_bias", &[heads], Role::Bias);
        }
        if self.forms.temperature == Temperature::Learnt {
            list.add("phi_temperature", &[half], Role::Temperature);
        }
    }

    /// Parameters at width `d`: the projection, of low rank in two factors or of full rank with a scale for each head; four
    /// taps for each angle; the bias, the gate with its own, the temperatures.
    pub fn parameters(self, d: u64) -> u64 {
        let (heads, angles) = (u64::from(self.heads), self.channels());
        let PhaseForms { gate, bias, full_rank, temperature } = self.forms;
        let projection =
            if full_rank { angles * self.norm_width(d) + heads } else { Self::RANK * (d + angles) };
        let learnt = if temperature == Temperature::Learnt { u64::from(self.half) } else { 0 };
        let gate = if gate { heads * (d + 1) } else { 0 };
        projection + CONV_WIDTH * angles + if bias { angles } else { 0 } + gate + learnt
    }

    /// Operations on one token at width `d`. The angles' sums and the turning are left out as rotary positions are.
    pub(super) fn token_flops(self, d: f64) -> f64 {
        let (rank, angles) = (Self::RANK as f64, self.channels() as f64);
        let projection = if self.forms.full_rank {
            angles * self.norm_width(d as u64) as f64
        } else {
            rank * (d + angles)
        };
        let gate = if self.forms.gate { d * f64::from(self.heads) } else { 0.0 };
        2.0 * (projection + gate + CONV_WIDTH as f64 * angles)
    }

    /// Elements that it keeps of a sequence: the last three inputs of its convolution, and the sums.
    pub(crate) fn state_elements(self) -> u64 {
        CONV_WIDTH * self.channels()
    }
}
