//! What an architecture costs, by formula: floating-point operations, weights, recurrent state and KV cache.
//!
//! Convention of the counts: a multiplication and an addition are one operation each, so a matrix of `out × in` costs
//! 2·out·in on one token. Counted are projections, convolutions, the recurrence in its one-token form, and attention's
//! scores and weighted sums. Left out, as everywhere, is what is linear in a vector: norms, activations, gates, softmax,
//! rotary positions, scalings by a constant, residual additions, the look-up of an embedding, and the additions by which
//! the states of a log-linear mixer move from level to level (one state a token on average).
//!
//! A log-linear mixer has the more states the longer its past is. Of a decode after `context` positions the fullest
//! position up to there counts, at which all the levels it can reach are in use; of a prefill every position as it is.
//!
//! Meta tokens are positions that a sequence begins with: they are attended to and kept, but computed once for a model,
//! not for a sequence.
//!
//! The chunked form that trains and prefills does more operations than the recurrence, in faster ones; these counts do
//! not depend on a chunk size. Operations are `f64`, because a long prompt of a large model passes `u64`.

use std::collections::BTreeMap;

use crate::architecture::{Architecture, Mixer, Past, Phases};
use crate::latency::{Conditions, Dtype, Part, Phase, parts};
use crate::tensors::{active_parameters, mixer_parameters, parameters};

/// Bytes of an element of a recurrent state, which is fp32 whatever the weights are.
const STATE_ELEMENT_BYTES: u64 = 4;

/// Operations of one part: of one token in decode, of the whole prompt in prefill.
pub fn part_flops(part: &Part, phase: Phase) -> f64 {
    let tokens = match phase {
        Phase::Decode { .. } => 1.0,
        Phase::Prefill { tokens } => f64::from(tokens),
    };
    match *part {
        Part::Mixer { d_model, mixer, meta_tokens } => {
            tokens * mixer.token_flops(d_model.into())
                + attended_flops(&mixer, phase, meta_tokens)
                + level_flops(&mixer, phase, meta_tokens)
        }
        Part::Ffn { d_model, ffn } => tokens * ffn.token_flops(d_model.into()),
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

/// Levels in use at the fullest of the positions 0 to `position`.
pub fn live_levels(position: u32, levels: u32) -> u32 {
    // the level of a past position is the number of bits in which it differs; the fullest position has only ones
    let fullest = (u64::from(position) + 1).ilog2();
    (fullest + 1).min(levels)
}

/// Levels in use beside that of the position itself, summed over the positions below `tokens`.
fn past_levels(tokens: u32, levels: u32) -> f64 {
    let (t, last) = (u64::from(tokens), levels - 1);
    // bit i is set in whole halves of periods of 2^(i+1), and in what is left of the last one
    let set = |i: u32| (t >> (i + 1) << i) + (t % (1 << (i + 1))).saturating_sub(1 << i);
    // the last level holds everything from bit last − 1 on
    let below: u64 = (0..last - 1).map(set).sum();
    (below + t.saturating_sub(1 << (last - 1))) as f64
}

/// Operations of the states beyond the first of a log-linear mixer: each decays, is erased from and read.
fn level_flops(mixer: &Mixer, phase: Phase, meta_tokens: u32) -> f64 {
    let Some(levels) = mixer.levels() else { return 0.0 };
    let states = match phase {
        Phase::Decode { context } => {
            f64::from(live_levels(context.saturating_add(meta_tokens), levels) - 1)
        }
        Phase::Prefill { tokens } => {
            past_levels(tokens.saturating_add(meta_tokens), levels)
                - past_levels(meta_tokens, levels)
        }
    };
    let Past::States { heads, level_flops, .. } = mixer.past() else { return 0.0 };
    states * f64::from(heads) * level_flops
}

/// Operations on every position attended to: scores and weighted sums.
fn attended_flops(mixer: &Mixer, phase: Phase, meta_tokens: u32) -> f64 {
    let Past::Positions { window, flops, .. } = mixer.past() else { return 0.0 };
    let window = window.map_or(f64::INFINITY, f64::from);
    let attended = match phase {
        // the token itself included
        Phase::Decode { context } => {
            (f64::from(context) + f64::from(meta_tokens) + 1.0).min(window)
        }
        // Σ_{t=m+1..m+T} min(t, w)
        Phase::Prefill { tokens } => {
            let upto = |t: f64| {
                let rising = t.min(window);
                rising * (rising + 1.0) / 2.0 + (t - rising) * rising
            };
            let meta_tokens = f64::from(meta_tokens);
            upto(f64::from(tokens) + meta_tokens) - upto(meta_tokens)
        }
    };
    flops * attended
}

/// Bytes of one sequence's recurrent state in a part while it reads its first `positions` positions: the state itself, or
/// as many as a log-linear mixer has levels in use, and the last inputs of each convolution.
pub fn part_state_bytes(part: &Part, positions: u32) -> u64 {
    let Part::Mixer { mixer, meta_tokens, .. } = part else {
        return 0;
    };
    let positions = positions.saturating_add(*meta_tokens);
    let states =
        mixer.levels().map_or(1, |levels| live_levels(positions.saturating_sub(1), levels).into());
    let elements = match mixer.past() {
        Past::Positions { .. } => 0,
        Past::States { elements, inputs, .. } => elements.saturating_mul(states) + inputs,
    };
    let phases = mixer.phases().map_or(0, Phases::state_elements);
    elements.saturating_add(phases).saturating_mul(STATE_ELEMENT_BYTES)
}

/// Bytes of one sequence's recurrent states while it reads its first `positions` positions.
pub fn state_bytes(architecture: &Architecture, positions: u32) -> u64 {
    parts(architecture).map(|part| part_state_bytes(&part, positions)).fold(0, u64::saturating_add)
}

/// Bytes of one sequence's keys and values in a part after `positions` positions; a window keeps its own length only.
pub fn part_cache_bytes(part: &Part, positions: u32, dtype: Dtype) -> u64 {
    let Part::Mixer { mixer, meta_tokens, .. } = part else { return 0 };
    let Past::Positions { window, elements, .. } = mixer.past() else { return 0 };
    let positions = positions.saturating_add(*meta_tokens);
    let kept = window.map_or(positions, |window| window.min(positions));
    (elements * dtype.cache_element_bytes()).saturating_mul(kept.into())
}

/// Bytes of one sequence's keys and values after `positions` positions.
pub fn cache_bytes(architecture: &Architecture, positions: u32, dtype: Dtype) -> u64 {
    parts(architecture)
        .map(|part| part_cache_bytes(&part, positions, dtype))
        .fold(0, u64::saturating_add)
}

/// Bytes of the weights that a step of `tokens` tokens reads in a part: of the embedding one row, of a mixture of experts
/// those that so many tokens are expected to choose ([`Experts::read`](crate::architecture::Experts::read)).
pub fn part_weight_bytes(part: &Part, dtype: Dtype, tokens: u32) -> u64 {
    let elements = match *part {
        Part::Mixer { d_model, mixer, .. } => {
            u64::from(d_model) + mixer_parameters(d_model.into(), &mixer)
        }
        Part::Ffn { d_model, ffn } => {
            u64::from(d_model) + ffn.read_parameters(d_model.into(), tokens)
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
    part_weight_bytes(part, dtype, 1)
        .saturating_add(part_state_bytes(part, context.saturating_add(1)).saturating_mul(2))
        .saturating_add(part_cache_bytes(part, context.saturating_add(1), dtype))
}

/// Bytes that one decode step of a model must move, for one sequence.
pub fn decode_bytes(architecture: &Architecture, context: u32, dtype: Dtype) -> u64 {
    parts(architecture)
        .map(|part| part_decode_bytes(&part, context, dtype))
        .fold(0, u64::saturating_add)
}

/// Bytes of weights that a decode step of a batch reads beyond those of one sequence: of the experts that further tokens
/// choose.
pub fn further_weight_bytes(architecture: &Architecture, dtype: Dtype, batch: u32) -> u64 {
    parts(architecture)
        .map(|part| part_weight_bytes(&part, dtype, batch) - part_weight_bytes(&part, dtype, 1))
        .fold(0, u64::saturating_add)
}

/// Bytes of memory that generation fills at its peak: all weights, and for each sequence of the batch its states and its
/// keys and values after `context` positions. The buffers of one layer's activations, shared by all, are left out.
pub fn memory_bytes(architecture: &Architecture, context: u32, batch: u32, dtype: Dtype) -> u64 {
    let sequence = state_bytes(architecture, context.saturating_add(1))
        .saturating_add(cache_bytes(architecture, context.saturating_add(1), dtype));
    weight_bytes(architecture, dtype).saturating_add(sequence.saturating_mul(batch.into()))
}

/// The largest batch of sequences whose [`memory_bytes`] a budget holds, `at_most` and no more, rounded down to two
/// binary digits (1, 2, 3, 4, 6, 8, 12, 16, …) so that stacks share timings; 0 when one sequence does not fit.
pub fn largest_batch(
    architecture: &Architecture,
    context: u32,
    dtype: Dtype,
    budget_bytes: u64,
    at_most: u32,
) -> u32 {
    let alone = memory_bytes(architecture, context, 0, dtype);
    let sequence = memory_bytes(architecture, context, 1, dtype) - alone;
    let Some(rest) = budget_bytes.checked_sub(alone) else { return 0 };
    let fits = rest.checked_div(sequence).unwrap_or(u64::MAX).min(at_most.into()) as u32;
    let unit = fits.checked_ilog2().map_or(1, |digits| 1 << digits.saturating_sub(1));
    fits / unit * unit
}

/// The costs of an architecture as the values that campaigns limit, optimise and store.
///
/// `parameters` and `active_parameters` always; for every decode among the conditions `decode_flops`, `weight_bytes`, `state_bytes`,
/// `cache_bytes` and `memory_bytes` (all three of the whole batch); for every prefill `prefill_flops`. Operations are per
/// token.
pub fn values<'a>(
    architecture: &Architecture,
    conditions: impl IntoIterator<Item = &'a Conditions>,
) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::from([
        ("parameters".to_owned(), parameters(architecture) as f64),
        ("active_parameters".to_owned(), active_parameters(architecture) as f64),
    ]);
    for Conditions { dtype, batch: sequences, phase, .. } in conditions {
        let flops = flops_per_token(architecture, *phase);
        match *phase {
            Phase::Decode { context } => {
                let batch = f64::from(*sequences);
                values.insert("decode_flops".to_owned(), flops);
                values.insert("weight_bytes".to_owned(), weight_bytes(architecture, *dtype) as f64);
                values.insert(
                    "state_bytes".to_owned(),
                    batch * state_bytes(architecture, context.saturating_add(1)) as f64,
                );
                values.insert(
                    "cache_bytes".to_owned(),
                    batch * cache_bytes(architecture, context, *dtype) as f64,
                );
                values.insert(
                    "memory_bytes".to_owned(),
                    memory_bytes(architecture, context, *sequences, *dtype) as f64,
                );
            }
            Phase::Prefill { .. } => {
                values.insert("prefill_flops".to_owned(), flops);
            }
        }
    }
    values
}
