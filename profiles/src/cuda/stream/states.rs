//! What recurrent mixers keep of the past in the program of a step.

use kernels::cuda::Error;
use kernels::cuda::decode::{Kind, Phase, STATE_ROWS};
use kernels::log_linear::levels_within;

use super::program::{Builder, check};

impl Builder<'_> {
    /// What a mixer with one state of these rows reads and writes of its past: all of it passes through the ring.
    pub(super) fn streamed_state(
        &mut self,
        kind: Kind,
        (rows, key_width): (usize, usize),
    ) -> Result<Phase, Error> {
        let bytes = rows * key_width * 4;
        let stream = self.state(bytes)?;
        self.state_bytes += bytes as u64;
        Ok(Phase {
            stream,
            kind,
            unit_bytes: (STATE_ROWS as usize * key_width * 4) as u32,
            groups: (rows / STATE_ROWS as usize) as u32,
            units_per_group: 1,
            ..Phase::default()
        })
    }

    /// What a log-linear mixer reads and writes of its past: of each level in use rows of a state, whose bytes differ from
    /// step to step.
    pub(super) fn level_states(
        &mut self,
        kind: Kind,
        (rows, key_width): (usize, usize),
        levels: usize,
        scales: &[f32],
    ) -> Result<Phase, Error> {
        check(
            rows * (self.blocks() + 1) < 1 << 32,
            "the values of a log-linear mixer",
            "below 2³² over the blocks",
            rows,
        )?;
        let kept = levels_within(levels, self.positions);
        let bytes = rows * key_width * 4;
        self.level_bytes.push((bytes as u64, kept));
        Ok(Phase {
            kind,
            groups: rows as u32, // of no units: the warps ask for the states themselves
            splits: kept as u32,
            tiles: levels as u32,
            x: self.state(kept * bytes)?,
            k_norm: self.vector(scales)?,
            ..Phase::default()
        })
    }
}
