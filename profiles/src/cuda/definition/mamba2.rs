//! Mamba2 with one group.

use kernels::activation::{silu, softplus};
use kernels::cuda::decode::Storage;
use kernels::linear_attention;
use kernels::norm::{RMS_EPS, rms_norm_definition};
use search::architecture::Mamba2;

use super::levels::Levels;
use super::weights::{Convolution, Keep, product, wide};
use crate::cuda::shapes::Load;

#[derive(Debug)]
pub(super) struct Token {
    shape: Mamba2,
    /// z, x, B, C, dt, λ: `[rows, d]`.
    projection: Vec<f32>,
    out: Vec<f32>,
    convolution: Convolution,
    a_log: Vec<f64>,
    dt_bias: Vec<f64>,
    skip: Vec<f64>,
    norm: Vec<f64>,
    /// Of the log-linear form, instead of the states below.
    levels: Option<Levels>,
    /// Of each head, `[N, P]`.
    states: Vec<Vec<f64>>,
}

impl Token {
    pub(super) fn new(shape: &Mamba2, d: usize, (storage, load): (Storage, Load)) -> Self {
        let [heads, head_width, state_width] =
            [shape.heads, shape.head_width, shape.state_width].map(|n| n as usize);
        let inner = heads * head_width;
        let channels = inner + 2 * state_width;
        let taps = wide(&load("conv.weight", channels * 4));
        let bias = wide(&load("conv.bias", channels));
        let rows = inner + channels + heads + shape.level_rows() as usize;
        Self {
            shape: *shape,
            projection: storage.kept(load("in.weight", rows * d), d),
            out: storage.kept(load("out.weight", d * inner), inner),
            convolution: Convolution::new(taps, Some(bias)),
            a_log: wide(&load("A_log", heads)),
            dt_bias: wide(&load("dt_bias", heads)),
            skip: wide(&load("D", heads)),
            norm: wide(&load("norm.weight", inner)),
            levels: shape.levels.map(|levels| {
                Levels::new((heads, levels as usize), state_width * head_width, load)
            }),
            states: vec![vec![0.0; state_width * head_width]; heads],
        }
    }
}

impl super::token::Token for Token {
    fn step(&mut self, u: &[f64], position: usize, keep: Keep) -> Vec<f64> {
        let [heads, head_width, state_width] =
            [self.shape.heads, self.shape.head_width, self.shape.state_width].map(|n| n as usize);
        let inner = heads * head_width;
        let all = keep(product(&self.projection, u));
        let (z, rest) = all.split_at(inner);
        let (convolved, rest) = rest.split_at(inner + 2 * state_width);
        let (dt, raw) = rest.split_at(heads);
        let c = self.convolution.step(convolved, keep);
        let (b, read) = c[inner..].split_at(state_width);
        let mut y = Vec::new();
        for head in 0..heads {
            let dt = softplus(dt[head] + self.dt_bias[head]);
            let x = &c[head * head_width..][..head_width];
            let v = keep(x.iter().map(|x| x * dt).collect());
            let g = -self.a_log[head].exp() * dt;
            let o = if let Some(levels) = &mut self.levels {
                let nothing = vec![0.0; head_width];
                levels.step((head, position), raw, |level, state| {
                    let v = if level == 0 { &v } else { &nothing };
                    linear_attention::definition(read, b, v, &[g], 1.0, state)
                })
            } else {
                linear_attention::definition(read, b, &v, &[g], 1.0, &mut self.states[head])
            };
            y.extend(o.iter().zip(x).map(|(o, x)| o + self.skip[head] * x));
        }
        let mut y = keep(y);
        y.iter_mut().zip(z).for_each(|(y, z)| *y *= silu(*z));
        product(&self.out, &keep(rms_norm_definition(&y, &self.norm, RMS_EPS)))
    }
}
