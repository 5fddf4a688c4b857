//! Rotary positions, given or learnt.

pub mod cpu;
pub mod train;

use crate::activation::sigmoid;
use crate::{norm, short_conv};

/// Rotates the pairs (i, i + K/2) of every row by position · θ^(−2i/K) (RoFormer, arXiv 2104.09864, eq. 34, with the
/// halves paired as GPT-NeoX and the Llama checkpoints do).
///
/// * `x`: `[T, K]`, rotated in place; its first row is at `first_position`
pub fn definition(x: &mut [f64], head_width: usize, first_position: usize, theta: f64) {
    let half = head_width / 2;
    for (t, row) in x.chunks_exact_mut(head_width).enumerate() {
        for i in 0..half {
            let angle =
                (first_position + t) as f64 * theta.powf(-2.0 * i as f64 / head_width as f64);
            let (a, b) = (row[i], row[i + half]);
            row[i] = a * angle.cos() - b * angle.sin();
            row[i + half] = b * angle.cos() + a * angle.sin();
        }
    }
}

/// Rotates the first `turned` channels of every row of x `[T, K]` as [`definition`] does rows of that width; the others
/// stay as they are, all of them where `turned` is 0: partial rotary positions, as GPT-NeoX has them, and NoPE.
pub fn partial_definition(
    x: &mut [f64],
    head_width: usize,
    turned: usize,
    first_position: usize,
    theta: f64,
) {
    if turned == 0 {
        return;
    }
    for (t, row) in x.chunks_exact_mut(head_width).enumerate() {
        definition(&mut row[..turned], turned, first_position + t, theta);
    }
}

/// Selective RoPE (arXiv 2511.17388, with the halves paired as above): rotates the pairs (i, i + K/2) of row t by
/// τ_i · Σ_{s≤t} φ_s.
///
/// * `x`: `[T, K]`, rotated in place; `phi`: `[T, K/2]`; `temperatures`: τ, `[K/2]`
pub fn selective_definition(x: &mut [f64], phi: &[f64], temperatures: &[f64]) {
    let half = temperatures.len();
    let mut sums = vec![0.0; half];
    for (row, phi) in x.chunks_exact_mut(2 * half).zip(phi.chunks_exact(half)) {
        for i in 0..half {
            sums[i] += phi[i];
            let angle = sums[i] * temperatures[i];
            let (a, b) = (row[i], row[i + half]);
            row[i] = a * angle.cos() - b * angle.sin();
            row[i + half] = b * angle.cos() + a * angle.sin();
        }
    }
}

/// What φ of Selective RoPE is made of, for H heads of K/2 angles each. [`phases_definition`] has the formula.
#[derive(Debug, Clone, Copy)]
pub struct PhaseWeights<'a> {
    /// W.
    pub projection: PhaseProjection<'a>,
    /// `[H·K/2, 4]`
    pub taps: &'a [f64],
    /// b, `[H, K/2]`.
    pub bias: Option<&'a [f64]>,
    /// W_g `[H, d]` and b_g `[H]`.
    pub gate: Option<(&'a [f64], &'a [f64])>,
}

/// The map from the normed x to φ.
#[derive(Debug, Clone, Copy)]
pub enum PhaseProjection<'a> {
    /// up · down
    LowRank {
        /// `[rank, d]`
        down: &'a [f64],
        /// `[H·K/2, rank]`
        up: &'a [f64],
    },
    /// Of each head s times its rows, which are brought to unit length, on the head's share of x.
    FullRank {
        /// `[H·K/2, share]`
        rows: &'a [f64],
        /// s, `[H]`
        scale: &'a [f64],
    },
}

/// φ `[T, H·K/2]` at x `[T, d]`: u is x, each share of a head (all of x where the heads do not divide d) brought to unit
/// length; φ = (conv4(W u) + e^b) · σ(W_g u + b_g), head by head (arXiv 2511.17388 and its code; the last two parts only
/// where they are there).
pub fn phases_definition(x: &[f64], d: usize, heads: usize, weights: &PhaseWeights) -> Vec<f64> {
    let share = if d.is_multiple_of(heads) { d / heads } else { d };
    let u: Vec<f64> = x.chunks_exact(share).flat_map(norm::l2_norm_definition).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let half = weights.taps.len() / 4 / heads;
    let projected: Vec<f64> = match weights.projection {
        PhaseProjection::LowRank { down, up } => {
            let rank = down.len() / d;
            u.chunks_exact(d)
                .flat_map(|u| {
                    let low: Vec<f64> = down.chunks_exact(d).map(|row| dot(row, u)).collect();
                    up.chunks_exact(rank).map(|row| dot(row, &low)).collect::<Vec<_>>()
                })
                .collect()
        }
        PhaseProjection::FullRank { rows, scale } => u
            .chunks_exact(d)
            .flat_map(|u| {
                rows.chunks_exact(share).enumerate().map(move |(angle, row)| {
                    let head = angle / half;
                    let from = if share == d { 0 } else { head * share };
                    scale[head] * dot(row, &u[from..][..share]) / dot(row, row).sqrt()
                })
            })
            .collect(),
    };
    let mut state = vec![0.0; 3 * weights.taps.len() / 4];
    let mut phi = short_conv::definition(&projected, weights.taps, None, &mut state);
    for (phi, u) in phi.chunks_exact_mut(heads * half).zip(u.chunks_exact(d)) {
        for (angle, phi) in phi.iter_mut().enumerate() {
            *phi += weights.bias.map_or(0.0, |bias| bias[angle].exp());
            if let Some((gate, bias)) = weights.gate {
                let head = angle / half;
                *phi *= sigmoid(dot(&gate[head * d..][..d], u) + bias[head]);
            }
        }
    }
    phi
}
