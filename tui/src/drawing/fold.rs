//! Folding: equal neighbours become one block, repeated sequences of blocks a group.

use search::architecture::Layer;

/// A run of equal layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// Index of its first layer, from 0.
    pub first: usize,
    /// Number of layers.
    pub count: usize,
    /// Each of them.
    pub layer: &'a Layer,
    /// Its place in a sequence that repeats; the later repetitions are not listed.
    pub group: Option<Group>,
}

/// A place in a repeated sequence of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Index of the block in the sequence.
    pub position: usize,
    /// Blocks in the sequence, at least 2.
    pub length: usize,
    /// How often it stands in a row, at least 2.
    pub times: usize,
}

/// The blocks of a stack in order. At each place the repetition that hides the most blocks is taken.
pub fn fold(layers: &[Layer]) -> Vec<Block<'_>> {
    let mut runs: Vec<Block> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if run.layer == layer => run.count += 1,
            _ => runs.push(Block { first: index, count: 1, layer, group: None }),
        }
    }
    let same = |a: &Block, b: &Block| a.count == b.count && a.layer == b.layer;
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < runs.len() {
        let (mut best_length, mut best_times) = (1, 1);
        for length in 2..=((runs.len() - at) / 2).min(16) {
            let repeats = |k: usize| {
                let start = at + k * length;
                start + length <= runs.len()
                    && (0..length).all(|i| same(&runs[at + i], &runs[start + i]))
            };
            let times = 1 + (1..runs.len()).take_while(|&k| repeats(k)).count();
            if length * (times - 1) > best_length * (best_times - 1) {
                (best_length, best_times) = (length, times);
            }
        }
        for position in 0..best_length {
            let group = (best_times > 1).then_some(Group {
                position,
                length: best_length,
                times: best_times,
            });
            blocks.push(Block { group, ..runs[at + position] });
        }
        at += best_length * best_times;
    }
    blocks
}
