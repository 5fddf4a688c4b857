//! Selective RoPE: the angles by which q and k turn, learnt from the input and summed over the past.

use kernels::cpu::{Matrix, run};
use kernels::norm::cpu::{Gate, L2Norm, RmsNorm};
use search::architecture::Phases as Shape;

use super::scratch::{Buffer, ROWS, Run};
use crate::weights::{SplitMix, Weights};

/// What the angles are made of.
#[derive(Debug)]
pub(crate) struct Phases {
    /// Channels of x that are normed together.
    norm_width: usize,
    half: usize,
    /// `[rank, d]`
    down: Matrix,
    /// `[H·K/2, rank]`
    up: Matrix,
    /// `[H·K/2, 4]`
    taps: Vec<f32>,
    /// θ^(−2i/K), `[K/2]`
    frequencies: Vec<f32>,
}

/// What the angles of one sequence remember.
#[derive(Debug, Clone)]
pub(crate) struct PhaseState {
    /// The last three inputs of the convolution, `[3, H·K/2]`, oldest first.
    history: Vec<f32>,
    /// Σ φ, `[H·K/2]`
    sums: Vec<f32>,
}

/// Cosines and sines of some positions, `[T, H·K/2]` each.
pub(crate) struct Turns {
    channels: usize,
    half: usize,
    cos: Buffer,
    sin: Buffer,
}

impl PhaseState {
    pub(super) fn bytes(&self) -> usize {
        (self.history.len() + self.sums.len()) * size_of::<f32>()
    }

    pub(super) fn pretend(&mut self, random: &mut SplitMix) {
        for x in self.history.iter_mut().chain(&mut self.sums) {
            *x = random.between(-1.0, 1.0);
        }
    }
}

impl Phases {
    pub(super) fn new(weights: &Weights, prefix: &str, d: usize, shape: Shape) -> Self {
        let tensor = |name: &str| weights.get(&format!("{prefix}{name}.weight"));
        let (half, rank) = (shape.half as usize, Shape::RANK as usize);
        let channels = shape.channels() as usize;
        Self {
            norm_width: shape.norm_width(d as u64) as usize,
            half,
            down: Matrix::from_rows(tensor("phi_down"), rank, d),
            up: Matrix::from_rows(tensor("phi_up"), channels, rank),
            taps: tensor("phi_conv").to_vec(),
            frequencies: (0..half)
                .map(|i| Shape::THETA.powf(-(i as f64) / half as f64) as f32)
                .collect(),
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.down.bytes() + self.up.bytes()
    }

    pub(super) fn state(&self) -> PhaseState {
        let channels = self.up.outputs();
        PhaseState { history: vec![0.0; 3 * channels], sums: vec![0.0; channels] }
    }

    /// The turns at RMSNorm(x) with the weights `norm`, x `[T, d]`, one sequence's; its state moves past it.
    /// [`Turns::give_back`] returns their memory.
    pub(super) fn turns(
        &self,
        on: &mut Run<'_>,
        norm: &[f32],
        x: &[f32],
        state: &mut PhaseState,
    ) -> Turns {
        let (d, rank, channels) = (self.down.inputs(), self.down.outputs(), self.up.outputs());
        let tokens = x.len() / d;
        let mut unit = on.scratch.take(x.len());
        on.pool.chunks_mut(&mut unit, ROWS * d, |block, unit| {
            unit.copy_from_slice(&x[block * ROWS * d..][..unit.len()]);
            run(RmsNorm { x: &mut *unit, weight: norm, gate: Gate::None });
            run(L2Norm { x: unit, width: self.norm_width });
        });
        let mut low = on.scratch.take(tokens * rank);
        self.down.apply(on.pool, &unit, &mut low);
        let mut phi = on.scratch.take(tokens * channels);
        self.up.apply(on.pool, &low, &mut phi);
        let (mut cos, mut sin) =
            (on.scratch.take(tokens * channels), on.scratch.take(tokens * channels));
        let PhaseState { history, sums } = state;
        for (t, phi) in phi.chunks_exact(channels).enumerate() {
            for (c, taps) in self.taps.chunks_exact(4).enumerate() {
                let past = [history[c], history[channels + c], history[2 * channels + c]];
                let convolved: f32 =
                    past.iter().zip(taps).map(|(x, tap)| x * tap).sum::<f32>() + phi[c] * taps[3];
                sums[c] += convolved;
                (sin[t * channels + c], cos[t * channels + c]) =
                    (sums[c] * self.frequencies[c % self.half]).sin_cos();
            }
            history.copy_within(channels.., 0);
            history[2 * channels..].copy_from_slice(phi);
        }
        for buffer in [unit, low, phi] {
            on.scratch.give(buffer);
        }
        Turns { channels, half: self.half, cos, sin }
    }
}

impl Turns {
    /// Turns one head's row `[K]` at the t-th of the positions; `head` is that of its key.
    pub(super) fn turn(&self, row: &mut [f32], t: usize, head: usize) {
        let at = t * self.channels + head * self.half;
        let (cos, sin) = (&self.cos[at..][..self.half], &self.sin[at..][..self.half]);
        let (first, second) = row.split_at_mut(self.half);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }

    pub(super) fn give_back(self, on: &mut Run<'_>) {
        on.scratch.give(self.cos);
        on.scratch.give(self.sin);
    }
}
