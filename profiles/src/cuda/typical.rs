//! At which position a log-linear mixer is timed: one step alone uses any number of its levels, at 8191 all, at 8192 two.

use kernels::log_linear::{is_in_use, levels_within};
use search::Architecture;

/// The position nearest to `context` and not above it from which `steps` steps use as many levels, on average, as those
/// around it do; `context` itself where no mixer has levels.
pub(super) fn typical_position(architecture: &Architecture, context: usize, steps: usize) -> usize {
    let levels = architecture.layers().iter().filter_map(|layer| layer.mixer?.levels()).max();
    levels.map_or(context, |levels| typical(levels as usize, context, steps))
}

fn typical(levels: usize, context: usize, steps: usize) -> usize {
    if context < 4 {
        return context;
    }
    let levels = levels_within(levels, 2 * context);
    // a step reads what the one before it left, and writes its own
    let used = |at: usize| {
        let count = |at| (0..levels).filter(|level| is_in_use(*level, at, levels)).count();
        (count(at - 1) + count(at)) as f64
    };
    let mean = |range: std::ops::Range<usize>| {
        let n = range.len() as f64;
        range.map(used).sum::<f64>() / n
    };
    let wanted = mean(context - context / 2..context + context / 2);
    let off = |first: usize| (mean(first..first + steps) - wanted).abs();
    let candidates = (context / 2 + 1..=context).rev();
    // of positions as good, to a quarter of a level, the nearest
    let best = candidates.clone().map(off).fold(f64::INFINITY, f64::min);
    candidates.into_iter().find(|first| off(*first) <= best.max(0.25)).unwrap_or(context)
}

#[cfg(test)]
mod tests {
    use super::typical;

    #[test]
    fn a_typical_step_uses_as_many_levels_as_those_around_it() {
        assert_eq!(typical(15, 0, 8), 0);
        for context in [64, 100, 512, 2047, 8192] {
            for steps in [1, 8] {
                let position = typical(15, context, steps);
                assert!(position <= context && 2 * position > context, "{position} for {context}");
                let ones = |at: usize| f64::from(at.count_ones() + (at - 1).count_ones()) + 2.0;
                let mean = |range: std::ops::Range<usize>| {
                    let n = range.len() as f64;
                    range.map(ones).sum::<f64>() / n
                };
                let wanted = mean(context - context / 2..context + context / 2);
                let found = mean(position..position + steps);
                assert!((found - wanted).abs() < 0.8, "{context}, {steps}: {found} for {wanted}");
            }
        }
    }
}
