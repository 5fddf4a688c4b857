//! Weights side by side as the products want them, and what a sequence leaves behind.

use super::Model;
use crate::cuda::attention::{Cache, rotations};
use crate::cuda::decode::{Delta, Mixer, Stack};
use crate::cuda::weights::weight;
use crate::cuda::{Error, Machine, bf16_bits, upload_new};

/// Base of the rotations, as everywhere here.
const THETA: f64 = 1e4;
/// Positions that a cache holds a multiple of.
const CACHE_POSITIONS: usize = 16;

/// A matrix on the machine, bf16 `[outputs, inputs]`, its parts each from a multiple of 8 rows on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub address: u64,
    pub outputs: usize,
    pub inputs: usize,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub mixer: Option<(u64, MixerLayer)>, // with its norm
    pub ffn: Option<FfnLayer>,
}

#[derive(Debug)]
pub(super) struct FfnLayer {
    pub norm: u64,
    pub gate_up: Matrix,
    pub down: Matrix,
    pub width: usize,
}

#[derive(Debug)]
pub(super) enum MixerLayer {
    Attention(AttentionLayer),
    Delta(DeltaLayer),
    Mamba2(Mamba2Layer),
}

#[derive(Debug)]
pub(super) struct AttentionLayer {
    pub heads: usize,
    pub kv_heads: usize,
    pub width: usize,
    pub window: Option<usize>,
    pub qkv: Matrix,
    pub out: Matrix,
    pub norms: [u64; 2],
    pub rotations: u64,
    pub cache: Cache,
}

/// Columns of the projection: q, k, v; the gate; β; a.
#[derive(Debug)]
pub(super) struct DeltaLayer {
    pub shape: Delta,
    pub projection: Matrix,
    /// First columns of the gate, of β and of a.
    pub columns: [usize; 3],
    pub out: Matrix,
    pub taps: u64,
    pub a_log: u64,
    pub dt_bias: u64,
    pub norm: u64,
    pub ring: u64,
    pub state: u64,
}

/// Columns of the projection: x, B, C; the gate; dt.
#[derive(Debug)]
pub(super) struct Mamba2Layer {
    pub heads: usize,
    pub head_width: usize,
    pub state_width: usize,
    pub projection: Matrix,
    /// First columns of the gate and of dt.
    pub columns: [usize; 2],
    pub out: Matrix,
    pub taps: u64,
    pub bias: u64,
    pub a_log: u64,
    pub dt_bias: u64,
    pub skip: u64,
    pub norm: u64,
    pub ring: u64,
    pub state: u64,
}

type Load<'a> = &'a mut dyn FnMut(&str, usize) -> Vec<f32>;

struct Builder<'a> {
    machine: &'a mut dyn Machine,
    stack: &'a Stack,
    batch: usize,
    pretends: bool,
    memory: Vec<u64>,
    /// Of each width of heads.
    rotations: Vec<(usize, u64)>,
}

pub(super) fn build(
    machine: &mut dyn Machine,
    stack: &Stack,
    batch: usize,
    load: Load,
    pretends: bool,
) -> Result<Model, Error> {
    let rotations = Vec::new();
    let mut builder = Builder { machine, stack, batch, pretends, memory: Vec::new(), rotations };
    let built = builder.build(load);
    let memory = std::mem::take(&mut builder.memory);
    match built {
        Ok(model) => Ok(Model { memory, ..model }),
        Err(error) => {
            memory.into_iter().try_for_each(|address| machine.free(address))?;
            Err(error)
        }
    }
}

impl Builder<'_> {
    fn build(&mut self, load: Load) -> Result<Model, Error> {
        let Stack { d_model, vocabulary, tied, .. } = *self.stack;
        let embedding = self.matrix(load, &[("embedding.weight", vocabulary)], d_model)?;
        let head = if tied {
            embedding
        } else {
            self.matrix(load, &[("head.weight", vocabulary)], d_model)?
        };
        let mut layers = Vec::new();
        for (i, layer) in self.stack.layers.iter().enumerate() {
            let mixer = match layer.mixer {
                None => None,
                Some(mixer) => {
                    let norm =
                        self.vector(load, &format!("layers.{i}.mixer_norm.weight"), d_model)?;
                    let mut here =
                        |name: &str, count: usize| load(&format!("layers.{i}.mixer.{name}"), count);
                    Some((norm, self.mixer(mixer, &mut here)?))
                }
            };
            let ffn = match layer.ffn {
                None => None,
                Some(width) => {
                    let mut here =
                        |name: &str, count: usize| load(&format!("layers.{i}.{name}"), count);
                    Some(FfnLayer {
                        norm: self.vector(&mut here, "ffn_norm.weight", d_model)?,
                        gate_up: self.matrix(
                            &mut here,
                            &[("ffn.gate.weight", width), ("ffn.up.weight", width)],
                            d_model,
                        )?,
                        down: self.matrix(&mut here, &[("ffn.down.weight", d_model)], width)?,
                        width,
                    })
                }
            };
            layers.push(Layer { mixer, ffn });
        }
        let final_norm = self.vector(load, "final_norm.weight", d_model)?;
        let zeros = vec![0_u32; self.batch];
        let positions = self.keep(|machine| upload_new(machine, &zeros))?;
        Ok(Model {
            stack: self.stack.clone(),
            batch: self.batch,
            embedding,
            head,
            final_norm,
            layers,
            positions,
            memory: Vec::new(),
        })
    }

    fn keep(
        &mut self,
        make: impl FnOnce(&mut dyn Machine) -> Result<u64, Error>,
    ) -> Result<u64, Error> {
        let address = make(self.machine)?;
        self.memory.push(address);
        Ok(address)
    }

    /// What is made for each sequence: zeros, or when it pretends some past.
    fn past(&mut self, bytes: usize) -> Result<u64, Error> {
        let pretends = self.pretends;
        self.keep(|machine| {
            let address = machine.allocate(bytes)?;
            if pretends {
                machine.pretend(address, bytes)?;
            } else {
                machine.upload(address, &vec![0; bytes])?;
            }
            Ok(address)
        })
    }

    fn values(&mut self, values: &[f32]) -> Result<u64, Error> {
        self.keep(|machine| upload_new(machine, values))
    }

    /// An f32 tensor.
    fn vector(&mut self, load: Load, name: &str, count: usize) -> Result<u64, Error> {
        let values = if self.pretends { weight(name, count) } else { load(name, count) };
        self.values(&values)
    }

    /// Matrices of so many rows below each other.
    fn matrix(
        &mut self,
        load: Load,
        parts: &[(&str, usize)],
        inputs: usize,
    ) -> Result<Matrix, Error> {
        if inputs == 0 || !inputs.is_multiple_of(8) {
            return Err(Error::Shape {
                what: format!("the columns of {}", parts[0].0),
                expected: "a multiple of 8 on a GPU".to_owned(),
                got: inputs.to_string(),
            });
        }
        let outputs = parts.iter().map(|(_, rows)| rows.next_multiple_of(8)).sum::<usize>();
        let bytes = 2 * outputs * inputs;
        let address = if self.pretends {
            self.keep(|machine| {
                let address = machine.allocate(bytes)?;
                machine.pretend(address, bytes)?;
                Ok(address)
            })?
        } else {
            let mut bits: Vec<u16> = Vec::with_capacity(outputs * inputs);
            for (name, rows) in parts {
                bits.extend(load(name, rows * inputs).into_iter().map(bf16_bits));
                bits.resize(bits.len().next_multiple_of(8 * inputs), 0);
            }
            self.keep(|machine| upload_new(machine, &bits))?
        };
        Ok(Matrix { address, outputs, inputs })
    }

    fn mixer(&mut self, mixer: Mixer, load: Load) -> Result<MixerLayer, Error> {
        Ok(match mixer {
            Mixer::Attention { .. } => MixerLayer::Attention(self.attention(mixer, load)?),
            Mixer::Delta(shape) => MixerLayer::Delta(self.delta(shape, load)?),
            Mixer::Mamba2 { heads, head_width, state_width } => {
                MixerLayer::Mamba2(self.mamba2([heads, head_width, state_width], load)?)
            }
        })
    }

    fn attention(&mut self, mixer: Mixer, load: Load) -> Result<AttentionLayer, Error> {
        let Mixer::Attention { heads, kv_heads, width, window, qk_norm } = mixer else {
            unreachable!("matched by the caller")
        };
        let (d, positions) = (self.stack.d_model, self.stack.positions);
        let parts = [
            ("q.weight", heads * width),
            ("k.weight", kv_heads * width),
            ("v.weight", kv_heads * width),
        ];
        let qkv = self.matrix(load, &parts, d)?;
        let out = self.matrix(load, &[("o.weight", d)], heads * width)?;
        let mut norms = [0; 2];
        if qk_norm {
            norms = [
                self.vector(load, "q_norm.weight", width)?,
                self.vector(load, "k_norm.weight", width)?,
            ];
        }
        let known = self.rotations.iter().find(|(of, _)| *of == width).map(|(_, address)| *address);
        let rotations = if let Some(address) = known {
            address
        } else {
            let address = self.values(&rotations(positions, width, THETA))?;
            self.rotations.push((width, address));
            address
        };
        let seen = window.map_or(positions, |window| window.min(positions));
        let capacity = seen.next_multiple_of(CACHE_POSITIONS);
        let bytes = 2 * self.batch * kv_heads * capacity * width;
        let cache = Cache { keys: self.past(bytes)?, values: self.past(bytes)?, capacity };
        Ok(AttentionLayer { heads, kv_heads, width, window, qkv, out, norms, rotations, cache })
    }

    fn delta(&mut self, shape: Delta, load: Load) -> Result<DeltaLayer, Error> {
        let Delta { key_heads, heads, key_width, value_width, steps, .. } = shape;
        let d = self.stack.d_model;
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let channels = keys + steps * (keys + values);
        let mut parts =
            vec![("q.weight", keys), ("k.weight", steps * keys), ("v.weight", steps * values)];
        let mut columns = [channels; 3];
        let mut end = channels;
        for (i, (name, rows, is_there)) in [
            ("g.weight", values, shape.output_gate),
            ("b.weight", steps * heads, true),
            ("a.weight", heads, shape.decay),
        ]
        .into_iter()
        .enumerate()
        {
            columns[i] = end;
            if is_there {
                parts.push((name, rows));
                end += rows.next_multiple_of(8);
            }
        }
        let projection = self.matrix(load, &parts, d)?;
        let out = self.matrix(load, &[("o.weight", d)], values)?;
        let taps = if shape.short_conv {
            let mut taps = Vec::new();
            for (name, channels) in [
                ("q_conv.weight", keys),
                ("k_conv.weight", steps * keys),
                ("v_conv.weight", steps * values),
            ] {
                let count = 4 * channels;
                taps.extend(if self.pretends { weight(name, count) } else { load(name, count) });
            }
            taps
        } else {
            // the present alone; SiLU follows all the same
            [0.0, 0.0, 0.0, 1.0].repeat(channels)
        };
        let (mut a_log, mut dt_bias) = (0, 0);
        if shape.decay {
            a_log = self.vector(load, "A_log", heads)?;
            dt_bias = self.vector(load, "dt_bias", heads)?;
        }
        Ok(DeltaLayer {
            shape,
            projection,
            columns,
            out,
            taps: self.values(&taps)?,
            a_log,
            dt_bias,
            norm: self.vector(load, "norm.weight", value_width)?,
            ring: self.past(2 * self.batch * 4 * channels)?,
            state: self.past(4 * self.batch * values * key_width)?,
        })
    }

    fn mamba2(
        &mut self,
        [heads, head_width, state_width]: [usize; 3],
        load: Load,
    ) -> Result<Mamba2Layer, Error> {
        let d = self.stack.d_model;
        let inner = heads * head_width;
        let channels = inner + 2 * state_width;
        // the checkpoint has z first
        let all = if self.pretends {
            Vec::new()
        } else {
            load("in.weight", (inner + channels + heads) * d)
        };
        let mut of = |name: &str, count: usize| match name {
            "convolved" => all[inner * d..][..count].to_vec(),
            "gate" => all[..count].to_vec(),
            _ => all[(inner + channels) * d..][..count].to_vec(),
        };
        let parts = [("convolved", channels), ("gate", inner), ("dt", heads)];
        let projection = self.matrix(&mut of, &parts, d)?;
        let columns = [
            channels.next_multiple_of(8),
            channels.next_multiple_of(8) + inner.next_multiple_of(8),
        ];
        Ok(Mamba2Layer {
            heads,
            head_width,
            state_width,
            projection,
            columns,
            out: self.matrix(load, &[("out.weight", d)], inner)?,
            taps: self.vector(load, "conv.weight", channels * 4)?,
            bias: self.vector(load, "conv.bias", channels)?,
            a_log: self.vector(load, "A_log", heads)?,
            dt_bias: self.vector(load, "dt_bias", heads)?,
            skip: self.vector(load, "D", heads)?,
            norm: self.vector(load, "norm.weight", inner)?,
            ring: self.past(2 * self.batch * 4 * channels)?,
            state: self.past(4 * self.batch * inner * state_width)?,
        })
    }
}
