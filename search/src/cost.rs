//! What an architecture costs, by formula: floating-point operations, weights, recurrent state and KV cache.
//!
//! Convention of the counts: a multiplication and an addition are one operation each, so a matrix of `out × in` costs
//! 2·out·in on one token. Counted are projections, convolutions, the recurrence in its one-token form, and attention's
//! scores and weighted sums. Left out, as everywhere, is what is linear in a vector: norms, activations, gates, softmax,
//! rotary positions, scalings by a constant, residual additions, and the look-up of an embedding.
//!
//! The chunked form that trains and prefills does more operations than the recurrence, in faster ones; these counts do
//! not depend on a chunk size. Operations are `f64`, because a long prompt of a large model passes `u64`.

use std::collections::BTreeMap;

use crate::architecture::{Architecture, Attention, Mamba2, Mixer};
use crate::latency::{Conditions, Dtype, Part, Phase, parts};
use crate::tensors::{CONV_WIDTH, ffn_parameters, mixer_parameters, parameters};

/// Bytes of an element of a recurrent state, which is fp32 whatever the weights are.
const STATE_ELEMENT_BYTES: u64 = 4;

/// Operations of one part: of one token in decode, of the whole prompt in prefill.
pub fn part_flops(part: &Part, phase: Phase) -> f64 {
    let tokens = match phase {
        Phase::Decode { .. } => 1.0,
        Phase::Prefill { tokens } => f64::from(tokens),
    };
    match *part {
        Part::Mixer { d_model, mixer } => {
            tokens * token_flops(d_model.into(), &mixer) + attended_flops(&mixer, phase)
        }
        // gate, up and down: 3·f·d weights
        Part::Ffn { d_model, width } => tokens * 6.0 * f64::from(width) * f64::from(d_model),
        // prefill computes the logits of its last position only
        Part::Head { d_model, vocab } => 2.0 * f64::from(vocab) * f64::from(d_model),
    }
}

/// Operations of a whole model: of one token in decode, of the whole prompt in prefill.
pub fn flops(architecture: &Architecture, phase: Phase) -> f64 {
    parts(architecture).map(|part| part_flops(&part, phase)).sum()
}

/// Operations of a whole model over the number of its tokens.
pub fn flops_per_token(architecture: &Architecture, phase: Phase) -> f64 {
    match phase {
        Phase::Decode { .. } => flops(architecture, phase),
        Phase::Prefill { tokens } => flops(architecture, phase) / f64::from(tokens.max(1)),
    }
}

/// Operations of a mixer on one token, but those that grow with the number of positions attended to.
fn token_flops(d: f64, mixer: &Mixer) -> f64 {
    let conv = 2.0 * CONV_WIDTH as f64; // per channel
    match *mixer {
        // q, o: h·k·d weights each; k, v: h_kv·k·d
        Mixer::Attention(Attention { heads, kv_heads, head_width, .. }) => {
            4.0 * d * f64::from(head_width) * (f64::from(heads) + f64::from(kv_heads))
        }
        Mixer::DeltaNet(_) | Mixer::GatedDeltaNet(_) | Mixer::DeltaProduct(_) => {
            let family = mixer.delta().expect("a member of the family");
            let (n, h) = (f64::from(family.steps), f64::from(family.value_heads));
            let (k, v) = (f64::from(family.key_width), f64::from(family.value_width));
            let (channels, outputs) = (family.channels() as f64, family.value_rows() as f64);
            // q, k, v; b: n·H; o: H·V; and where they are there, g: H·V; a: H
            let gate = if family.output_gate { outputs } else { 0.0 };
            let decay = if family.decay { h } else { 0.0 };
            let projections = 2.0 * d * (channels + n * h + outputs + gate + decay);
            let convolutions = if family.short_conv { conv * channels } else { 0.0 };
            // e^g S: K·V; each step; the read: 2·K·V
            projections + convolutions + decay * k * v + h * (n * delta_step(k, v) + 2.0 * k * v)
        }
        Mixer::Mamba2(Mamba2 { heads, head_width, state_width }) => {
            let (h, p, n) = (f64::from(heads), f64::from(head_width), f64::from(state_width));
            // in: (2·h·P + 2·N + h)·d; out: h·P·d
            let projections = 2.0 * d * (3.0 * h * p + 2.0 * n + h);
            let conv = (conv + 1.0) * (h * p + 2.0 * n); // with a bias
            // dt·x: P; e^{dt·A} S: P·N; S += (dt·x) Bᵀ and S·C: 2·P·N each; + D·x: 2·P
            projections + conv + h * (5.0 * p * n + 3.0 * p)
        }
    }
}

/// One delta step: Sᵀk and S += k uᵀ: 2·K·V each; u = β (v − Sᵀk): 2·V.
fn delta_step(k: f64, v: f64) -> f64 {
    4.0 * k * v + 2.0 * v
}

/// Scores and weighted sums of attention: 2·k each for every query head and position attended to.
fn attended_flops(mixer: &Mixer, phase: Phase) -> f64 {
    let Mixer::Attention(Attention { heads, head_width, window, .. }) = *mixer else {
        return 0.0;
    };
    let window = window.map_or(f64::INFINITY, f64::from);
    let attended = match phase {
        // the token itself included
        Phase::Decode { context } => (f64::from(context) + 1.0).min(window),
        // Σ_{t=1..T} min(t, w)
        Phase::Prefill { tokens } => {
            let t = f64::from(tokens);
            let rising = t.min(window);
            rising * (rising + 1.0) / 2.0 + (t - rising) * rising
        }
    };
    4.0 * f64::from(heads) * f64::from(head_width) * attended
}

/// Bytes of one sequence's recurrent state in a part: the state itself and the last three inputs of each convolution.
pub fn part_state_bytes(part: &Part) -> u64 {
    let Part::Mixer { mixer, .. } = part else {
        return 0;
    };
    let conv = CONV_WIDTH - 1;
    let elements = match *mixer {
        Mixer::Attention(_) => 0,
        Mixer::DeltaNet(_) | Mixer::GatedDeltaNet(_) | Mixer::DeltaProduct(_) => {
            let family = mixer.delta().expect("a member of the family");
            let convolutions = if family.short_conv { conv * family.channels() } else { 0 };
            u64::from(family.key_width) * family.value_rows() + convolutions
        }
        Mixer::Mamba2(Mamba2 { heads, head_width, state_width }) => {
            let (inner, n) = (u64::from(heads) * u64::from(head_width), u64::from(state_width));
            inner * n + conv * (inner + 2 * n)
        }
    };
    elements.saturating_mul(STATE_ELEMENT_BYTES)
}

/// Bytes of one sequence's recurrent states.
pub fn state_bytes(architecture: &Architecture) -> u64 {
    parts(architecture).map(|part| part_state_bytes(&part)).fold(0, u64::saturating_add)
}

/// Bytes of one sequence's keys and values in a part after `positions` positions; a window keeps its own length only.
pub fn part_cache_bytes(part: &Part, positions: u32, dtype: Dtype) -> u64 {
    let Part::Mixer {
        mixer: Mixer::Attention(Attention { kv_heads, head_width, window, .. }), ..
    } = part
    else {
        return 0;
    };
    let kept = window.map_or(positions, |window| window.min(positions));
    (2 * u64::from(*kv_heads) * u64::from(*head_width) * dtype.cache_element_bytes())
        .saturating_mul(kept.into())
}

/// Bytes of one sequence's keys and values after `positions` positions.
pub fn cache_bytes(architecture: &Architecture, positions: u32, dtype: Dtype) -> u64 {
    parts(architecture)
        .map(|part| part_cache_bytes(&part, positions, dtype))
        .fold(0, u64::saturating_add)
}

/// Bytes of the weights that a decode step reads in a part; of the embedding, that is one row.
pub fn part_weight_bytes(part: &Part, dtype: Dtype) -> u64 {
    let elements = match *part {
        Part::Mixer { d_model, mixer } => {
            u64::from(d_model) + mixer_parameters(d_model.into(), &mixer)
        }
        Part::Ffn { d_model, width } => {
            u64::from(d_model) + ffn_parameters(d_model.into(), width.into())
        }
        Part::Head { d_model, vocab } => u64::from(d_model) * (u64::from(vocab) + 2),
    };
    elements.saturating_mul(dtype.bytes())
}

/// Bytes of all weights of a model.
pub fn weight_bytes(architecture: &Architecture, dtype: Dtype) -> u64 {
    parameters(architecture).saturating_mul(dtype.bytes())
}

/// Bytes that one decode step of one part must move, for one sequence: its weights, its state there and back, and the
/// keys and values of `context` positions and of its own. Over the memory's bandwidth this is a floor of the time.
pub fn part_decode_bytes(part: &Part, context: u32, dtype: Dtype) -> u64 {
    part_weight_bytes(part, dtype)
        .saturating_add(part_state_bytes(part).saturating_mul(2))
        .saturating_add(part_cache_bytes(part, context.saturating_add(1), dtype))
}

/// Bytes that one decode step of a model must move, for one sequence.
pub fn decode_bytes(architecture: &Architecture, context: u32, dtype: Dtype) -> u64 {
    parts(architecture)
        .map(|part| part_decode_bytes(&part, context, dtype))
        .fold(0, u64::saturating_add)
}

/// The costs of an architecture as the values that campaigns limit, optimise and store.
///
/// `parameters` always; for every decode among the conditions `decode_flops`, `weight_bytes`, `state_bytes` and
/// `cache_bytes` (both of the whole batch); for every prefill `prefill_flops`. Operations are per token.
pub fn values<'a>(
    architecture: &Architecture,
    conditions: impl IntoIterator<Item = &'a Conditions>,
) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::from([("parameters".to_owned(), parameters(architecture) as f64)]);
    for Conditions { dtype, batch, phase, .. } in conditions {
        let flops = flops_per_token(architecture, *phase);
        match *phase {
            Phase::Decode { context } => {
                let batch = f64::from(*batch);
                values.insert("decode_flops".to_owned(), flops);
                values.insert("weight_bytes".to_owned(), weight_bytes(architecture, *dtype) as f64);
                values.insert("state_bytes".to_owned(), batch * state_bytes(architecture) as f64);
                values.insert(
                    "cache_bytes".to_owned(),
                    batch * cache_bytes(architecture, context, *dtype) as f64,
                );
            }
            Phase::Prefill { .. } => {
                values.insert("prefill_flops".to_owned(), flops);
            }
        }
    }
    values
}
