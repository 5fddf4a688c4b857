//! The angles of Selective RoPE.

use kernels::activation::sigmoid;
use kernels::cuda::decode::Storage;
use kernels::norm::l2_norm_definition;
use kernels::short_conv;
use search::architecture::{Phases, Temperature};

use super::weights::{Keep, product, wide};
use crate::cuda::shapes::Load;

#[derive(Debug)]
pub(super) struct Angles {
    half: usize,
    /// Channels of the input that are brought to unit length together.
    share: usize,
    projection: Projection,
    /// `[H·K/2, 4]`
    taps: Vec<f64>,
    /// The last three φ before bias and gate, `[3, H·K/2]`.
    past: Vec<f64>,
    bias: Option<Vec<f64>>,
    /// W_g `[H, d]` and b_g.
    gate: Option<(Vec<f32>, Vec<f64>)>,
    temperatures: Vec<f64>,
    /// Σ τ φ
    sums: Vec<f64>,
}

#[derive(Debug)]
enum Projection {
    LowRank([Vec<f32>; 2]),
    /// `[H·K/2, share]`
    Full(Vec<f32>),
}

impl Angles {
    pub(super) fn new(phases: Phases, d: usize, (storage, load): (Storage, Load)) -> Self {
        let (heads, half) = (phases.heads as usize, phases.half as usize);
        let channels = heads * half;
        let share = phases.norm_width(d as u64) as usize;
        let projection = if phases.forms.full_rank {
            let mut rows = load("phi_full.weight", channels * share);
            let scales = load("phi_scale", heads);
            for (angle, row) in rows.chunks_exact_mut(share).enumerate() {
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                for x in row {
                    *x *= scales[angle / half] / length;
                }
            }
            Projection::Full(storage.kept(rows, share))
        } else {
            let rank = Phases::RANK as usize;
            let down = load("phi_down.weight", rank * d);
            let up = load("phi_up.weight", channels * rank); // multiplied apart, in bf16 always
            Projection::LowRank([storage.kept(down, share), Storage::Bf16.kept(up, rank)])
        };
        Self {
            half,
            share,
            projection,
            taps: wide(&load("phi_conv.weight", channels * 4)),
            past: vec![0.0; 3 * channels],
            bias: phases
                .forms
                .bias
                .then(|| load("phi_bias", channels).iter().map(|b| f64::from(*b).exp()).collect()),
            gate: phases.forms.gate.then(|| {
                let matrix = storage.kept(load("phi_gate.weight", heads * d), share);
                (matrix, wide(&load("phi_gate_bias", heads)))
            }),
            temperatures: match phases.forms.temperature {
                Temperature::Learnt => wide(&load("phi_temperature", half)),
                _ => phases.temperatures(),
            },
            sums: vec![0.0; channels],
        }
    }

    /// Moves on by the mixer's input of a position.
    pub(super) fn step(&mut self, u: &[f64], keep: Keep) {
        let unit = keep(u.chunks_exact(self.share).flat_map(l2_norm_definition).collect());
        let psi = match &self.projection {
            Projection::LowRank([down, up]) => product(up, &keep(product(down, &unit))),
            Projection::Full(rows) => rows
                .chunks_exact(self.share)
                .enumerate()
                .map(|(angle, row)| {
                    let from = if self.share == unit.len() { 0 } else { angle / self.half };
                    let own = &unit[from * self.share..][..self.share];
                    row.iter().zip(own).map(|(w, x)| f64::from(*w) * x).sum()
                })
                .collect(),
        };
        let phi = short_conv::definition(&psi, &self.taps, None, &mut self.past);
        let open = self.gate.as_ref().map(|(matrix, bias)| {
            let raw = product(matrix, &unit);
            raw.iter().zip(bias).map(|(x, bias)| sigmoid(x + bias)).collect::<Vec<f64>>()
        });
        for (angle, (sum, phi)) in self.sums.iter_mut().zip(phi).enumerate() {
            let bias = self.bias.as_ref().map_or(0.0, |bias| bias[angle]);
            let open = open.as_ref().map_or(1.0, |open| open[angle / self.half]);
            *sum += self.temperatures[angle % self.half] * (phi + bias) * open;
        }
    }

    /// Turns a head, `[K]`, by the angles of a head of keys.
    pub(super) fn turn(&self, x: &mut [f64], head: usize) {
        let (first, second) = x.split_at_mut(self.half);
        let angles = &self.sums[head * self.half..][..self.half];
        for ((a, b), angle) in first.iter_mut().zip(second).zip(angles) {
            let (sin, cos) = angle.sin_cos();
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
