//! The genes of Selective RoPE beside whether it is there: the same of every mixer with q and k.

use super::gene::{Form, Gene, Letter, Settings};
use crate::architecture::phases::{PhaseForms, Temperature};

const TEMPERATURES: [Temperature; 4] =
    [Temperature::Rope, Temperature::Rfa, Temperature::Ones, Temperature::Learnt];
/// As campaign files say them.
const FORMS: [Form; 4] =
    [Form::Named("rope"), Form::Named("rfa"), Form::Named("ones"), Form::Named("learnt")];
/// As the text form says them.
const WORDS: [&str; 4] = ["", "ptemp=rfa", "ptemp=ones", "ptemp=learnt"];

pub(super) const GATE: Gene = Gene::flag(
    "phase_gate",
    Letter::On("pgate"),
    false,
    "Of Selective RoPE: whether a gate for each head says by how much a position turns.",
)
.if_chosen();
pub(super) const BIAS: Gene = Gene::flag(
    "phase_bias",
    Letter::On("pbias"),
    false,
    "Of Selective RoPE: whether every position turns by a learnt part that no input changes, too.",
)
.if_chosen();
pub(super) const FULL_RANK: Gene = Gene::flag(
    "phase_full_rank",
    Letter::On("pfull"),
    false,
    "Of Selective RoPE: whether each head's projection has full rank, weight-normed, and reads its share of the input.",
)
.if_chosen();
pub(super) const TEMPERATURE: Gene = Gene::forms(
    "phase_temperature",
    &FORMS,
    &WORDS,
    "Of Selective RoPE: what multiplies the angles, the frequencies of RoPE, those of random Fourier features, 1, or learnt.",
)
.if_chosen();

impl PhaseForms {
    /// What the settings say of them.
    pub(super) fn build(genes: &Settings) -> Self {
        let is_on = |gene: Gene| genes.flag(gene.name) == Some(true);
        Self {
            gate: is_on(GATE),
            bias: is_on(BIAS),
            full_rank: is_on(FULL_RANK),
            temperature: TEMPERATURES[genes.number(TEMPERATURE.name) as usize],
        }
    }

    /// The value of one of these genes.
    pub(super) fn gene(self, name: &str) -> Option<u32> {
        [
            (GATE, self.gate.into()),
            (BIAS, self.bias.into()),
            (FULL_RANK, self.full_rank.into()),
            (TEMPERATURE, self.temperature as u32),
        ]
        .into_iter()
        .find_map(|(gene, value)| (gene.name == name).then_some(value))
    }

    /// For drawings.
    pub(super) fn brief(self) -> String {
        let mut text = String::new();
        for (is_on, word) in
            [(self.gate, " pgate"), (self.bias, " pbias"), (self.full_rank, " pfull")]
        {
            text += if is_on { word } else { "" };
        }
        match WORDS[self.temperature as usize] {
            "" => text,
            word => text + " " + word,
        }
    }
}
