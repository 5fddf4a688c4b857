//! The gated delta rule and scalar-gated linear attention over whole sequences, on tensor cores: prefill, and the
//! forward and backward passes of training.
//!
//! Chunks of 64 positions, in the letters of [`crate::delta_rule::train`]. Four kernels: `chunked_prepare` computes what
//! does not depend on the state, all chunks at once; `chunked_forward` walks over the chunks with the state in registers
//! and writes the outputs on the way; `chunked_backward` walks back with the state's gradient; `chunked_gradients` forms
//! the remaining gradients, all chunks at once. Numbers are bf16 or fp32, of which a product takes 16 bits (see
//! `operands.cuh`); sums, states, decays and the triangular solve are fp32. DeltaProduct is the rule on the sequence of its steps; Mamba2 is q = C, k = B, v = dt·x, g = dt·A.
//!
//! Rows of q, k, v and of the output's gradient may lie apart, as parts of a wider matrix do.

pub mod check;
pub mod definition;

use super::arguments::Arguments;
use super::{Error, Extent, Launch, Source};

/// Positions of a chunk.
pub const CHUNK: usize = 64;

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// S ← e^g S; S += β k (v − Sᵀk)ᵀ.
    Delta,
    /// S ← e^g S + k vᵀ.
    LinearAttention,
}

/// One of the four kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the module says what each does")]
pub enum Part {
    Prepare,
    Forward,
    Backward,
    Gradients,
}

impl Part {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 4] = [Self::Prepare, Self::Forward, Self::Backward, Self::Gradients];

    fn kernel(self) -> &'static str {
        match self {
            Self::Prepare => "chunked_prepare",
            Self::Forward => "chunked_forward",
            Self::Backward => "chunked_backward",
            Self::Gradients => "chunked_gradients",
        }
    }

    /// What the source asks for before it defines the kernel.
    fn define(self) -> &'static str {
        match self {
            Self::Prepare => "PREPARE",
            Self::Forward => "FORWARD",
            Self::Backward => "BACKWARD",
            Self::Gradients => "GRADIENTS",
        }
    }
}

/// The extents of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// B, sequences.
    pub batch: usize,
    /// T, positions.
    pub tokens: usize,
    /// H, heads of v.
    pub heads: usize,
    /// Heads of q and k, each shared by H / key heads neighbouring heads of v.
    pub key_heads: usize,
    /// K, at most 128.
    pub key_width: usize,
    /// V.
    pub value_width: usize,
    /// Whether numbers are f32, else bf16; decays, β and the states before and after are always f32.
    pub wide: bool,
}

impl Shape {
    /// Of a number.
    pub fn number_bytes(&self) -> usize {
        if self.wide { 4 } else { 2 }
    }

    /// Numbers in bf16 that hold one.
    fn parts(&self) -> usize {
        if self.wide { 2 } else { 1 }
    }

    /// A tile of numbers in shared memory, `tile_bytes` of the source.
    fn tile(&self, rows: usize, columns: usize) -> usize {
        tile(rows, self.parts() * columns)
    }

    /// Chunks of a sequence.
    pub fn chunks(&self) -> usize {
        self.tokens.div_ceil(CHUNK)
    }

    /// Independent walks: one for each head of each sequence.
    pub fn pieces(&self) -> usize {
        self.batch * self.heads
    }

    /// Values of `[B, T, H]`.
    pub fn rows(&self) -> usize {
        self.batch * self.tokens * self.heads
    }

    /// Floating-point operations of the products of a forward pass, as the chunked forms of the papers count them
    /// (arXiv 2412.06464, section 3.3; arXiv 2405.21060, section 6). Forward and backward are three times as many.
    pub fn flops(&self, rule: Rule) -> f64 {
        let [c, k, v] = [CHUNK, self.key_width, self.value_width].map(|n| n as f64);
        let chunk = match rule {
            // KKᵀ, QKᵀ, TK; TV and (QKᵀ)(U − WS); WS, QS and Kᵀ(U − WS); the inverse
            Rule::Delta => {
                6.0 * c * c * k + 4.0 * c * c * v + 6.0 * c * k * v + 2.0 / 3.0 * c.powi(3)
            }
            // QKᵀ and (QKᵀ)V; QS and KᵀV
            Rule::LinearAttention => 2.0 * c * c * (k + v) + 4.0 * c * k * v,
        };
        (self.pieces() * self.chunks()) as f64 * chunk
    }

    /// Bytes of q, k, v and o and of g and β in fp32: what a forward pass cannot do without.
    pub fn bytes(&self, rule: Rule) -> f64 {
        let positions = (self.batch * self.tokens) as f64;
        let keys = self.number_bytes() * 2 * self.key_heads * self.key_width;
        let values = self.number_bytes() * 2 * self.heads * self.value_width;
        let gates = 4 * self.heads * if rule == Rule::Delta { 2 } else { 1 };
        positions * (keys + values + gates) as f64
    }

    /// Numbers of one of the two matrices that [`Chunked::prepare`] writes for each chunk, `[B, H, chunks, 64, 64]`.
    pub fn squares_len(&self) -> usize {
        self.pieces() * self.chunks() * CHUNK * CHUNK
    }

    /// f32 values of the decays that it writes.
    pub fn decays_len(&self) -> usize {
        self.pieces() * self.chunks() * 3 * CHUNK
    }

    /// Numbers of the states before every chunk, `[B, H, chunks, V, K]`.
    pub fn states_len(&self) -> usize {
        self.pieces() * self.chunks() * self.key_width * self.value_width
    }

    /// f32 values of the state of all heads, `[B, H, K, V]`.
    pub fn state_len(&self) -> usize {
        self.pieces() * self.key_width * self.value_width
    }
}

/// A matrix on the device whose rows (one for each position of each sequence) may lie apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Address of the first element, a multiple of 16.
    pub address: u64,
    /// Elements from a row to the next, a multiple of 8.
    pub stride: usize,
}

/// What the rule reads; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// `[B, T, key heads, K]`.
    pub q: Rows,
    /// `[B, T, key heads, K]`.
    pub k: Rows,
    /// `[B, T, H, V]`.
    pub v: Rows,
    /// f32 `[B, T, H]`, logarithms of the decays; 0: no decay.
    pub g: u64,
    /// f32 `[B, T, H]`; not read by linear attention.
    pub beta: u64,
}

/// What [`Chunked::prepare`] writes and the others read; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Prepared {
    /// [`Shape::squares_len`] numbers; not used by linear attention.
    pub inverse: u64,
    /// [`Shape::squares_len`] numbers.
    pub scores: u64,
    /// f32, [`Shape::decays_len`].
    pub decays: u64,
}

/// What the forward walk keeps for the backward pass; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Δ, `[B, T, H, V]`; linear attention has v in its place.
    pub corrections: u64,
    /// [`Shape::states_len`] numbers.
    pub states: u64,
}

/// Where gradients go; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Gradients {
    /// `[B, T, H, K]`: of each head of v by itself, also where heads share q.
    pub q: u64,
    /// `[B, T, H, K]`.
    pub k: u64,
    /// `[B, T, H, V]`.
    pub v: u64,
    /// f32 `[B, T, H]`; 0: not wanted.
    pub g: u64,
    /// f32 `[B, T, H]`; not written by linear attention.
    pub beta: u64,
    /// f32 `[B, H, K, V]`, of the state before the first position; 0: not wanted.
    pub state: u64,
    /// Scratch: [`Shape::states_len`] numbers.
    pub states: u64,
}

/// The launches of one rule at one shape.
#[derive(Debug, Clone)]
pub struct Chunked {
    rule: Rule,
    shape: Shape,
    scale: f32,
    /// Value columns of a walking block.
    columns: usize,
    /// Chunks in shared memory.
    stages: usize,
    /// Value columns that the last kernel takes at a time.
    slice: usize,
    /// Blocks of the last kernel that share a multiprocessor.
    beside: u32,
}

impl Chunked {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn new(rule: Rule, shape: Shape, scale: f32, extent: Extent) -> Result<Self, Error> {
        let Shape { heads, key_heads, key_width, value_width, .. } = shape;
        let refuse = |what: &str, expected: &str, got: usize| {
            Err(Error::Shape {
                what: what.to_owned(),
                expected: expected.to_owned(),
                got: got.to_string(),
            })
        };
        if key_width == 0 || !key_width.is_multiple_of(32) || key_width > 128 {
            return refuse("the key width", "32, 64, 96 or 128", key_width);
        }
        if value_width == 0 || !value_width.is_multiple_of(16) {
            return refuse("the value width", "a multiple of 16", value_width);
        }
        if shape.batch * shape.tokens == 0 {
            return refuse("the number of positions", "at least 1", shape.batch * shape.tokens);
        }
        if key_heads == 0 || !heads.is_multiple_of(key_heads) {
            return refuse("the number of heads", "a multiple of that of the key heads", heads);
        }
        let fits = |columns: &&usize| value_width.is_multiple_of(**columns);
        // Blocks of more columns take longer (measured on an H100: 0.85, 1, 1.6), but read q and k less often and need
        // fewer rounds over the multiprocessors.
        let rounds = |columns: usize| {
            let blocks = shape.pieces() * (value_width / columns);
            blocks.div_ceil(extent.multiprocessors.max(1) as usize) as f64
        };
        let mut columns = [(32, 1.0), (64, 1.6), (16, 0.85)];
        columns.sort_by(|a, b| (a.1 * rounds(a.0)).total_cmp(&(b.1 * rounds(b.0))));
        // Two blocks of linear attention share a multiprocessor when they take 32 at a time.
        let widest: &[usize] = if rule == Rule::Delta { &[64, 32] } else { &[32] };
        let slice = widest.iter().find(fits).copied().unwrap_or(16);
        let mut refusal = None;
        for (columns, _) in columns.into_iter().filter(|(columns, _)| fits(&columns)) {
            let mut chunked = Self { rule, shape, scale, columns, stages: 3, slice, beside: 1 };
            match chunked.shrink(extent) {
                Ok(()) if chunked.stages > 1 || columns <= 32 => return Ok(chunked),
                Ok(()) => {}
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.expect("16 columns are among the tried, as they divide the width"))
    }

    /// Takes less shared memory until a block fits.
    fn shrink(&mut self, extent: Extent) -> Result<(), Error> {
        let limit = extent.shared_bytes as usize;
        while self.slice > 16 && self.gradients_shared_bytes() > limit {
            self.slice /= 2;
        }
        while self.stages > 1 && self.forward_shared_bytes() > limit {
            self.stages -= 1;
        }
        let two_fit = 2 * (self.gradients_shared_bytes() + 1024) <= limit;
        self.beside = if two_fit && !self.is_delta() { 2 } else { 1 };
        super::check_shared(Part::ALL.map(|part| self.part_shared_bytes(part)), limit)
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Value columns of a walking block, chunks in shared memory, value columns of the last kernel.
    pub fn blocks(&self) -> (usize, usize, usize) {
        (self.columns, self.stages, self.slice)
    }

    fn is_delta(&self) -> bool {
        self.rule == Rule::Delta
    }

    /// The constants that the source is compiled with, all kernels in one: for the emulator.
    pub fn defines(&self) -> Vec<(&'static str, u32)> {
        super::each_once(Part::ALL.map(|part| self.part_defines(part)))
    }

    /// The constants of one kernel, which compile that kernel alone.
    pub fn part_defines(&self, part: Part) -> Vec<(&'static str, u32)> {
        let mut defines = vec![
            (part.define(), 1),
            ("DELTA", u32::from(self.is_delta())),
            ("WIDE", u32::from(self.shape.wide)),
            ("KW", self.shape.key_width as u32),
        ];
        match part {
            Part::Prepare => {}
            Part::Forward | Part::Backward => {
                defines.extend([("VB", self.columns as u32), ("STAGES", self.stages as u32)]);
            }
            Part::Gradients => {
                defines.extend([("SLICE", self.slice as u32), ("GRADIENT_BLOCKS", self.beside)]);
            }
        }
        defines
    }

    /// Bytes of shared memory of a block of one kernel.
    pub fn part_shared_bytes(&self, part: Part) -> usize {
        match part {
            Part::Prepare => self.prepare_shared_bytes(),
            Part::Forward => self.forward_shared_bytes(),
            Part::Backward => self.backward_shared_bytes(),
            Part::Gradients => self.gradients_shared_bytes(),
        }
    }

    fn launch(
        &self,
        part: Part,
        grid: (usize, usize),
        threads: usize,
        mut arguments: Arguments,
    ) -> Launch {
        Launch {
            source: Source::Chunked,
            kernel: part.kernel(),
            defines: self.part_defines(part),
            grid: (grid.0 as u32, grid.1 as u32),
            threads: threads as u32,
            shared_bytes: self.part_shared_bytes(part) as u32,
            together: false,
            boxes: Vec::new(),
            arguments: arguments.finish(),
        }
    }

    /// `inverse`, `scores` and `decays` of every chunk.
    pub fn prepare(&self, inputs: &Inputs, to: &Prepared) -> Launch {
        let shape = self.shape;
        let mut arguments = Arguments::default();
        arguments.addresses(&[
            inputs.q.address,
            inputs.k.address,
            inputs.g,
            inputs.beta,
            to.inverse,
            to.scores,
            to.decays,
            inputs.q.stride as u64,
            inputs.k.stride as u64,
        ]);
        arguments.counts(&[shape.tokens, shape.heads, shape.key_heads]);
        arguments.factor(self.scale);
        let grid = (shape.chunks(), shape.batch * shape.key_heads);
        self.launch(Part::Prepare, grid, 128, arguments)
    }

    /// The output, `[B, T, H, V]`. `state` and `state_after` are f32 `[B, H, K, V]`, 0 for zeros and for not
    /// wanted; they may be the same.
    pub fn forward(
        &self,
        inputs: &Inputs,
        prepared: &Prepared,
        state: u64,
        state_after: u64,
        out: u64,
        kept: Option<&Kept>,
    ) -> Launch {
        let shape = self.shape;
        let mut arguments = Arguments::default();
        arguments.addresses(&[
            inputs.q.address,
            inputs.k.address,
            inputs.v.address,
            prepared.inverse,
            prepared.scores,
            prepared.decays,
            state,
            state_after,
            out,
            kept.map_or(0, |kept| kept.corrections),
            kept.map_or(0, |kept| kept.states),
            inputs.q.stride as u64,
            inputs.k.stride as u64,
            inputs.v.stride as u64,
        ]);
        self.extents(&mut arguments);
        let threads = 32 * (2 * self.columns / 16 + 1);
        let grid = (shape.value_width / self.columns, shape.pieces());
        self.launch(Part::Forward, grid, threads, arguments)
    }

    /// The two kernels of the backward pass, in order. `d_state_after` is f32 `[B, H, K, V]`, 0 for zeros.
    pub fn backward(
        &self,
        inputs: &Inputs,
        prepared: &Prepared,
        kept: &Kept,
        d_out: Rows,
        d_state_after: u64,
        to: &Gradients,
    ) -> [Launch; 2] {
        let shape = self.shape;
        let mut walk = Arguments::default();
        walk.addresses(&[
            inputs.q.address,
            inputs.k.address,
            prepared.inverse,
            prepared.scores,
            prepared.decays,
            d_out.address,
            d_state_after,
            to.state,
            to.v,
            to.states,
            inputs.q.stride as u64,
            inputs.k.stride as u64,
            d_out.stride as u64,
        ]);
        self.extents(&mut walk);
        let delta = match self.rule {
            Rule::Delta => {
                Rows { address: kept.corrections, stride: shape.heads * shape.value_width }
            }
            Rule::LinearAttention => inputs.v,
        };
        let mut rest = Arguments::default();
        rest.addresses(&[
            inputs.q.address,
            inputs.k.address,
            delta.address,
            d_out.address,
            to.v,
            kept.states,
            to.states,
            prepared.decays,
            inputs.beta,
            to.q,
            to.k,
            to.g,
            to.beta,
            inputs.q.stride as u64,
            inputs.k.stride as u64,
            delta.stride as u64,
            d_out.stride as u64,
        ]);
        self.extents(&mut rest);
        let grid = (shape.value_width / self.columns, shape.pieces());
        [
            self.launch(Part::Backward, grid, 32 * (self.columns / 16 + 1), walk),
            self.launch(Part::Gradients, (shape.chunks(), shape.pieces()), 256, rest),
        ]
    }

    fn extents(&self, arguments: &mut Arguments) {
        let shape = self.shape;
        arguments.counts(&[shape.tokens, shape.heads, shape.key_heads, shape.value_width]);
        arguments.factor(self.scale);
    }

    /// `PrepareShared::end` of the source.
    fn prepare_shared_bytes(&self) -> usize {
        2 * self.shape.tile(CHUNK, self.shape.key_width).max(CHUNK * (CHUNK + 4) * 4)
            + 4 * CHUNK * 4
    }

    /// The tiles of one chunk that both walks hold.
    fn stage_bytes(&self) -> usize {
        let squares = if self.is_delta() { 2 } else { 1 };
        2 * self.shape.tile(CHUNK, self.shape.key_width)
            + squares * self.shape.tile(CHUNK, CHUNK)
            + self.shape.tile(CHUNK, self.columns)
            + 2 * CHUNK * 4
    }

    /// `ForwardShared::end`.
    fn forward_shared_bytes(&self) -> usize {
        let walkers = self.columns / 16;
        let handover = (self.shape.key_width / 16 + CHUNK / 16) * 512 * self.shape.parts();
        self.stages * self.stage_bytes()
            + walkers * 2 * handover
            + (2 * self.stages + 4 * walkers) * 8
    }

    /// `BackwardShared::end`.
    fn backward_shared_bytes(&self) -> usize {
        self.stages * self.stage_bytes() + 2 * self.stages * 8
    }

    /// `GradientShared::end`.
    fn gradients_shared_bytes(&self) -> usize {
        let key = self.shape.key_width;
        let (rows, squares) = if self.is_delta() { (3, 2) } else { (2, 1) };
        let stage =
            rows * self.shape.tile(CHUNK, self.slice) + 2 * self.shape.tile(self.slice, key);
        2 * self.shape.tile(CHUNK, key)
            + squares * self.shape.tile(CHUNK, CHUNK)
            + 2 * stage
            + 8 * CHUNK * 4
            + 32
    }
}

/// `tile_bytes` of the source.
pub(super) fn tile(rows: usize, columns: usize) -> usize {
    rows * (columns * 2 + 16)
}
