//! Parity: bits, and at each whether the ones so far are odd in number.

use rand::{Rng, RngExt};

use super::Example;

pub(super) const VOCAB: u32 = 2;

pub(super) fn example(rng: &mut impl Rng, length: usize) -> Example {
    let inputs: Vec<u32> = (0..length).map(|_| rng.random_range(0..2)).collect();
    let targets = inputs
        .iter()
        .scan(0, |odd, bit| {
            *odd ^= bit;
            Some(Some(*odd))
        })
        .collect();
    Example { inputs, targets }
}
