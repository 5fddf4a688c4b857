//! A stack as the list of phases that the step runs, and its weights in the order of streaming.

use super::{Delta, Mixer, Stack};
use crate::cuda::{Error, Extent, Machine, bf16_bits, upload_new};

pub(super) const SLOT_BYTES: u32 = 8192;
const SCRATCH_BYTES: u32 = 32_768;
const CHUNK_COLUMNS: usize = 256; // of one step of a warp over a row
const UNIT_CHUNKS: usize = 8; // two rows of 8 chunks fill a slot
const PARTIALS: u32 = 128; // sums of rows in pieces that have a place of their own
const OWN_ROWS_SMALL: u32 = 128; // of the residual stream that one block keeps
const OWN_ROWS_LARGE: u32 = 512; // on machines of few multiprocessors
const STATE_ROWS: usize = 4;
const BLOCK_POSITIONS: usize = 16;
const TILE_HEADS: usize = 8;
const THETA: f64 = 1e4;

/// Kinds, inputs and outputs of a phase, numbered as in `phase.cuh`.
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
    Residual,
    Swiglu,
    Logits,
}

/// The mirror of `Phase` in `phase.cuh`.
#[derive(Debug, Clone, Copy, Default)]
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
    steps: u32,
    convolved: u32,
    scale: f32,
    largest_beta: f32,
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
    now: u64,
    z: u64,
    k_norm: u64,
    rope: u64,
}

impl Phase {
    pub(super) const BYTES: usize = 224;

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

    pub(super) fn to_bytes(self) -> Vec<u8> {
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
            self.steps,
            self.convolved,
            self.scale.to_bits(),
            self.largest_beta.to_bits(),
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
            self.now,
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

/// The mirror of `Control` in `phase.cuh`.
pub(super) struct Control {
    position: u32,
    epoch: u32,
    next: [u64; 2],
}

impl Control {
    pub(super) const BYTES: usize = 32;

    /// At `position`, with `token` to be computed there, after `epoch` steps of any kind.
    pub(super) fn at(position: u32, token: u32, epoch: u32) -> Self {
        let mut next = [0; 2];
        next[position as usize % 2] = u64::from(u32::MAX - token);
        Self { position, epoch, next }
    }

    /// The steps that `words` count.
    pub(super) fn epoch(words: &[u32]) -> u32 {
        words[1]
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [self.position, self.epoch, 0, 0] {
            bytes.extend(word.to_ne_bytes()); // between steps the counter is 0
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

/// How a block of a machine is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Warps that compute.
    pub(super) warps: u32,
    /// Units of the ring.
    pub(super) slots: u32,
    /// Rows of the residual stream that a block can keep.
    pub(super) own_rows: u32,
}

impl Layout {
    /// The longest ring that fits.
    pub(super) fn of(extent: Extent) -> Result<Self, Error> {
        let warps = extent.warps - 1; // one more streams
        let own_rows = if extent.multiprocessors < 32 { OWN_ROWS_LARGE } else { OWN_ROWS_SMALL };
        // a slot of the ring belongs to one warp: see `phase.cuh`
        let ring = |turns: u32| Self { warps, slots: warps * turns, own_rows };
        (1..=32)
            .rev()
            .map(ring)
            .find(|layout| layout.shared_bytes() <= extent.shared_bytes)
            .ok_or_else(|| Error::Shape {
                what: "shared memory of a block".to_owned(),
                expected: format!("{} bytes at least", ring(1).shared_bytes()),
                got: extent.shared_bytes.to_string(),
            })
    }

    /// The size of `Shared` in `phase.cuh`, which asserts it.
    pub(super) fn shared_bytes(self) -> u32 {
        let Self { warps, slots, own_rows } = self;
        let descriptions = 4 * Phase::BYTES as u32;
        let small = slots * 16
            + descriptions
            + 128
            + warps * TILE_HEADS as u32 * 8
            + own_rows * 4
            + PARTIALS * 4;
        small.next_multiple_of(128) + SCRATCH_BYTES + slots * SLOT_BYTES
    }

    /// The constants that the step is compiled with.
    pub(super) fn defines(self) -> Vec<(&'static str, u32)> {
        let Self { warps, slots, own_rows } = self;
        vec![
            ("WARPS", warps),
            ("SLOTS", slots),
            ("OWN_ROWS", own_rows),
            ("SHARED_BYTES", self.shared_bytes()),
        ]
    }
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
    layout: Layout,
    /// Whether matrices and caches are filled on the machine, whatever `load` gives.
    pretends: bool,
    pub(super) phases: Vec<Phase>,
    /// Where the residual stream stands: the output of the last phase that wrote to it.
    residual: Residual,
    pub(super) logits: u64,
    pub(super) states: Vec<(u64, usize)>,
    pub(super) caches: Vec<(u64, usize)>,
    pub(super) streamed_bytes: u64,
    pub(super) state_bytes: u64,
    pub(super) cache_bytes_per_position: Vec<(u64, Option<usize>)>,
    pub(super) memory: Vec<u64>,
}

/// What an in-projection leaves.
struct Projected {
    /// Its rows at this position, tagged.
    now: u64,
    /// Those of the last four positions that a convolution needs, `[4, rows]`; 0 without one.
    ring: u64,
}

/// From where a phase reads the residual stream.
#[derive(Debug, Clone, Copy)]
enum Residual {
    /// The embedding of the token: no phase has written yet.
    Embedding(u64),
    /// `[d]`, tagged.
    Vector(u64),
}

type Load<'l> = &'l mut dyn FnMut(&str, usize) -> Vec<f32>;

fn shape_error(what: &str, expected: &str, got: usize) -> Error {
    Error::Shape { what: what.to_owned(), expected: expected.to_owned(), got: got.to_string() }
}

fn check(holds: bool, what: &str, expected: &str, got: usize) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(shape_error(what, expected, got)) }
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        machine: &'a mut dyn Machine,
        stack: &'a Stack,
        layout: Layout,
        pretends: bool,
    ) -> Self {
        Self {
            machine,
            stack,
            layout,
            pretends,
            phases: Vec::new(),
            residual: Residual::Embedding(0),
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
        let all_chunks = columns.div_ceil(CHUNK_COLUMNS);
        // a warp keeps the input of one piece: see `gemv.cuh`
        let warps = self.layout.warps as usize;
        let pieces = (1..=warps)
            .find(|n| warps.is_multiple_of(*n) && all_chunks.div_ceil(*n) <= UNIT_CHUNKS)
            .ok_or_else(|| {
                let most = warps * UNIT_CHUNKS * CHUNK_COLUMNS;
                shape_error("the input width of a matrix", &format!("at most {most}"), columns)
            })?;
        let chunks = all_chunks.div_ceil(pieces);
        let piece_columns = chunks * CHUNK_COLUMNS;
        let count = parts.iter().map(|part| part.len() / columns).sum::<usize>();
        let packed_len = count.next_multiple_of(2) * pieces * piece_columns;
        self.streamed_bytes += 2 * (count * columns) as u64;
        let pairs = count.div_ceil(2);
        if self.pretends {
            let address = self.allocate(packed_len * 2)?;
            self.machine.pretend(address, packed_len * 2)?;
            return Ok(Packed { address, pieces, chunks, pairs });
        }
        let rows = parts.iter().flat_map(|part| part.chunks_exact(columns));
        let mut packed = vec![0_u16; packed_len];
        for (row, values) in rows.enumerate() {
            for (piece, values) in values.chunks(piece_columns).enumerate() {
                let at = ((row / 2 * pieces + piece) * 2 + row % 2) * piece_columns;
                for (to, from) in packed[at..].iter_mut().zip(values) {
                    *to = bf16_bits(*from);
                }
            }
        }
        let address = upload_new(self.machine, &packed)?;
        self.memory.push(address);
        Ok(Packed { address, pieces, chunks, pairs })
    }

    fn push(&mut self, mut phase: Phase) {
        let blocks = self.machine.extent().multiprocessors;
        // Shares differ by one unit: another block has the larger one each time, but for the rows of the residual
        // stream, which have owners.
        if phase.output != Output::Residual as u32 || phase.kind != Kind::Gemv as u32 {
            phase.rotation = (self.phases.len() as u32 * 37) % blocks;
        }
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
        let blocks = self.machine.extent().multiprocessors as usize;
        let pairs = matrix.pairs.div_ceil(blocks);
        let units = pairs * matrix.pieces;
        let padded = matrix.pieces * matrix.chunks * CHUNK_COLUMNS;
        check(
            padded * 4 <= SCRATCH_BYTES as usize,
            "the input width of a matrix",
            &format!("at most {}", SCRATCH_BYTES / 4),
            columns,
        )?;
        check(
            columns.is_multiple_of(4),
            "the input width of a matrix",
            "a multiple of 4",
            columns,
        )?;
        check(
            matrix.pairs * (blocks + 1) < 1 << 32,
            "the rows of a matrix",
            "below 2³³ over the blocks",
            rows,
        )?;
        check(
            matrix.pieces == 1
                || units * 2 <= PARTIALS as usize
                || padded * 4 + units * 8 <= SCRATCH_BYTES as usize,
            "the rows of a matrix",
            "few enough for the blocks' scratch memory",
            rows,
        )?;
        check(
            output as u32 != Output::Residual as u32 || pairs * 2 <= self.layout.own_rows as usize,
            "d_model",
            &format!("at most {}", self.layout.own_rows as usize * blocks),
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
        self.logits = self.allocate(stack.vocabulary.next_multiple_of(2) * 4)?;
        let embedding = self.pack(&[&load("embedding.weight", stack.vocabulary * d)], d)?;
        let head = if stack.tied {
            Packed { ..embedding }
        } else {
            self.streamed_bytes -= 2 * (stack.vocabulary * d) as u64; // one row of the embedding is read, not all
            self.pack(&[&load("head.weight", stack.vocabulary * d)], d)?
        };
        self.residual = Residual::Embedding(embedding.address);
        for (i, layer) in stack.layers.iter().enumerate() {
            if let Some(mixer) = layer.mixer {
                let norm = load(&format!("layers.{i}.mixer_norm.weight"), d);
                let norm = self.vector(&norm)?;
                let mut load_here =
                    |name: &str, count: usize| load(&format!("layers.{i}.mixer.{name}"), count);
                match mixer {
                    Mixer::Attention { .. } => self.attention(mixer, norm, &mut load_here)?,
                    Mixer::Delta(delta) => self.delta(delta, norm, &mut load_here)?,
                    Mixer::Mamba2 { .. } => self.mamba2(mixer, norm, &mut load_here)?,
                }
            }
            if let Some(width) = layer.ffn {
                self.ffn(i, width, load)?;
            }
        }
        let norm = load("final_norm.weight", d);
        let norm = self.vector(&norm)?;
        let logits = self.logits;
        let phase = self.gemv(&head, d, Input::RmsNorm, Output::Logits, stack.vocabulary)?;
        self.push(Phase { out: logits, ..self.reading(phase, norm) });
        Ok(())
    }

    /// `phase` with the normed residual stream as its input.
    fn reading(&self, phase: Phase, norm: u64) -> Phase {
        let (input, x) = match self.residual {
            Residual::Embedding(x) => (Input::Embedding, x),
            Residual::Vector(x) => (Input::RmsNorm, x),
        };
        Phase { input: input as u32, x, norm, ..phase }
    }

    /// Adds the products of `phase` to the residual stream.
    fn push_residual(&mut self, phase: Phase) -> Result<(), Error> {
        let out = self.allocate(self.stack.d_model * 4)?;
        self.push(Phase { out, ..phase });
        self.residual = Residual::Vector(out);
        Ok(())
    }

    /// Adds `weight` `[d, columns]` times what `of` reads to the residual stream: a slab of columns after another where
    /// a block's scratch memory does not hold them all.
    fn project_back(
        &mut self,
        weight: &[f32],
        columns: usize,
        input: Input,
        of: Phase,
    ) -> Result<(), Error> {
        let d = self.stack.d_model;
        let held = SCRATCH_BYTES as usize / 4;
        let most = held.min(self.layout.warps as usize * UNIT_CHUNKS * CHUNK_COLUMNS);
        let slab = columns.div_ceil(columns.div_ceil(most)).next_multiple_of(CHUNK_COLUMNS);
        for first in (0..columns).step_by(slab) {
            let end = columns.min(first + slab);
            let rows: Vec<&[f32]> =
                weight.chunks_exact(columns).map(|row| &row[first..end]).collect();
            let matrix = self.pack(&rows, end - first)?;
            let phase = self.gemv(&matrix, end - first, input, Output::Residual, d)?;
            let skipped = 4 * first as u64;
            self.push_residual(Phase {
                x: of.x + skipped,
                gate: if of.gate == 0 { 0 } else { of.gate + skipped },
                norm: of.norm,
                value_width: of.value_width,
                ..phase
            })?;
        }
        Ok(())
    }

    fn ffn(&mut self, layer: usize, width: usize, load: Load) -> Result<(), Error> {
        let d = self.stack.d_model;
        let norm = load(&format!("layers.{layer}.ffn_norm.weight"), d);
        let norm = self.vector(&norm)?;
        let gate = load(&format!("layers.{layer}.ffn.gate.weight"), width * d);
        let up = load(&format!("layers.{layer}.ffn.up.weight"), width * d);
        let matrix = if self.pretends {
            self.pack(&[&gate, &up], d)?
        } else {
            // row i of the gate beside row i of up: a pair gives one value
            let rows: Vec<&[f32]> =
                gate.chunks_exact(d).zip(up.chunks_exact(d)).flat_map(|(g, u)| [g, u]).collect();
            self.pack(&rows, d)?
        };
        let hidden = self.allocate(width * 4)?;
        let phase = self.gemv(&matrix, d, Input::RmsNorm, Output::Swiglu, 2 * width)?;
        self.push(Phase { out: hidden, ..self.reading(phase, norm) });
        let down = load(&format!("layers.{layer}.ffn.down.weight"), d * width);
        self.project_back(&down, width, Input::Plain, Phase { x: hidden, ..Phase::default() })
    }

    /// The in-projection of a mixer, `[rows]`: the inputs of the convolution first, which go to a ring as well.
    fn project(
        &mut self,
        parts: &[&[f32]],
        norm: u64,
        ring_rows: usize,
    ) -> Result<Projected, Error> {
        let d = self.stack.d_model;
        let matrix = self.pack(parts, d)?;
        let rows = parts.iter().map(|p| p.len() / d).sum::<usize>();
        let now = self.allocate(rows.next_multiple_of(4) * 4)?;
        let ring = if ring_rows > 0 { self.state(4 * ring_rows * 4)? } else { 0 };
        let phase = self.gemv(&matrix, d, Input::RmsNorm, Output::Store, rows)?;
        self.push(Phase {
            out: now,
            ring,
            ring_rows: ring_rows as u32,
            ..self.reading(phase, norm)
        });
        Ok(Projected { now, ring })
    }

    fn delta(&mut self, shape: Delta, norm: u64, load: Load) -> Result<(), Error> {
        let Delta { key_heads, heads, key_width, value_width, steps, .. } = shape;
        let d = self.stack.d_model;
        check(
            [32, 64, 128].contains(&key_width),
            "the key width of the delta rule on a GPU",
            "32, 64 or 128",
            key_width,
        )?;
        check(
            value_width.is_power_of_two() && (16..=256).contains(&value_width),
            "the value width of the delta rule on a GPU",
            "a power of two from 16 to 256",
            value_width,
        )?;
        check(
            heads.is_multiple_of(key_heads),
            "the value heads of the delta rule",
            "a multiple of its key heads",
            heads,
        )?;
        let (keys, values) = (key_heads * key_width, heads * value_width);
        let q = load("q.weight", keys * d);
        let k = load("k.weight", steps * keys * d);
        let v = load("v.weight", steps * values * d);
        let g = if shape.output_gate { load("g.weight", values * d) } else { Vec::new() };
        let b = load("b.weight", steps * heads * d);
        let a = if shape.decay { load("a.weight", heads * d) } else { Vec::new() };
        let channels = keys + steps * (keys + values);
        let ring_rows = if shape.short_conv { channels } else { 0 };
        let Projected { now, ring } = self.project(&[&q, &k, &v, &g, &b, &a], norm, ring_rows)?;
        let gate = now + channels as u64 * 4;
        let z = if shape.output_gate { gate + values as u64 * 4 } else { gate };
        let taps: Vec<f32> = [
            ("q_conv.weight", keys),
            ("k_conv.weight", steps * keys),
            ("v_conv.weight", steps * values),
        ]
        .into_iter()
        .filter(|_| shape.short_conv)
        .flat_map(|(name, channels)| load(name, channels * 4))
        .collect();
        let conv_weight = if shape.short_conv { self.vector(&taps)? } else { 0 };
        let (mut a_log, mut dt_bias) = (0, 0);
        if shape.decay {
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
            key_heads: key_heads as u32,
            heads: heads as u32,
            width: key_width as u32,
            value_width: value_width as u32,
            gated: u32::from(shape.decay),
            steps: steps as u32,
            convolved: u32::from(shape.short_conv),
            scale: (key_width as f32).powf(-0.5),
            largest_beta: if shape.negative_eigenvalues { 2.0 } else { 1.0 },
            ring,
            ring_rows: ring_rows as u32,
            conv_weight,
            a_log,
            dt_bias,
            out,
            now,
            z,
            ..Phase::default()
        });
        let norm = self.vector(&load("norm.weight", value_width))?;
        let weight = load("o.weight", d * values);
        let gate = if shape.output_gate { gate } else { 0 };
        let value_width = value_width as u32;
        let of = Phase { x: out, norm, gate, value_width, ..Phase::default() };
        self.project_back(&weight, values, Input::HeadNorm, of)
    }

    fn mamba2(&mut self, mixer: Mixer, norm: u64, load: Load) -> Result<(), Error> {
        let Mixer::Mamba2 { heads, head_width, state_width } = mixer else {
            unreachable!("matched by the caller")
        };
        let d = self.stack.d_model;
        check(
            [32, 64, 128].contains(&state_width),
            "the state width of Mamba2 on a GPU",
            "32, 64 or 128",
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
        let Projected { now, ring } = self.project(&[convolved, gate, dt], norm, ring_rows)?;
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
            convolved: 1,
            out,
            now,
            z: now + ring_rows as u64 * 4,
            ..Phase::default()
        });
        let norm = self.vector(&load("norm.weight", inner))?;
        let matrix = self.pack(&[&load("out.weight", d * inner)], inner)?;
        let phase = self.gemv(&matrix, inner, Input::RmsNorm, Output::Residual, d)?;
        self.push_residual(Phase { x: out, norm, ..phase })
    }

    fn attention(&mut self, mixer: Mixer, norm: u64, load: Load) -> Result<(), Error> {
        let Mixer::Attention { heads, kv_heads, width, window, qk_norm } = mixer else {
            unreachable!("matched by the caller")
        };
        let d = self.stack.d_model;
        check(
            [64, 128].contains(&width),
            "the head width of attention on a GPU",
            "64 or 128",
            width,
        )?;
        check(
            heads.is_multiple_of(kv_heads),
            "the query heads of attention",
            "a multiple of its KV heads",
            heads,
        )?;
        let q = load("q.weight", heads * width * d);
        let k = load("k.weight", kv_heads * width * d);
        let v = load("v.weight", kv_heads * width * d);
        let z = self.project(&[&q, &k, &v], norm, 0)?.now;
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
        if self.pretends {
            self.machine.pretend(cache, kv_heads * cache_blocks * unit_bytes)?;
        }
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
            ..shape
        });
        let out = self.allocate(heads * width * 4)?;
        self.push(Phase { kind: Kind::Combine as u32, x: partial, out, ..shape });
        let weight = load("o.weight", d * heads * width);
        self.project_back(
            &weight,
            heads * width,
            Input::Plain,
            Phase { x: out, ..Phase::default() },
        )
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
