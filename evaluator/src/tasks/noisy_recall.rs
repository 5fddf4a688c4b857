//! In-context recall among noise (MAD, arXiv 2403.17844): key–value pairs that come again and again, each key with the
//! value it has in this sequence, and tokens of noise between. A value must be said at a key that has come before. At a
//! longer length every pair comes more often.

use rand::seq::index::sample;
use rand::{Rng, RngExt};
use search::config::TaskConfig;

use super::Example;

/// Keys, values, noise.
pub(super) fn vocab(config: &TaskConfig) -> u32 {
    3 * config.symbols
}

pub(super) fn example(config: &TaskConfig, rng: &mut impl Rng, length: usize) -> Example {
    let (symbols, items) = (config.symbols, config.items as usize);
    let noise = |rng: &mut _| 2 * symbols + RngExt::random_range(rng, 0..symbols);
    let keys: Vec<u32> =
        sample(rng, symbols as usize, items).iter().map(|key| key as u32).collect();
    let values: Vec<u32> = (0..items).map(|_| symbols + rng.random_range(0..symbols)).collect();
    let mut example = Example::blank(length, 0);
    let mut seen = vec![false; items];
    let mut at = 0;
    while at < length {
        // A pair has two tokens: this makes `noise` their share of all tokens.
        let share = 2.0 * config.noise / (1.0 + config.noise);
        if at + 1 == length || rng.random_bool(share) {
            example.inputs[at] = noise(rng);
            at += 1;
            continue;
        }
        let pair = rng.random_range(0..items);
        example.inputs[at] = keys[pair];
        example.inputs[at + 1] = values[pair];
        if seen[pair] {
            example.targets[at] = Some(values[pair]);
        }
        seen[pair] = true;
        at += 2;
    }
    example
}
