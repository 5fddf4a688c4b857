//! Selective copying (arXiv 2312.00752, section 4.1.1): symbols at random places among blanks; then as many markers, at
//! which the symbols must be said in their order. At a longer length the blanks are more.

use rand::seq::index::sample;
use rand::{Rng, RngExt};
use search::config::TaskConfig;

use super::Example;

const BLANK: u32 = 0;
const MARKER: u32 = 1;

/// Blank, marker, symbols.
pub(super) fn vocab(config: &TaskConfig) -> u32 {
    2 + config.symbols
}

pub(super) fn example(config: &TaskConfig, rng: &mut impl Rng, length: usize) -> Example {
    let items = config.items as usize;
    let mut example = Example::blank(length, BLANK);
    let asked = length - items;
    let mut places = sample(rng, asked, items).into_vec();
    places.sort_unstable();
    for (item, place) in places.into_iter().enumerate() {
        let symbol = 2 + rng.random_range(0..config.symbols);
        example.inputs[place] = symbol;
        example.inputs[asked + item] = MARKER;
        example.targets[asked + item] = Some(symbol);
    }
    example
}
