//! How the delta family stands in JSON and TOML: three kinds of tables, each with the keys that make sense for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::delta::Delta;
use crate::architecture::phases::PhaseForms;

/// DeltaNet: state of `key_width` × `value_width` per head.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeltaNet {
    /// Heads.
    heads: u32,
    /// K, rows of the state.
    key_width: u32,
    /// V, columns of the state.
    value_width: u32,
    /// Whether the normed output is gated by SiLU(g·x); the reference layer does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    output_gate: bool,
    /// What the whole family may choose.
    #[serde(default, skip_serializing_if = "DeltaOptions::is_default")]
    options: DeltaOptions,
}

/// Gated DeltaNet: state of `key_width` × `value_width` per head.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GatedDeltaNet {
    /// Heads.
    heads: u32,
    /// K, rows of the state.
    key_width: u32,
    /// V, columns of the state.
    value_width: u32,
    /// Whether the normed output is gated by SiLU(g·x).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    output_gate: bool,
    /// Log-linear (arXiv 2506.04761): a state for each of so many pieces of the past; none: one state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    levels: Option<u32>,
    /// What the whole family may choose.
    #[serde(default, skip_serializing_if = "DeltaOptions::is_default")]
    options: DeltaOptions,
}

/// DeltaProduct: `steps` delta steps per token, each with a key, a value and a β of its own, and one read.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeltaProduct {
    /// Heads.
    heads: u32,
    /// K, rows of the state.
    key_width: u32,
    /// V, columns of the state.
    value_width: u32,
    /// Delta steps per token, 2 to 8; one would be DeltaNet or Gated DeltaNet.
    steps: u32,
    /// Whether the state decays, once per token and before the first step.
    decay: bool,
    /// Whether the normed output is gated by SiLU(g·x).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    output_gate: bool,
    /// What the whole family may choose. The reference layer has negative eigenvalues.
    #[serde(default, skip_serializing_if = "DeltaOptions::is_default")]
    options: DeltaOptions,
}

/// What every member of the delta family may choose.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct DeltaOptions {
    /// Value heads for each key head. The state, β and the decay are those of a value head.
    value_groups: u32,
    /// β in (0, 2) and not in (0, 1), so that the state's transition has eigenvalues down to −1.
    negative_eigenvalues: bool,
    /// The short convolutions on q, k and v.
    short_conv: bool,
    /// Selective RoPE (arXiv 2511.17388) on q and k.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    selective_rope: bool,
    /// What of it is not plain.
    #[serde(skip_serializing_if = "PhaseForms::is_plain")]
    phases: PhaseForms,
}

impl Default for DeltaOptions {
    fn default() -> Self {
        Self::of(&Delta::deltanet(1, 1, 1))
    }
}

impl DeltaOptions {
    fn of(delta: &Delta) -> Self {
        let &Delta {
            value_groups, negative_eigenvalues, short_conv, selective_rope, phases, ..
        } = delta;
        Self { value_groups, negative_eigenvalues, short_conv, selective_rope, phases }
    }

    fn apply(self, to: Delta) -> Delta {
        let Self { value_groups, negative_eigenvalues, short_conv, selective_rope, phases } = self;
        Delta { value_groups, negative_eigenvalues, short_conv, selective_rope, phases, ..to }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_yes(flag: &bool) -> bool {
    *flag
}

impl From<DeltaNet> for Delta {
    fn from(json: DeltaNet) -> Self {
        let DeltaNet { heads, key_width, value_width, output_gate, options } = json;
        options.apply(Self { output_gate, ..Self::deltanet(heads, key_width, value_width) })
    }
}

impl From<GatedDeltaNet> for Delta {
    fn from(json: GatedDeltaNet) -> Self {
        let GatedDeltaNet { heads, key_width, value_width, output_gate, levels, options } = json;
        options.apply(Self { levels, output_gate, ..Self::gated(heads, key_width, value_width) })
    }
}

impl From<DeltaProduct> for Delta {
    fn from(json: DeltaProduct) -> Self {
        let DeltaProduct { heads, key_width, value_width, steps, decay, output_gate, options } =
            json;
        let one_step = Self::gated(heads, key_width, value_width);
        options.apply(Self { steps: Some(steps), decay, output_gate, ..one_step })
    }
}

impl From<Delta> for DeltaNet {
    fn from(delta: Delta) -> Self {
        let Delta { heads, key_width, value_width, output_gate, .. } = delta;
        Self { heads, key_width, value_width, output_gate, options: DeltaOptions::of(&delta) }
    }
}

impl From<Delta> for GatedDeltaNet {
    fn from(delta: Delta) -> Self {
        let Delta { heads, key_width, value_width, output_gate, levels, .. } = delta;
        let options = DeltaOptions::of(&delta);
        Self { heads, key_width, value_width, output_gate, levels, options }
    }
}

impl From<Delta> for DeltaProduct {
    fn from(delta: Delta) -> Self {
        let Delta { heads, key_width, value_width, decay, output_gate, .. } = delta;
        let (steps, options) = (delta.steps_per_token(), DeltaOptions::of(&delta));
        Self { heads, key_width, value_width, steps, decay, output_gate, options }
    }
}
