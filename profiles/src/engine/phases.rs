//! Selective RoPE: the angles by which q and k turn, learnt from the input and summed over the past.

use std::f64::consts::TAU;

use kernels::cpu::{Matrix, run};
use kernels::norm::cpu::{Gate, L2Norm, RmsNorm};
use search::architecture::{Phases as Shape, Temperature};

use super::scratch::{Buffer, ROWS, Run};
use crate::weights::{SplitMix, Weights};

/// What the angles are made of.
#[derive(Debug)]
pub(crate) struct Phases {
    /// Channels of x that are normed together.
    norm_width: usize,
    heads: usize,
    half: usize,
    d: usize,
    projection: Projection,
    /// `[H·K/2, 4]`
    taps: Vec<f32>,
    /// e^b, `[H·K/2]`
    bias: Option<Vec<f32>>,
    /// W_g `[H, d]` and b_g `[H]`
    gate: Option<(Matrix, Vec<f32>)>,
    /// τ, `[K/2]`
    temperatures: Vec<f32>,
}

/// The map from the normed x to φ.
#[derive(Debug)]
enum Projection {
    LowRank {
        /// `[rank, d]`
        down: Matrix,
        /// `[H·K/2, rank]`
        up: Matrix,
    },
    /// Of full rank: for each head `[K/2, share]` on its share of x, or one for all, `[H·K/2, d]`.
    Shares(Vec<Matrix>),
}

/// What the angles of one sequence remember.
#[derive(Debug, Clone)]
pub(crate) struct PhaseState {
    /// The last three inputs of the convolution, `[3, H·K/2]`, oldest first.
    history: Vec<f32>,
    /// τ Σ φ without whole turns, `[H·K/2]`
    angles: Vec<f32>,
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
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
        (self.history.len() + self.angles.len()) * size_of::<f32>()
    }

    pub(super) fn pretend(&mut self, random: &mut SplitMix) {
        for x in self.history.iter_mut().chain(&mut self.angles) {
            *x = random.between(-1.0, 1.0);
        }
    }
}

impl Projection {
    fn new(weights: &Weights, prefix: &str, d: usize, shape: Shape) -> Self {
        let tensor = |name: &str| weights.get(&format!("{prefix}{name}"));
        let (rank, channels) = (Shape::RANK as usize, shape.channels() as usize);
        if !shape.forms.full_rank {
            return Self::LowRank {
                down: Matrix::from_rows(tensor("phi_down.weight"), rank, d),
                up: Matrix::from_rows(tensor("phi_up.weight"), channels, rank),
            };
        }
        let (half, share) = (shape.half as usize, shape.norm_width(d as u64) as usize);
        let scale = tensor("phi_scale");
        let mut rows = tensor("phi_full.weight").to_vec();
        for (angle, row) in rows.chunks_exact_mut(share).enumerate() {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            for x in row {
                *x *= scale[angle / half] / length;
            }
        }
        let angles = if share == d { channels } else { half };
        let heads = rows.chunks_exact(angles * share);
        Self::Shares(heads.map(|rows| Matrix::from_rows(rows, angles, share)).collect())
    }

    fn bytes(&self) -> usize {
        match self {
            Self::LowRank { down, up } => down.bytes() + up.bytes(),
            Self::Shares(heads) => heads.iter().map(Matrix::bytes).sum(),
        }
    }

    /// φ `[T, H·K/2]` of u `[T, d]`.
    fn apply(&self, on: &mut Run<'_>, u: &[f32], tokens: usize, phi: &mut [f32]) {
        let heads = match self {
            Self::LowRank { down, up } => {
                let mut low = on.scratch.take(tokens * down.outputs());
                down.apply(on.pool, u, &mut low);
                up.apply(on.pool, &low, phi);
                return on.scratch.give(low);
            }
            Self::Shares(heads) => heads,
        };
        if let [all] = heads.as_slice() {
            return all.apply(on.pool, u, phi);
        }
        let (half, share) = (heads[0].outputs(), heads[0].inputs());
        let (mut own, mut turned) =
            (on.scratch.take(tokens * share), on.scratch.take(tokens * half));
        for (head, matrix) in heads.iter().enumerate() {
            let shares = u.chunks_exact(heads.len() * share).map(|u| &u[head * share..][..share]);
            own.chunks_exact_mut(share).zip(shares).for_each(|(own, u)| own.copy_from_slice(u));
            matrix.apply(on.pool, &own, &mut turned);
            let rows = phi.chunks_exact_mut(heads.len() * half);
            rows.zip(turned.chunks_exact(half))
                .for_each(|(phi, turned)| phi[head * half..][..half].copy_from_slice(turned));
        }
        on.scratch.give(own);
        on.scratch.give(turned);
    }
}

impl Phases {
    pub(super) fn new(weights: &Weights, prefix: &str, d: usize, shape: Shape) -> Self {
        let tensor = |name: &str| weights.get(&format!("{prefix}{name}"));
        let (heads, forms) = (shape.heads as usize, shape.forms);
        Self {
            norm_width: shape.norm_width(d as u64) as usize,
            heads,
            half: shape.half as usize,
            d,
            projection: Projection::new(weights, prefix, d, shape),
            taps: tensor("phi_conv.weight").to_vec(),
            bias: forms.bias.then(|| tensor("phi_bias").iter().map(|b| b.exp()).collect()),
            gate: forms.gate.then(|| {
                let matrix = Matrix::from_rows(tensor("phi_gate.weight"), heads, d);
                (matrix, tensor("phi_gate_bias").to_vec())
            }),
            temperatures: match forms.temperature {
                Temperature::Learnt => tensor("phi_temperature").to_vec(),
                _ => shape.temperatures().into_iter().map(|x| x as f32).collect(),
            },
        }
    }

    /// H·K/2
    fn channels(&self) -> usize {
        self.heads * self.half
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.projection.bytes() + self.gate.as_ref().map_or(0, |(matrix, _)| matrix.bytes())
    }

    pub(super) fn state(&self) -> PhaseState {
        let channels = self.channels();
        PhaseState { history: vec![0.0; 3 * channels], angles: vec![0.0; channels] }
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
        let (d, heads, channels) = (self.d, self.heads, self.channels());
        let tokens = x.len() / d;
        let mut unit = on.scratch.take(x.len());
        on.pool.chunks_mut(&mut unit, ROWS * d, |block, unit| {
            unit.copy_from_slice(&x[block * ROWS * d..][..unit.len()]);
            run(RmsNorm { x: &mut *unit, weight: norm, gate: Gate::None });
            run(L2Norm { x: unit, width: self.norm_width });
        });
        let mut phi = on.scratch.take(tokens * channels);
        self.projection.apply(on, &unit, tokens, &mut phi);
        let mut open = on.scratch.take(tokens * heads);
        match &self.gate {
            Some((matrix, bias)) => {
                matrix.apply(on.pool, &unit, &mut open);
                for row in open.chunks_exact_mut(heads) {
                    row.iter_mut().zip(bias).for_each(|(x, bias)| *x = sigmoid(*x + bias));
                }
            }
            None => open.fill(1.0),
        }
        let (mut cos, mut sin) =
            (on.scratch.take(tokens * channels), on.scratch.take(tokens * channels));
        let PhaseState { history, angles } = state;
        let bias = |c: usize| self.bias.as_ref().map_or(0.0, |bias| bias[c]);
        for (t, phi) in phi.chunks_exact(channels).enumerate() {
            for (c, taps) in self.taps.chunks_exact(4).enumerate() {
                let past = [history[c], history[channels + c], history[2 * channels + c]];
                let convolved: f32 =
                    past.iter().zip(taps).map(|(x, tap)| x * tap).sum::<f32>() + phi[c] * taps[3];
                let turn = f64::from((convolved + bias(c)) * open[t * heads + c / self.half]);
                let temperature = f64::from(self.temperatures[c % self.half]);
                angles[c] = ((f64::from(angles[c]) + turn * temperature) % TAU) as f32;
                (sin[t * channels + c], cos[t * channels + c]) = angles[c].sin_cos();
            }
            history.copy_within(channels.., 0);
            history[2 * channels..].copy_from_slice(phi);
        }
        for buffer in [unit, phi, open] {
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
