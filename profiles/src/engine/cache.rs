//! What attention keeps of a sequence: keys and values.

use kernels::attention::cpu::Cached;
use kernels::rope::cpu::Table;

use super::phases::PhaseState;
use crate::weights::SplitMix;

/// The keys and values of one sequence, bf16 where the weights are below f32. With a window the oldest position is
/// overwritten.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    /// Per key/value head `[C, K]`, keys rotated.
    pub(super) keys: Vec<Cached>,
    /// Per key/value head `[C, K]`.
    pub(super) values: Vec<Cached>,
    /// Positions seen.
    pub(super) position: usize,
    /// The last positions that are kept; none: all.
    pub(super) window: Option<usize>,
    pub(super) rotations: Table,
    /// Of attention with Selective RoPE.
    pub(super) phases: Option<PhaseState>,
}

impl Cache {
    pub(super) fn bytes(&self) -> usize {
        self.keys.iter().chain(&self.values).map(Cached::bytes).sum::<usize>()
            + self.phases.as_ref().map_or(0, PhaseState::bytes)
    }

    /// Forgets what came after `position`, which a window may not have kept: only for timing the same step again.
    pub(super) fn rewind(&mut self, position: usize) {
        self.position = position;
        for rows in self.keys.iter_mut().chain(&mut self.values) {
            rows.resize(rows.len().min(position * self.rotations.head_width()));
        }
    }

    /// As if `position` positions had been seen, with values from `random`.
    pub(super) fn pretend(&mut self, position: usize, random: &mut SplitMix) {
        self.position = position;
        if let Some(phases) = &mut self.phases {
            phases.pretend(random);
        }
        let values = position.min(self.window.unwrap_or(position)) * self.rotations.head_width();
        for rows in self.keys.iter_mut().chain(&mut self.values) {
            rows.resize(values);
            rows.write(0, &(0..values).map(|_| random.between(-1.0, 1.0)).collect::<Vec<f32>>());
        }
    }
}
