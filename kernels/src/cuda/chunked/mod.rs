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
pub mod kda;
pub mod log_linear;
mod shape;

use super::arguments::Arguments;
use super::{Error, Extent, Launch, Source, check_grid};
pub(super) use shape::tile;
pub use shape::{CHUNK, Gradients, Inputs, Kept, Prepared, Rows, Shape, check_widths};

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
        check_widths(key_width, value_width)?;
        if shape.batch * shape.tokens == 0 {
            return refuse("the number of positions", "at least 1", shape.batch * shape.tokens);
        }
        if key_heads == 0 || !heads.is_multiple_of(key_heads) {
            return refuse("the number of heads", "a multiple of that of the key heads", heads);
        }
        check_grid("sequences times heads", shape.pieces())?;
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
