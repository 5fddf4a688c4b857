//! The delta family.

use kernels::activation::{sigmoid, silu, softplus};
use kernels::cuda::decode::Storage;
use kernels::delta_rule;
use kernels::norm::{RMS_EPS, l2_norm_definition, rms_norm_definition};
use search::architecture::{Delta, Phases};

use super::levels::Levels;
use super::phases::Angles;
use super::weights::{Convolution, Keep, product, wide};
use crate::cuda::shapes::{Load, delta_extents};

#[derive(Debug)]
pub(super) struct Token {
    shape: Delta,
    /// q, k, v and b, `[rows, d]` each.
    projections: [Vec<f32>; 4],
    out: Vec<f32>,
    norm: Vec<f64>,
    convolution: Option<Convolution>,
    decay: Option<Decay>,
    gate: Option<Vec<f32>>,
    angles: Option<Angles>,
    /// Of a log-linear member, instead of the states below.
    levels: Option<Levels>,
    /// Of each head, `[K, V]`.
    states: Vec<Vec<f64>>,
}

#[derive(Debug)]
struct Decay {
    weight: Vec<f32>,
    a_log: Vec<f64>,
    dt_bias: Vec<f64>,
}

impl Token {
    pub(super) fn new(
        shape: &Delta,
        phases: Option<Phases>,
        d: usize,
        (storage, load): (Storage, Load),
    ) -> Self {
        let [key_heads, heads, key_width, value_width, steps] = delta_extents(shape);
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let rows = [
            ("q.weight", keys),
            ("k.weight", steps * keys),
            ("v.weight", steps * values),
            ("b.weight", steps * heads),
        ];
        let taps = [
            ("q_conv.weight", keys),
            ("k_conv.weight", steps * keys),
            ("v_conv.weight", steps * values),
        ];
        Self {
            projections: rows.map(|(name, rows)| storage.kept(load(name, rows * d), d)),
            out: storage.kept(load("o.weight", d * values), values),
            norm: wide(&load("norm.weight", value_width)),
            convolution: shape.short_conv.then(|| {
                let taps = taps.iter().flat_map(|(name, c)| wide(&load(name, c * 4))).collect();
                Convolution::new(taps, None)
            }),
            decay: shape.decay.then(|| Decay {
                weight: storage.kept(load("a.weight", heads * d), d),
                a_log: wide(&load("A_log", heads)),
                dt_bias: wide(&load("dt_bias", heads)),
            }),
            angles: phases.map(|phases| Angles::new(phases, d, (storage, load))),
            levels: shape.levels.map(|levels| {
                let of = (heads, levels as usize);
                Levels::new(of, key_width * value_width, load).projected(d, (storage, load))
            }),
            gate: shape.output_gate.then(|| storage.kept(load("g.weight", values * d), d)),
            states: vec![vec![0.0; key_width * value_width]; heads],
            shape: *shape,
        }
    }
}

impl super::token::Token for Token {
    fn step(&mut self, u: &[f64], position: usize, keep: Keep) -> Vec<f64> {
        let [key_heads, heads, key_width, value_width, steps] = delta_extents(&self.shape);
        let [q, k, v, b] = [0, 1, 2, 3].map(|m| keep(product(&self.projections[m], u)));
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let all = [q, k, v].concat();
        let mut c = match &mut self.convolution {
            Some(convolution) => convolution.step(&all, keep),
            None => keep(all.into_iter().map(silu).collect()),
        };
        if let Some(angles) = &mut self.angles {
            angles.step(u, keep);
            for (head, x) in c[..(1 + steps) * keys].chunks_exact_mut(key_width).enumerate() {
                angles.turn(x, head % key_heads);
            }
            c = keep(c);
        }
        let raw = self.levels.as_ref().map(|levels| levels.raw(u, keep));
        let decays = self.decay.as_ref().map(|of| (of, keep(product(&of.weight, u))));
        let mut y = Vec::new();
        for head in 0..heads {
            let key_head = head * key_heads / heads;
            let normed =
                |at: usize| keep(l2_norm_definition(&c[at + key_head * key_width..][..key_width]));
            let k: Vec<f64> = (0..steps).flat_map(|j| normed((1 + j) * keys)).collect();
            let v: Vec<f64> = (0..steps)
                .flat_map(|j| {
                    &c[(1 + steps) * keys + j * values + head * value_width..][..value_width]
                })
                .copied()
                .collect();
            // the rule on the lengthened sequence: the query on a token's last step, the decay on its first
            let mut q = vec![0.0; steps * key_width];
            q[(steps - 1) * key_width..].copy_from_slice(&normed(0));
            let mut decay = vec![0.0; steps];
            if let Some((of, a)) = &decays {
                decay[0] = -of.a_log[head].exp() * softplus(a[head] + of.dt_bias[head]);
            }
            let largest = if self.shape.negative_eigenvalues { 2.0 } else { 1.0 };
            let beta: Vec<f64> =
                (0..steps).map(|j| largest * sigmoid(b[j * heads + head])).collect();
            let scale = self.shape.scale();
            let o = if let (Some(levels), Some(raw)) = (&mut self.levels, &raw) {
                let nothing = vec![0.0; value_width];
                levels.step((head, position), raw, |level, state| {
                    let v = if level == 0 { &v } else { &nothing };
                    delta_rule::definition(&q, &k, v, &decay, &beta, scale, state)
                })
            } else {
                let state = &mut self.states[head];
                delta_rule::definition(&q, &k, &v, &decay, &beta, scale, state)
            };
            let o = keep(o[(steps - 1) * value_width..].to_vec());
            y.extend(rms_norm_definition(&o, &self.norm, RMS_EPS));
        }
        if let Some(gate) = &self.gate {
            let gate = keep(product(gate, u));
            y.iter_mut().zip(gate).for_each(|(y, g)| *y *= silu(g));
        }
        product(&self.out, &keep(y))
    }
}
