//! What the recurrent mixers share: the convolved channels of their input projection, and their state.

use kernels::cpu::{Aligned, run};
use kernels::short_conv::cpu::ConvolveSilu;

use super::fenwick::Fenwick;
use super::phases::PhaseState;
use super::scratch::{ROWS, Run};
use crate::weights::SplitMix;

/// Positions that the short convolution remembers.
const HISTORY: usize = kernels::short_conv::WIDTH - 1;

/// The state of one sequence in one recurrent mixer.
#[derive(Debug, Clone)]
pub(crate) struct Recurrent {
    /// The last three inputs of the convolution, `[3, C]`, oldest first.
    pub(super) history: Vec<f32>,
    /// S of every head, `[H, K, V]`.
    pub(super) matrix: Aligned<f32>,
    /// Of a log-linear mixer instead.
    pub(super) fenwick: Option<Fenwick>,
    /// Of a mixer with Selective RoPE.
    pub(super) phases: Option<PhaseState>,
}

impl Recurrent {
    pub(super) fn new(channels: usize, heads: usize, key_width: usize, value_width: usize) -> Self {
        Self {
            history: vec![0.0; HISTORY * channels],
            matrix: Aligned::zeros(heads * key_width * value_width),
            fenwick: None,
            phases: None,
        }
    }

    /// Of a mixer with a state for each of `levels` pieces of the past, if it is log-linear.
    pub(super) fn with_levels(
        channels: usize,
        levels: Option<usize>,
        [heads, key_width, value_width]: [usize; 3],
    ) -> Self {
        let Some(levels) = levels else {
            return Self::new(channels, heads, key_width, value_width);
        };
        let fenwick = Fenwick::new(levels, heads, key_width * value_width);
        Self { fenwick: Some(fenwick), ..Self::new(channels, 0, 0, 0) }
    }

    /// As if `position` positions had been seen, with values from `random`.
    pub(super) fn pretend(&mut self, position: usize, random: &mut SplitMix) {
        if let Some(fenwick) = &mut self.fenwick {
            fenwick.pretend(position, random);
        }
        if let Some(phases) = &mut self.phases {
            phases.pretend(random);
        }
        for x in self.history.iter_mut().chain(&mut *self.matrix) {
            *x = random.between(-1.0, 1.0);
        }
    }

    /// See [`super::State::rewind`].
    pub(super) fn rewind(&mut self, position: usize) {
        if let Some(fenwick) = &mut self.fenwick {
            fenwick.rewind(position);
        }
    }

    /// See [`super::State::steps`].
    pub(super) fn steps(&self, position: usize) -> usize {
        self.fenwick.as_ref().map_or(1, |fenwick| fenwick.steps(position))
    }

    pub(super) fn bytes(&self) -> usize {
        (self.history.len() + self.matrix.len()) * size_of::<f32>()
            + self.fenwick.as_ref().map_or(0, Fenwick::bytes)
            + self.phases.as_ref().map_or(0, PhaseState::bytes)
    }
}

/// The short convolution of some channels of a projection.
#[derive(Debug)]
pub(crate) struct Convolution {
    /// `[4, C]`
    pub(super) weight: Vec<f32>,
    /// `[C]`
    pub(super) bias: Option<Vec<f32>>,
    /// The first of the channels in a row of the projection.
    pub(super) offset: usize,
}

impl Convolution {
    pub(super) fn channels(&self) -> usize {
        self.weight.len() / kernels::short_conv::WIDTH
    }

    /// y `[T, C]` ← SiLU(conv(the channels of p `[T, stride]`)), then `after` on each row; the history moves on.
    pub(super) fn forward(
        &self,
        on: &Run<'_>,
        p: &[f32],
        stride: usize,
        state: &mut Recurrent,
        y: &mut [f32],
        after: impl Fn(&mut [f32]) + Sync,
    ) {
        let channels = self.channels();
        let rows: Vec<&[f32]> = state
            .history
            .chunks_exact(channels)
            .chain(p.chunks_exact(stride).map(|row| &row[self.offset..][..channels]))
            .collect();
        on.pool.chunks_mut(y, ROWS * channels, |block, y| {
            let tokens = y.len() / channels;
            run(ConvolveSilu {
                rows: &rows[block * ROWS..][..tokens + HISTORY],
                weight: &self.weight,
                bias: self.bias.as_deref(),
                y,
            });
            y.chunks_exact_mut(channels).for_each(&after);
        });
        let last: Vec<f32> = rows[rows.len() - HISTORY..].concat();
        state.history = last;
    }
}

/// out `[T, H·V]` ← o `[H, T, V]`
pub(super) fn interleave_heads(
    on: &Run<'_>,
    o: &[f32],
    tokens: usize,
    value_width: usize,
    out: &mut [f32],
) {
    let width = out.len() / tokens;
    on.pool.chunks_mut(out, ROWS * width, |block, out| {
        for (t, row) in (block * ROWS..).zip(out.chunks_exact_mut(width)) {
            for (head, out) in row.chunks_exact_mut(value_width).enumerate() {
                out.copy_from_slice(&o[(head * tokens + t) * value_width..][..value_width]);
            }
        }
    });
}
