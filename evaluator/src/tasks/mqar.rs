//! Multi-query associative recall (Zoology, arXiv 2312.04927): `k₁ v₁ … kₙ vₙ`, then blanks among which every key comes
//! once more at a random place, and its value must be said there. At a longer length the blanks are more.

use rand::Rng;
use rand::seq::{SliceRandom, index::sample};
use search::config::TaskConfig;

use super::Example;

/// Blank, keys, values.
pub(super) fn vocab(config: &TaskConfig) -> u32 {
    1 + 2 * config.symbols
}

pub(super) fn example(config: &TaskConfig, rng: &mut impl Rng, length: usize) -> Example {
    let (symbols, items) = (config.symbols as usize, config.items as usize);
    let mut example = Example::blank(length, 0);
    let keys: Vec<u32> = sample(rng, symbols, items).iter().map(|key| 1 + key as u32).collect();
    let values: Vec<u32> =
        sample(rng, symbols, items).iter().map(|value| (1 + symbols + value) as u32).collect();
    for (pair, (&key, &value)) in keys.iter().zip(&values).enumerate() {
        example.inputs[2 * pair] = key;
        example.inputs[2 * pair + 1] = value;
    }
    let mut order: Vec<usize> = (0..items).collect();
    order.shuffle(rng);
    let places = sample(rng, length - 2 * items, items);
    for (pair, place) in order.into_iter().zip(places) {
        example.inputs[2 * items + place] = keys[pair];
        example.targets[2 * items + place] = Some(values[pair]);
    }
    example
}
