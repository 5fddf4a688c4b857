//! Which rows of the table an architecture's latency is the sum of.

use super::{Conditions, LatencyKey, Part, Phase, parts};
use crate::architecture::Architecture;
use crate::cost;
use crate::device::Platform;

/// Memory that a decode step of the whole model passes through, in KiB, to three binary digits, from 64 KiB to 256 MiB; 0
/// in prefill, where many positions use what was read once.
///
/// A part is read from the cache that the rest of its model leaves it: the same part is several times slower in a model
/// that does not fit the last cache. So the size of the model belongs to the key of a part's timing; to an eighth, since
/// near the size of a cache a quarter more memory takes half as long again. A mixture of experts counts with all of them on a
/// CPU, as the next tokens choose others, and each comes back after all were passed through; on a GPU, which streams
/// weights past its cache, with those that a step is expected to choose.
pub fn working_set_kib(architecture: &Architecture, conditions: &Conditions) -> u32 {
    let Phase::Decode { context } = conditions.phase else { return 0 };
    let Conditions { dtype, batch, .. } = *conditions;
    let tokens = match Platform::of(&conditions.device) {
        Some(Platform::Cuda) => batch.max(1),
        Some(Platform::Cpu) | None => u32::MAX,
    };
    let others = cost::state_bytes(architecture, context.saturating_add(1))
        .saturating_mul(2)
        .saturating_add(cost::cache_bytes(architecture, context, dtype))
        .saturating_mul(u64::from(batch.saturating_sub(1)))
        .saturating_add(cost::further_weight_bytes(architecture, dtype, tokens));
    let bytes = cost::decode_bytes(architecture, context, dtype).saturating_add(others);
    let kib = bytes.div_ceil(1 << 10).clamp(64, 256 << 10) as u32;
    let step = 1 << (kib.ilog2() - 2);
    (kib + step / 2) / step * step
}

/// The rows of the table that an architecture's latency is the sum of, in order, repeats included.
pub fn keys<'a>(
    architecture: &'a Architecture,
    conditions: &'a Conditions,
) -> impl Iterator<Item = LatencyKey> + 'a {
    let working_set_kib = working_set_kib(architecture, conditions);
    let streams = match Platform::of(&conditions.device) {
        Some(Platform::Cuda) => {
            conditions.batch == 1 && matches!(conditions.phase, Phase::Decode { .. })
        }
        Some(Platform::Cpu) | None => false,
    };
    let mut parts = parts(architecture).peekable();
    std::iter::from_fn(move || {
        let part = parts.next()?;
        let before_ffn = streams
            && matches!(part, Part::Mixer { .. })
            && matches!(parts.peek(), Some(Part::Ffn { .. }));
        Some(LatencyKey { part, working_set_kib, before_ffn, conditions: conditions.clone() })
    })
}
