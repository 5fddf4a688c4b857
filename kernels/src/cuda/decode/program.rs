//! A stack as the list of phases that `decode.cu` runs, and its weights in the order of streaming.

use super::{Mixer, Stack};
use crate::cuda::{Error, Machine, bf16_bits, upload_new};

pub(super) const SLOT_BYTES: u32 = 8192;
const SCRATCH_BYTES: u32 = 32_768;
const CHUNK_COLUMNS: usize = 256; // of one step of a warp over a row
const UNIT_CHUNKS: usize = 8; // two rows of 8 chunks fill a slot
const STATE_ROWS: usize = 4;
const BLOCK_POSITIONS: usize = 16;
const TILE_HEADS: usize = 8;
const THETA: f64 = 1e4;

/// Kinds, inputs and outputs of a phase, numbered as in `decode.cu`.
#[derive(Clone, Copy)]
enum Kind {
    Gemv,
    Delta,
    Mamba2,
    Attend,
    Combine,
}
#[derive(Clone, Copy)]
enum Input {
    Embedding,
    RmsNorm,
    HeadNorm,
    Plain,
}
#[derive(Clone, Copy)]
enum Output {
    Store,
    Convolution,
    Residual,
    Swiglu,
    Logits,
}

/// The mirror of `Phase` in `decode.cu`.
#[derive(Debug, Clone, Default)]
pub(super) struct Phase {
    stream: u64,
    kind: u32,
    unit_bytes: u32,
    groups: u32,
    units_per_group: u32,
    rotation: u32,
    splits: u32,
    key_heads: u32,
    tiles: u32,
    window: u32,
    cache_blocks: u32,
    input: u32,
    output: u32,
    columns: u32,
    chunks: u32,
    rows: u32,
    ring_rows: u32,
    width: u32,
    value_width: u32,
    heads: u32,
    gated: u32,
    scale: f32,
    x: u64,
    norm: u64,
    gate: u64,
    out: u64,
    ring: u64,
    conv_weight: u64,
    conv_bias: u64,
    a_log: u64,
    dt_bias: u64,
    skip: u64,
    z: u64,
    k_norm: u64,
    rope: u64,
}

impl Phase {
    pub(super) const BYTES: usize = 208;

    /// In a few words.
    pub(super) fn describe(&self) -> String {
        let kinds = ["gemv", "delta", "mamba2", "attend", "combine"];
        let (kind, rows, columns) = (kinds[self.kind as usize], self.rows, self.columns);
        if self.kind == Kind::Gemv as u32 {
            format!("{kind} {rows}x{columns}")
        } else {
            kind.to_owned()
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.stream.to_ne_bytes().to_vec();
        let words = [
            self.kind,
            self.unit_bytes,
            self.groups,
            self.units_per_group,
            self.rotation,
            self.splits,
            self.key_heads,
            self.tiles,
            self.window,
            self.cache_blocks,
            self.input,
            self.output,
            self.columns,
            self.chunks,
            self.rows,
            self.ring_rows,
            self.width,
            self.value_width,
            self.heads,
            self.gated,
            self.scale.to_bits(),
            0,
        ];
        for word in words {
            bytes.extend(word.to_ne_bytes());
        }
        let addresses = [
            self.x,
            self.norm,
            self.gate,
            self.out,
            self.ring,
            self.conv_weight,
            self.conv_bias,
            self.a_log,
            self.dt_bias,
            self.skip,
            self.z,
            self.k_norm,
            self.rope,
        ];
        for address in addresses {
            bytes.extend(address.to_ne_bytes());
        }
        bytes.resize(Self::BYTES, 0); // padding to the struct's alignment of 16
        bytes
    }
}

/// The mirror of `Control` in `decode.cu`.
pub(super) struct Control {
    position: u32,
    next: [u64; 2],
}

impl Control {
    pub(super) const BYTES: usize = 32;

    /// At `position`, with `token` to be computed there.
    pub(super) fn at(position: u32, token: u32) -> Self {
        let mut next = [0; 2];
        next[position as usize % 2] = u64::from(u32::MAX - token);
        Self { position, next }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [self.position, 0, 0, 0] {
            bytes.extend(word.to_ne_bytes()); // epoch and counter begin anew
        }
        for key in self.next {
            bytes.extend(key.to_ne_bytes());
        }
        bytes
    }

    /// The token that `words` hold for `position`.
    pub(super) fn next_token(words: &[u32], position: usize) -> u32 {
        u32::MAX - words[4 + position % 2 * 2] // the low half of the key
    }
}

/// Shared memory without the ring: two phases, sums, softmax, scratch, with their alignments.
pub(super) fn fixed_shared_bytes(warps: u32) -> u32 {
    let small = 2 * Phase::BYTES as u32 + 512 + warps * TILE_HEADS as u32 * 8;
    small + SCRATCH_BYTES + 512
}

/// The size of `Shared` in `decode.cu`, which asserts it.
pub(super) fn shared_bytes(warps: u32, slots: u32) -> u32 {
    let small = slots * 16 + 2 * Phase::BYTES as u32 + 512 + warps * TILE_HEADS as u32 * 8;
    small.next_multiple_of(128) + SCRATCH_BYTES + slots * SLOT_BYTES
}

/// A matrix as a stream: units of two rows × `chunks` · 256 columns, `pieces` units side by side for a pair of rows.
struct Packed {
    address: u64,
    pieces: usize,
    chunks: usize,
    pairs: usize,
}

pub(super) struct Builder<'a> {
    machine: &'a mut dyn Machine,
    stack: &'a Stack,
    warps: u32,
    pub(super) phases: Vec<Phase>,
    pub(super) residual: u64,
    pub(super) logits: u64,
    pub(super) states: Vec<(u64, usize)>,
    pub(super) caches: Vec<(u64, usize)>,
    pub(super) streamed_bytes: u64,
    pub(super) state_bytes: u64,
    pub(super) cache_bytes_per_position: Vec<(u64, Option<usize>)>,
    pub(super) memory: Vec<u64>,
}

type Load<'l> = &'l mut dyn FnMut(&str, usize) -> Vec<f32>;

fn shape_error(what: &str, expected: &str, got: usize) -> Error {
    Error::Shape { what: what.to_owned(), expected: expected.to_owned(), got: got.to_string() }
}

fn check(holds: bool, what: &str, expected: &str, got: usize) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(shape_error(what, expected, got)) }
}

impl<'a> Builder<'a> {
    pub(super) fn new(machine: &'a mut dyn Machine, stack: &'a Stack, warps: u32) -> Self {
        Self {
            machine,
            stack,
            warps,
            phases: Vec::new(),
            residual: 0,
            logits: 0,
            states: Vec::new(),
            caches: Vec::new(),
            streamed_bytes: 0,
            state_bytes: 0,
            cache_bytes_per_position: Vec::new(),
            memory: Vec::new(),
        }
    }

    fn allocate(&mut self, bytes: usize) -> Result<u64, Error> {
        let address = self.machine.allocate(bytes)?;
        self.memory.push(address);
        Ok(address)
    }

    fn vector(&mut self, values: &[f32]) -> Result<u64, Error> {
        self.streamed_bytes += 4 * values.len() as u64;
        let address = upload_new(self.machine, values)?;
        self.memory.push(address);
        Ok(address)
    }

    /// Memory that lives from step to step and begins as zeros.
    fn state(&mut self, bytes: usize) -> Result<u64, Error> {
        let address = self.allocate(bytes)?;
        self.states.push((address, bytes));
        Ok(address)
    }

    /// Packs the rows of `parts`, `[rows, columns]` each, one below the other.
    fn pack(&mut self, parts: &[&[f32]], columns: usize) -> Result<Packed, Error> {
        let rows: Vec<&[f32]> = parts.iter().flat_map(|part| part.chunks_exact(columns)).collect();
        let all_chunks = columns.div_ceil(CHUNK_COLUMNS);
        let pieces = all_chunks.div_ceil(UNIT_CHUNKS);
        let chunks = all_chunks.div_ceil(pieces);
        let piece_columns = chunks * CHUNK_COLUMNS;
        let mut packed = vec![0_u16; rows.len().next_multiple_of(2) * pieces * piece_columns];
        for (row, values) in rows.iter().enumerate() {
            for (piece, values) in values.chunks(piece_columns).enumerate() {
                let at = ((row / 2 * pieces + piece) * 2 + row % 2) * piece_columns;
                for (to, from) in packed[at..].iter_mut().zip(values) {
                    *to = bf16_bits(*from);
                }
            }
        }
        self.streamed_bytes += 2 * (rows.len() * columns) as u64;
        let address = upload_new(self.machine, &packed)?;
        self.memory.push(address);
        Ok(Packed { address, pieces, chunks, pairs: rows.len().div_ceil(2) })
    }

    fn push(&mut self, mut phase: Phase) {
        let blocks = self.machine.extent().multiprocessors;
        // shares differ by one unit: another block has the larger one each time
        phase.rotation = (self.phases.len() as u32 * 37) % blocks;
        self.phases.push(phase);
    }

    fn gemv(
        &mut self,
        matrix: &Packed,
        columns: usize,
        input: Input,
        output: Output,
        rows: usize,
    ) -> Result<Phase, Error> {
        let consumers = self.warps as usize * 32;
        let padded = matrix.pieces * matrix.chunks * CHUNK_COLUMNS;
        check(
            columns.is_multiple_of(4),
            "the input width of a matrix",
            "a multiple of 4",
            columns,
        )?;
        check(
            padded <= 20 * consumers,
            "the input width of a matrix",
            &format!("at most {}", 20 * consumers),
            columns,
        )?;
        let units =
            matrix.pairs.div_ceil(self.machine.extent().multiprocessors as usize) * matrix.pieces;
        let blocks = self.machine.extent().multiprocessors as usize;
        check(
            matrix.pairs * (blocks + 1) < 1 << 32,
            "the rows of a matrix",
            "below 2³³ over the blocks",
            rows,
        )?;
        let scratch = SCRATCH_BYTES as usize;
        check(
            padded * 4 + units * 8 <= scratch,
            "the rows of a matrix",
            "few enough for the blocks' scratch memory",
            rows,
        )?;
        Ok(Phase {
            stream: matrix.address,
            kind: Kind::Gemv as u32,
            unit_bytes: (2 * matrix.chunks * CHUNK_COLUMNS * 2) as u32,
            groups: matrix.pairs as u32,
            units_per_group: matrix.pieces as u32,
            input: input as u32,
            output: output as u32,
            columns: columns as u32,
            chunks: matrix.chunks as u32,
            rows: rows as u32,
            ..Phase::default()
        })
    }

    pub(super) fn build(&mut self, load: Load) -> Result<(), Error> {
        let stack = self.stack;
        let d = stack.d_model;
        check(!stack.layers.is_empty(), "the number of layers", "at least 1", 0)?;
        self.residual = self.allocate(d * 4)?;
        self.logits = self.allocate(stack.vocabulary.next_multiple_of(2) * 4)?;
        let embedding = self.pack(&[&load("embedding.weight", stack.vocabulary * d)], d)?;
        let head = if stack.tied {
            Packed { ..embedding }
        } else {
            self.streamed_bytes -= 2 * (stack.vocabulary * d) as u64; // one row of the embedding is read, not all
            self.pack(&[&load("head.weight", stack.vocabulary * d)], d)?
        };
        for (i, layer) in stack.layers.iter().enumerate() {
            let norm = load(&format!("layers.{i}.mixer_norm.weight"), d);
            let norm = self.vector(&norm)?;
            let mut into =
                Phase { norm, x: self.residual, input: Input::RmsNorm as u32, ..Phase::default() };
            if i == 0 {
                into.input = Input::Embedding as u32;
                into.x = embedding.address;
                check(embedding.chunks > 0, "d_model", "at least 4", d)?;
            }
            let mut load_here =
                |name: &str, count: usize| load(&format!("layers.{i}.mixer.{name}"), count);
            match layer.mixer {
                Mixer::Attention { .. } => self.attention(layer.mixer, &into, &mut load_here)?,
                Mixer::Delta { .. } => self.delta(layer.mixer, &into, &mut load_here)?,
                Mixer::Mamba2 { .. } => self.mamba2(layer.mixer, &into, &mut load_here)?,
            }
            if let Some(width) = layer.ffn {
                self.ffn(i, width, load)?;
            }
        }
        let norm = load("final_norm.weight", d);
        let norm = self.vector(&norm)?;
        let phase = self.gemv(&head, d, Input::RmsNorm, Output::Logits, stack.vocabulary)?;
        self.push(Phase { norm, x: self.residual, out: self.logits, ..phase });
        Ok(())
    }

    fn ffn(&mut self, layer: usize, width: usize, load: Load) -> Result<(), Error> {
        let d = self.stack.d_model;
        let norm = load(&format!("layers.{layer}.ffn_norm.weight"), d);
        let norm = self.vector(&norm)?;
        let gate = load(&format!("layers.{layer}.ffn.gate.weight"), width * d);
        let up = load(&format!("layers.{layer}.ffn.up.weight"), width * d);
        // row i of the gate beside row i of up: a pair gives one value
        let rows: Vec<&[f32]> =
            gate.chunks_exact(d).zip(up.chunks_exact(d)).flat_map(|(g, u)| [g, u]).collect();
        let matrix = self.pack(&rows, d)?;
        let hidden = self.allocate(width * 4)?;
        let phase = self.gemv(&matrix, d, Input::RmsNorm, Output::Swiglu, 2 * width)?;
        self.push(Phase { norm, x: self.residual, out: hidden, ..phase });
        let down = load(&format!("layers.{layer}.ffn.down.weight"), d * width);
        let matrix = self.pack(&[&down], width)?;
        let phase = self.gemv(&matrix, width, Input::Plain, Output::Residual, d)?;
        self.push(Phase { x: hidden, ..phase });
        Ok(())
    }

    /// The in-projection of a mixer: `into` says from where, `ring_rows` of its rows go to the convolution.
    fn project(
        &mut self,
        parts: &[&[f32]],
        into: &Phase,
        ring_rows: usize,
    ) -> Result<(u64, u64), Error> {
        let d = self.stack.d_model;
        let matrix = self.pack(parts, d)?;
        let rows = parts.iter().map(|p| p.len() / d).sum::<usize>();
        let z = self.allocate((rows - ring_rows).max(4).next_multiple_of(4) * 4)?;
        let ring = if ring_rows > 0 { self.state(4 * ring_rows * 4)? } else { 0 };
        let output = if ring_rows > 0 { Output::Convolution } else { Output::Store };
        let phase = self.gemv(&matrix, d, Input::Plain, output, rows)?;
        self.push(Phase {
            input: into.input,
            x: into.x,
            norm: into.norm,
            out: z,
            ring,
            ring_rows: ring_rows as u32,
            ..phase
        });
        Ok((z, ring))
    }

    fn delta(&mut self, mixer: Mixer, into: &Phase, load: Load) -> Result<(), Error> {
        let Mixer::Delta { heads, key_width, value_width, gated } = mixer else {
            unreachable!("matched by the caller")
        };
        let d = self.stack.d_model;
        check(
            [64, 128].contains(&key_width),
            "the key width of the delta rule",
            "64 or 128",
            key_width,
        )?;
        check(
            value_width.is_power_of_two() && (16..=512).contains(&value_width),
            "the value width of the delta rule",
            "a power of two from 16 to 512",
            value_width,
        )?;
        let (keys, values) = (heads * key_width, heads * value_width);
        let q = load("q.weight", keys * d);
        let k = load("k.weight", keys * d);
        let v = load("v.weight", values * d);
        let g = if gated { load("g.weight", values * d) } else { Vec::new() };
        let b = load("b.weight", heads * d);
        let a = if gated { load("a.weight", heads * d) } else { Vec::new() };
        let ring_rows = 2 * keys + values;
        let (z, ring) = self.project(&[&q, &k, &v, &g, &b, &a], into, ring_rows)?;
        let taps: Vec<f32> =
            [("q_conv.weight", keys), ("k_conv.weight", keys), ("v_conv.weight", values)]
                .into_iter()
                .flat_map(|(name, channels)| load(name, channels * 4))
                .collect();
        let conv_weight = self.vector(&taps)?;
        let (mut a_log, mut dt_bias) = (0, 0);
        if gated {
            a_log = self.vector(&load("A_log", heads))?;
            dt_bias = self.vector(&load("dt_bias", heads))?;
        }
        let state = self.state(values * key_width * 4)?;
        self.state_bytes += (values * key_width * 4) as u64;
        let out = self.allocate(values * 4)?;
        self.push(Phase {
            stream: state,
            kind: Kind::Delta as u32,
            unit_bytes: (STATE_ROWS * key_width * 4) as u32,
            groups: (values / STATE_ROWS) as u32,
            units_per_group: 1,
            key_heads: heads as u32,
            heads: heads as u32,
            width: key_width as u32,
            value_width: value_width as u32,
            gated: u32::from(gated),
            scale: (key_width as f32).powf(-0.5),
            ring,
            ring_rows: ring_rows as u32,
            conv_weight,
            a_log,
            dt_bias,
            out,
            z: z + if gated { values as u64 * 4 } else { 0 }, // behind the gate
            ..Phase::default()
        });
        let norm = self.vector(&load("norm.weight", value_width))?;
        let matrix = self.pack(&[&load("o.weight", d * values)], values)?;
        let phase = self.gemv(&matrix, values, Input::HeadNorm, Output::Residual, d)?;
        let gate = if gated { z } else { 0 };
        self.push(Phase { x: out, norm, gate, value_width: value_width as u32, ..phase });
        Ok(())
    }

    fn mamba2(&mut self, mixer: Mixer, into: &Phase, load: Load) -> Result<(), Error> {
        let Mixer::Mamba2 { heads, head_width, state_width } = mixer else {
            unreachable!("matched by the caller")
        };
        let d = self.stack.d_model;
        check(
            [64, 128].contains(&state_width),
            "the state width of Mamba2",
            "64 or 128",
            state_width,
        )?;
        check(
            head_width.is_multiple_of(STATE_ROWS),
            "the head width of Mamba2",
            "a multiple of 4",
            head_width,
        )?;
        let inner = heads * head_width;
        let ring_rows = inner + 2 * state_width;
        let weight = load("in.weight", (2 * inner + 2 * state_width + heads) * d);
        // z, x, B, C, dt: those that are convolved come first
        let (gate, rest) = weight.split_at(inner * d);
        let (convolved, dt) = rest.split_at(ring_rows * d);
        let (z, ring) = self.project(&[convolved, gate, dt], into, ring_rows)?;
        let conv_weight = self.vector(&load("conv.weight", ring_rows * 4))?;
        let conv_bias = self.vector(&load("conv.bias", ring_rows))?;
        let a_log = self.vector(&load("A_log", heads))?;
        let dt_bias = self.vector(&load("dt_bias", heads))?;
        let skip = self.vector(&load("D", heads))?;
        let state = self.state(inner * state_width * 4)?;
        self.state_bytes += (inner * state_width * 4) as u64;
        let out = self.allocate(inner * 4)?;
        self.push(Phase {
            stream: state,
            kind: Kind::Mamba2 as u32,
            unit_bytes: (STATE_ROWS * state_width * 4) as u32,
            groups: (inner / STATE_ROWS) as u32,
            units_per_group: 1,
            heads: heads as u32,
            width: state_width as u32,
            value_width: head_width as u32,
            ring,
            ring_rows: ring_rows as u32,
            conv_weight,
            conv_bias,
            a_log,
            dt_bias,
            skip,
            out,
            z,
            ..Phase::default()
        });
        let norm = self.vector(&load("norm.weight", inner))?;
        let matrix = self.pack(&[&load("out.weight", d * inner)], inner)?;
        let phase = self.gemv(&matrix, inner, Input::RmsNorm, Output::Residual, d)?;
        self.push(Phase { x: out, norm, ..phase });
        Ok(())
    }

    fn attention(&mut self, mixer: Mixer, into: &Phase, load: Load) -> Result<(), Error> {
        let Mixer::Attention { heads, kv_heads, width, window, qk_norm } = mixer else {
            unreachable!("matched by the caller")
        };
        let d = self.stack.d_model;
        check([64, 128].contains(&width), "the head width of attention", "64 or 128", width)?;
        check(
            heads.is_multiple_of(kv_heads),
            "the query heads of attention",
            "a multiple of its KV heads",
            heads,
        )?;
        let q = load("q.weight", heads * width * d);
        let k = load("k.weight", kv_heads * width * d);
        let v = load("v.weight", kv_heads * width * d);
        let (z, _) = self.project(&[&q, &k, &v], into, 0)?;
        let (mut q_norm, mut k_norm) = (0, 0);
        if qk_norm {
            q_norm = self.vector(&load("q_norm.weight", width))?;
            k_norm = self.vector(&load("k_norm.weight", width))?;
        }
        let rope = upload_new(self.machine, &rotations(self.stack.positions, width))?;
        self.memory.push(rope);
        let tiles = (heads / kv_heads).div_ceil(TILE_HEADS);
        let blocks = self.machine.extent().multiprocessors as usize;
        check(
            kv_heads * tiles <= blocks,
            "the KV heads of attention",
            &format!("at most {blocks}"),
            kv_heads,
        )?;
        let splits = blocks / (kv_heads * tiles);
        let cache_blocks = self.stack.positions.div_ceil(BLOCK_POSITIONS);
        let unit_bytes = 2 * BLOCK_POSITIONS * width * 2;
        // not among the states: positions not written yet are never read, so they may hold anything
        let cache = self.allocate(kv_heads * cache_blocks * unit_bytes)?;
        self.caches.push((cache, kv_heads * cache_blocks * unit_bytes));
        self.cache_bytes_per_position.push(((2 * kv_heads * width * 2) as u64, window));
        let items = kv_heads * tiles * splits;
        let partial = self.allocate(items * TILE_HEADS * width * 4)?;
        let sums = self.allocate(items * TILE_HEADS * 2 * 4)?;
        let shape = Phase {
            splits: splits as u32,
            key_heads: kv_heads as u32,
            tiles: tiles as u32,
            width: width as u32,
            heads: heads as u32,
            gate: sums,
            ..Phase::default()
        };
        self.push(Phase {
            stream: cache,
            kind: Kind::Attend as u32,
            unit_bytes: unit_bytes as u32,
            window: window.unwrap_or(0) as u32,
            cache_blocks: cache_blocks as u32,
            scale: (width as f32).powf(-0.5),
            norm: q_norm,
            k_norm,
            rope,
            z,
            out: partial,
            ..shape.clone()
        });
        let out = self.allocate(heads * width * 4)?;
        self.push(Phase { kind: Kind::Combine as u32, x: partial, out, ..shape });
        let matrix = self.pack(&[&load("o.weight", d * heads * width)], heads * width)?;
        let phase = self.gemv(&matrix, heads * width, Input::Plain, Output::Residual, d)?;
        self.push(Phase { x: out, ..phase });
        Ok(())
    }
}

/// Cosine and sine of position · θ^(−2i/K), `[positions, K/2, 2]`.
fn rotations(positions: usize, width: usize) -> Vec<f32> {
    let angle = |p: usize, i: usize| p as f64 * THETA.powf(-2.0 * i as f64 / width as f64);
    (0..positions)
        .flat_map(|p| (0..width / 2).map(move |i| angle(p, i)))
        .flat_map(|a| [a.cos() as f32, a.sin() as f32])
        .collect()
}
