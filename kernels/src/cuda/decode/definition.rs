//! What a decode step computes, in f64 and plain loops: the families' definitions put together to a stack.
//!
//! Rounded where the contract says so, and nowhere else: matrices, keys and values are bf16. With [`Definition::in_bf16`]
//! what passes from one operation to the next is bf16 as well: how far that lies from the definition is what a good
//! implementation in bf16 may be off by.

use super::{Delta, Mixer, Stack};
use crate::activation::{sigmoid, silu, softplus};
use crate::cuda::{bf16_bits, bf16_value};
use crate::norm::{RMS_EPS, l2_norm_definition, rms_norm_definition};
use crate::{delta_rule, linear_attention, rope, short_conv, swiglu};

/// A stack with its weights and its past.
#[derive(Debug)]
pub struct Definition {
    stack: Stack,
    embedding: Vec<f32>,
    head: Option<Vec<f32>>,
    final_norm: Vec<f64>,
    layers: Vec<Layer>,
    position: usize,
    keep: Keep,
}

/// What is left of the results of an operation.
type Keep = fn(Vec<f64>) -> Vec<f64>;

fn exact(values: Vec<f64>) -> Vec<f64> {
    values
}

fn bf16(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|x| f64::from(bf16_value(bf16_bits(x as f32)))).collect()
}

#[derive(Debug)]
struct Layer {
    norm: Vec<f64>,
    matrices: Vec<Vec<f32>>, // in the order of the mixer's step below
    vectors: Vec<Vec<f64>>,
    conv_state: Vec<f64>,      // [3, C]
    states: Vec<Vec<f64>>,     // of each head
    cache: Vec<[Vec<f64>; 2]>, // keys and values of each KV head, [T, K]
    ffn: Option<(Vec<f64>, [Vec<f32>; 3])>,
    keep: Keep,
}

fn rounded(values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|x| bf16_value(bf16_bits(x))).collect()
}

/// W x, `[rows]`.
fn product(matrix: &[f32], x: &[f64]) -> Vec<f64> {
    matrix
        .chunks_exact(x.len())
        .map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum())
        .collect()
}

fn add(h: &mut [f64], y: &[f64]) {
    h.iter_mut().zip(y).for_each(|(h, y)| *h += y);
}

impl Definition {
    /// Takes the weights by name and size, as [`super::Decoder::new`] does.
    pub fn new(stack: &Stack, load: &mut dyn FnMut(&str, usize) -> Vec<f32>) -> Self {
        let d = stack.d_model;
        let embedding = rounded(load("embedding.weight", stack.vocabulary * d));
        let head = (!stack.tied).then(|| rounded(load("head.weight", stack.vocabulary * d)));
        let layers = (0..stack.layers.len()).map(|i| layer(stack, i, load)).collect();
        let final_norm = wide(&load("final_norm.weight", d));
        let stack = stack.clone();
        Self { stack, embedding, head, final_norm, layers, position: 0, keep: exact }
    }

    /// The same with activations and the residual stream in bf16.
    #[must_use]
    pub fn in_bf16(mut self) -> Self {
        self.keep = bf16;
        self.layers.iter_mut().for_each(|layer| layer.keep = bf16);
        self
    }

    /// Logits after `token`, `[vocabulary]`.
    pub fn step(&mut self, token: u32) -> Vec<f64> {
        let (d, keep) = (self.stack.d_model, self.keep);
        let mut h = wide(&self.embedding[token as usize * d..][..d]);
        for (layer, shape) in self.layers.iter_mut().zip(&self.stack.layers) {
            if let Some(mixer) = shape.mixer {
                let u = keep(rms_norm_definition(&h, &layer.norm, RMS_EPS));
                let y = match mixer {
                    Mixer::Attention { heads, kv_heads, width, window, qk_norm } => layer
                        .attention(&u, self.position, [heads, kv_heads, width], window, qk_norm),
                    Mixer::Delta(shape) => layer.delta(&u, &shape),
                    Mixer::Mamba2 { heads, head_width, state_width } => {
                        layer.mamba2(&u, heads, head_width, state_width)
                    }
                };
                add(&mut h, &y);
                h = keep(h);
            }
            if let Some((norm, [gate, up, down])) = &layer.ffn {
                let u = keep(rms_norm_definition(&h, norm, RMS_EPS));
                let [gate, up] = [gate, up].map(|matrix| keep(product(matrix, &u)));
                add(&mut h, &product(down, &keep(swiglu::definition(&gate, &up))));
                h = keep(h);
            }
        }
        self.position += 1;
        product(
            self.head.as_ref().unwrap_or(&self.embedding),
            &keep(rms_norm_definition(&h, &self.final_norm, RMS_EPS)),
        )
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

fn layer(stack: &Stack, i: usize, load: &mut dyn FnMut(&str, usize) -> Vec<f32>) -> Layer {
    let d = stack.d_model;
    let mut layer = Layer {
        norm: Vec::new(),
        matrices: Vec::new(),
        vectors: Vec::new(),
        conv_state: Vec::new(),
        states: Vec::new(),
        cache: Vec::new(),
        ffn: None,
        keep: exact,
    };
    if let Some(mixer) = stack.layers[i].mixer {
        layer.norm = wide(&load(&format!("layers.{i}.mixer_norm.weight"), d));
        layer.load_mixer(d, mixer, &mut |name, count| {
            load(&format!("layers.{i}.mixer.{name}"), count)
        });
    }
    if let Some(width) = stack.layers[i].ffn {
        let norm = wide(&load(&format!("layers.{i}.ffn_norm.weight"), d));
        let mut matrix =
            |name: &str| rounded(load(&format!("layers.{i}.ffn.{name}.weight"), width * d));
        layer.ffn = Some((norm, [matrix("gate"), matrix("up"), matrix("down")]));
    }
    layer
}

impl Layer {
    fn load_mixer(
        &mut self,
        d: usize,
        mixer: Mixer,
        here: &mut dyn FnMut(&str, usize) -> Vec<f32>,
    ) {
        match mixer {
            Mixer::Attention { heads, kv_heads, width, qk_norm, .. } => {
                for (name, rows) in
                    [("q.weight", heads), ("k.weight", kv_heads), ("v.weight", kv_heads)]
                {
                    self.matrices.push(rounded(here(name, rows * width * d)));
                }
                self.matrices.push(rounded(here("o.weight", d * heads * width)));
                if qk_norm {
                    self.vectors = vec![
                        wide(&here("q_norm.weight", width)),
                        wide(&here("k_norm.weight", width)),
                    ];
                }
                self.cache = vec![[Vec::new(), Vec::new()]; kv_heads];
            }
            Mixer::Delta(Delta { key_heads, heads, key_width, value_width, steps, .. }) => {
                let (keys, values) = (key_heads * key_width, heads * value_width);
                for (name, rows) in [
                    ("q.weight", keys),
                    ("k.weight", steps * keys),
                    ("v.weight", steps * values),
                    ("b.weight", steps * heads),
                ] {
                    self.matrices.push(rounded(here(name, rows * d)));
                }
                self.matrices.push(rounded(here("o.weight", d * values)));
                self.vectors = vec![wide(&here("norm.weight", value_width)); 4];
                let Mixer::Delta(shape) = mixer else { unreachable!("matched above") };
                if shape.short_conv {
                    let taps = [
                        ("q_conv.weight", keys),
                        ("k_conv.weight", steps * keys),
                        ("v_conv.weight", steps * values),
                    ];
                    self.vectors[0] =
                        taps.iter().flat_map(|(name, c)| wide(&here(name, c * 4))).collect();
                }
                let empty = Vec::new;
                self.matrices.push(if shape.decay {
                    rounded(here("a.weight", heads * d))
                } else {
                    empty()
                });
                if shape.output_gate {
                    self.matrices.push(rounded(here("g.weight", values * d)));
                }
                if shape.decay {
                    self.vectors[2] = wide(&here("A_log", heads));
                    self.vectors[3] = wide(&here("dt_bias", heads));
                }
                self.conv_state = vec![0.0; 3 * (keys + steps * (keys + values))];
                self.states = vec![vec![0.0; key_width * value_width]; heads];
            }
            Mixer::Mamba2 { heads, head_width, state_width } => {
                let inner = heads * head_width;
                let channels = inner + 2 * state_width;
                self.matrices.push(rounded(here("in.weight", (inner + channels + heads) * d)));
                self.matrices.push(rounded(here("out.weight", d * inner)));
                for (name, count) in [
                    ("conv.weight", channels * 4),
                    ("conv.bias", channels),
                    ("A_log", heads),
                    ("dt_bias", heads),
                    ("D", heads),
                    ("norm.weight", inner),
                ] {
                    self.vectors.push(wide(&here(name, count)));
                }
                self.conv_state = vec![0.0; 3 * channels];
                self.states = vec![vec![0.0; state_width * head_width]; heads];
            }
        }
    }

    /// The convolution and SiLU of the `x` of this position, `[C]`.
    fn convolve(&mut self, x: &[f64], weight: usize, bias: Option<usize>) -> Vec<f64> {
        let bias = bias.map(|b| self.vectors[b].as_slice());
        let y = short_conv::definition(x, &self.vectors[weight], bias, &mut self.conv_state);
        (self.keep)(y.into_iter().map(silu).collect())
    }

    fn delta(&mut self, u: &[f64], shape: &Delta) -> Vec<f64> {
        let Delta { key_heads, heads, key_width, value_width, steps, .. } = *shape;
        let keep = self.keep;
        let [q, k, v, b] = [0, 1, 2, 3].map(|m| keep(product(&self.matrices[m], u)));
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let all = [q, k, v].concat();
        let c = if shape.short_conv {
            self.convolve(&all, 0, None)
        } else {
            keep(all.into_iter().map(silu).collect())
        };
        let a = keep(product(&self.matrices[5], u));
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
            if shape.decay {
                decay[0] = -self.vectors[2][head].exp() * softplus(a[head] + self.vectors[3][head]);
            }
            let largest = if shape.negative_eigenvalues { 2.0 } else { 1.0 };
            let beta: Vec<f64> =
                (0..steps).map(|j| largest * sigmoid(b[j * heads + head])).collect();
            let scale = (key_width as f64).powf(-0.5);
            let o =
                delta_rule::definition(&q, &k, &v, &decay, &beta, scale, &mut self.states[head]);
            let o = keep(o[(steps - 1) * value_width..].to_vec());
            y.extend(rms_norm_definition(&o, &self.vectors[1], RMS_EPS));
        }
        if shape.output_gate {
            let gate = keep(product(&self.matrices[6], u));
            y.iter_mut().zip(gate).for_each(|(y, g)| *y *= silu(g));
        }
        product(&self.matrices[4], &keep(y))
    }

    fn mamba2(
        &mut self,
        u: &[f64],
        heads: usize,
        head_width: usize,
        state_width: usize,
    ) -> Vec<f64> {
        let inner = heads * head_width;
        let keep = self.keep;
        let all = keep(product(&self.matrices[0], u));
        let (z, rest) = all.split_at(inner);
        let (convolved, dt) = rest.split_at(inner + 2 * state_width);
        let c = self.convolve(convolved, 0, Some(1));
        let (b, read) = c[inner..].split_at(state_width);
        let mut y = Vec::new();
        for head in 0..heads {
            let dt = softplus(dt[head] + self.vectors[3][head]);
            let x = &c[head * head_width..][..head_width];
            let v = keep(x.iter().map(|x| x * dt).collect());
            let g = -self.vectors[2][head].exp() * dt;
            let o = linear_attention::definition(read, b, &v, &[g], 1.0, &mut self.states[head]);
            y.extend(o.iter().zip(x).map(|(o, x)| o + self.vectors[4][head] * x));
        }
        let mut y = keep(y);
        y.iter_mut().zip(z).for_each(|(y, z)| *y *= silu(*z));
        product(&self.matrices[1], &keep(rms_norm_definition(&y, &self.vectors[5], RMS_EPS)))
    }

    fn attention(
        &mut self,
        u: &[f64],
        position: usize,
        [heads, kv_heads, width]: [usize; 3],
        window: Option<usize>,
        qk_norm: bool,
    ) -> Vec<f64> {
        let keep = self.keep;
        let [mut q, mut k, v] = [0, 1, 2].map(|m| keep(product(&self.matrices[m], u)));
        if qk_norm {
            q = rms_norm_definition(&q, &self.vectors[0], RMS_EPS);
            k = rms_norm_definition(&k, &self.vectors[1], RMS_EPS);
        }
        for row in q.chunks_exact_mut(width).chain(k.chunks_exact_mut(width)) {
            rope::definition(row, width, position, 1e4);
        }
        let (q, k, v) = (keep(q), bf16(k), bf16(v));
        for (i, [keys, values]) in self.cache.iter_mut().enumerate() {
            keys.extend(&k[i * width..][..width]);
            values.extend(&v[i * width..][..width]);
        }
        let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
        let mut y = Vec::new();
        for head in 0..heads {
            let q = &q[head * width..][..width];
            let [keys, values] = &self.cache[head * kv_heads / heads];
            let score = |s: usize| -> f64 {
                keys[s * width..][..width].iter().zip(q).map(|(k, q)| k * q).sum::<f64>()
                    * (width as f64).powf(-0.5)
            };
            let scores: Vec<f64> = (first..=position).map(score).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            for c in 0..width {
                y.push(
                    weights
                        .iter()
                        .enumerate()
                        .map(|(i, w)| w * values[(first + i) * width + c])
                        .sum::<f64>()
                        / total,
                );
            }
        }
        product(&self.matrices[3], &keep(y))
    }
}
