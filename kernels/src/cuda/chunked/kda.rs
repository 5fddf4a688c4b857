//! Kimi Delta Attention over whole sequences: prefill, and the forward and backward passes of training.
//!
//! `kda_prepare` computes what does not depend on the state, and scales queries and keys by the running products of their
//! decays; the walks over the chunks are those of the delta rule, `chunked_forward` and `chunked_backward` compiled with
//! `CHANNELS`; `kda_gradients` forms the gradients that need the states on both sides of a chunk. Prefill takes the decays
//! as the projection leaves them, training their logarithms ([`decays`]). Numbers are bf16 or, in training, fp32.

pub mod check;
pub mod decays;
mod shape;

pub use shape::{Decays, Inputs, Prepared, Shape};

use super::{CHUNK, Gradients, Kept, Rows, check_widths};
use crate::cuda::arguments::Arguments;
use crate::cuda::{Error, Extent, Launch, Source, check_grid, check_shared, each_once};

/// One of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What does not depend on the state, from raw decays.
    PrepareRaw,
    /// The same from the decays' logarithms.
    Prepare,
    /// The walk over the chunks.
    Forward,
    /// The walk back.
    Backward,
    /// The gradients of q, k, g and β.
    Gradients,
}

impl Part {
    /// What prefill starts.
    pub const PREFILL: &'static [Self] = &[Self::PrepareRaw, Self::Forward];
    /// What training starts.
    pub const TRAINING: &'static [Self] =
        &[Self::Prepare, Self::Forward, Self::Backward, Self::Gradients];

    fn kernel(self) -> &'static str {
        match self {
            Self::PrepareRaw | Self::Prepare => "kda_prepare",
            Self::Forward => "chunked_forward",
            Self::Backward => "chunked_backward",
            Self::Gradients => "kda_gradients",
        }
    }
}

/// The launches at one shape.
#[derive(Debug, Clone, Copy)]
pub struct Kda {
    shape: Shape,
    scale: f32,
    /// Value columns of a walking block.
    columns: usize,
    /// Chunks in shared memory.
    stages: usize,
    /// Value columns that the last kernel takes at a time.
    slice: usize,
}

impl Kda {
    /// Of whole sequences alone.
    ///
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn prefill(shape: Shape, scale: f32, extent: Extent) -> Result<Self, Error> {
        Self::new(shape, scale, extent, Part::PREFILL)
    }

    /// Forward and backward.
    ///
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn training(shape: Shape, scale: f32, extent: Extent) -> Result<Self, Error> {
        Self::new(shape, scale, extent, Part::TRAINING)
    }

    fn new(shape: Shape, scale: f32, extent: Extent, parts: &[Part]) -> Result<Self, Error> {
        let Shape { key_width, value_width, .. } = shape;
        let refuse = |what: &str, expected: &str, got: usize| {
            let (what, expected, got) = (what.to_owned(), expected.to_owned(), got.to_string());
            Err(Error::Shape { what, expected, got })
        };
        check_widths(key_width, value_width)?;
        if shape.rows() == 0 {
            return refuse("the number of positions", "at least 1", shape.batch * shape.tokens);
        }
        check_grid("sequences times heads", shape.pieces())?;
        // as of the delta rule: wide blocks take longer, but read keys less often and need fewer rounds
        let rounds = |columns: usize| {
            let blocks = shape.pieces() * (value_width / columns);
            blocks.div_ceil(extent.multiprocessors.max(1) as usize) as f64
        };
        let mut columns = [(32, 1.0), (64, 1.6), (16, 0.85)];
        columns.sort_by(|a, b| (a.1 * rounds(a.0)).total_cmp(&(b.1 * rounds(b.0))));
        let limit = extent.shared_bytes as usize;
        let slice = [64, 32].into_iter().find(|slice| {
            value_width.is_multiple_of(*slice)
                && shape::gradients_shared_bytes(&shape, *slice) <= limit
        });
        let slice = slice.unwrap_or(16);
        let mut fitting = columns.iter().flat_map(|(columns, _)| {
            [3, 2, 1].map(|stages| Self { shape, scale, columns: *columns, stages, slice })
        });
        // in fp32 a second chunk fits beside no other
        let fits = |kda: &Self| {
            value_width.is_multiple_of(kda.columns)
                && kda.forward_shared_bytes() <= limit
                && (kda.stages > 1 || kda.columns == 16 || shape.wide && kda.columns == 32)
        };
        let least = Self { shape, scale, columns: 16, stages: 1, slice };
        let chosen = fitting.find(fits).unwrap_or(least);
        for part in parts {
            check_shared([chosen.part_shared_bytes(*part)], limit)?;
        }
        Ok(chosen)
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Value columns of a walking block, chunks in shared memory, value columns of the last kernel.
    pub fn blocks(&self) -> (usize, usize, usize) {
        (self.columns, self.stages, self.slice)
    }

    /// The constants that the source is compiled with, all kernels of training in one: for the emulator.
    pub fn training_defines(&self) -> Vec<(&'static str, u32)> {
        let [prepare, forward, backward, gradients] = Part::TRAINING else {
            unreachable!("four kernels train")
        };
        each_once([prepare, forward, backward, gradients].map(|part| self.part_defines(*part)))
    }

    /// The constants of one kernel, which compile that kernel alone.
    pub fn part_defines(&self, part: Part) -> Vec<(&'static str, u32)> {
        let wide = u32::from(self.shape.wide);
        let mut defines = vec![("DELTA", 1), ("WIDE", wide), ("KW", self.shape.key_width as u32)];
        let (columns, stages) = (self.columns as u32, self.stages as u32);
        let walk = [("CHANNELS", 1), ("VB", columns), ("STAGES", stages)];
        match part {
            Part::PrepareRaw => defines.extend([("KDA_PREPARE", 1), ("RAW", 1)]),
            Part::Prepare => defines.extend([("KDA_PREPARE", 1), ("RAW", 0)]),
            Part::Forward => defines.extend([("FORWARD", 1)].into_iter().chain(walk)),
            Part::Backward => defines.extend([("BACKWARD", 1)].into_iter().chain(walk)),
            Part::Gradients => {
                defines.extend([("KDA_GRADIENTS", 1), ("SLICE", self.slice as u32)]);
            }
        }
        defines
    }

    /// Bytes of shared memory of a block of one kernel.
    pub fn part_shared_bytes(&self, part: Part) -> usize {
        match part {
            Part::PrepareRaw | Part::Prepare => self.prepare_shared_bytes(),
            Part::Forward => self.forward_shared_bytes(),
            Part::Backward => self.stages * self.stage_bytes() + 2 * self.stages * 8,
            Part::Gradients => shape::gradients_shared_bytes(&self.shape, self.slice),
        }
    }

    /// `KdaShared::end` of the source.
    fn prepare_shared_bytes(&self) -> usize {
        let width = self.shape.key_width;
        let decays = CHUNK * (width + 4) * 4 + 4 * width * 4;
        2 * self.shape.tile(CHUNK, width) + decays + CHUNK * (CHUNK + 4) * 4 + CHUNK * 4
    }

    /// The tiles of one chunk that both walks hold.
    fn stage_bytes(&self) -> usize {
        let (shape, width) = (&self.shape, self.shape.key_width);
        3 * shape.tile(CHUNK, width)
            + 2 * shape.tile(CHUNK, CHUNK)
            + shape.tile(CHUNK, self.columns)
            + 4 * width
    }

    /// `ForwardShared::end`.
    fn forward_shared_bytes(&self) -> usize {
        let walkers = self.columns / 16;
        let handover = (self.shape.key_width / 16 + CHUNK / 16) * 512 * self.shape.parts();
        self.stages * self.stage_bytes()
            + walkers * 2 * handover
            + (2 * self.stages + 4 * walkers) * 8
    }

    fn launch(
        &self,
        part: Part,
        grid: (usize, usize),
        threads: usize,
        arguments: &mut Arguments,
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

    /// What does not depend on the state, of every chunk.
    pub fn prepare(&self, inputs: &Inputs, to: &Prepared) -> Launch {
        let Inputs { q, k, decays, beta, .. } = *inputs;
        let mut arguments = Arguments::default();
        arguments.addresses(&[q.address, k.address]);
        let (part, row) = match decays {
            Decays::Raw(decay) => {
                arguments.addresses(&[decay.raw.address, decay.a_log, decay.dt_bias]);
                (Part::PrepareRaw, decay.raw.stride)
            }
            Decays::Logarithms(g) => {
                arguments.addresses(&[g.address]);
                (Part::Prepare, g.stride)
            }
        };
        arguments
            .addresses(&[beta, to.queries, to.keys, to.keys_after])
            .addresses(&[to.inverse, to.scores, to.decays])
            .addresses(&[q.stride, k.stride, row].map(|stride| stride as u64))
            .counts(&[self.shape.tokens, self.shape.heads])
            .factor(self.scale);
        let grid = (self.shape.chunks(), self.shape.pieces());
        self.launch(part, grid, 128, &mut arguments)
    }

    /// The output, numbers `[B, T, H, V]`, and what a backward pass wants `kept`. The states before and after are f32
    /// `[B, H, K, V]`, 0 for zeros and for not wanted; they may be the same.
    pub fn forward(
        &self,
        inputs: &Inputs,
        prepared: &Prepared,
        (state, state_after): (u64, u64),
        out: u64,
        kept: Option<&Kept>,
    ) -> Launch {
        let (corrections, states) = kept.map_or((0, 0), |kept| (kept.corrections, kept.states));
        let keys = self.key_row();
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[prepared.queries, prepared.keys, inputs.v.address])
            .addresses(&[prepared.inverse, prepared.scores, prepared.decays])
            .addresses(&[state, state_after, out, corrections, states, prepared.keys_after])
            .addresses(&[keys, keys, inputs.v.stride as u64]);
        self.walk_extents(&mut arguments);
        let threads = 32 * (2 * self.columns / 16 + 1);
        self.launch(Part::Forward, self.walk_grid(), threads, &mut arguments)
    }

    /// The two kernels of the backward pass, in order. `d_state_after` is f32 `[B, H, K, V]`, 0 for zeros; the gradient of g
    /// is f32 `[B, T, H, K]`.
    ///
    /// # Panics
    /// When the decays are raw: their gradient is that of their logarithms.
    pub fn backward(
        &self,
        inputs: &Inputs,
        prepared: &Prepared,
        kept: &Kept,
        d_out: Rows,
        d_state_after: u64,
        to: &Gradients,
    ) -> [Launch; 2] {
        let Inputs { q, k, decays, beta, .. } = *inputs;
        let Decays::Logarithms(g) = decays else { panic!("training takes logarithms of decays") };
        let keys = self.key_row();
        let mut walk = Arguments::default();
        walk.addresses(&[prepared.queries, prepared.keys, prepared.inverse, prepared.scores])
            .addresses(&[prepared.decays, d_out.address, d_state_after, to.state, to.v, to.states])
            .addresses(&[prepared.keys_after, keys, keys, d_out.stride as u64]);
        self.walk_extents(&mut walk);
        let Shape { tokens, heads, value_width, .. } = self.shape;
        let mut rest = Arguments::default();
        rest.addresses(&[q.address, k.address, g.address, kept.corrections, d_out.address, to.v])
            .addresses(&[kept.states, to.states, prepared.decays, beta])
            .addresses(&[to.q, to.k, to.g, to.beta])
            .addresses(&[q.stride, k.stride, g.stride, d_out.stride].map(|stride| stride as u64))
            .counts(&[tokens, heads, value_width])
            .factor(self.scale);
        let grid = (self.shape.chunks(), self.shape.pieces());
        let walkers = self.columns / 16;
        [
            self.launch(Part::Backward, self.walk_grid(), 32 * (walkers + 1), &mut walk),
            self.launch(Part::Gradients, grid, 256, &mut rest),
        ]
    }

    /// Elements of a row of what `kda_prepare` wrote.
    fn key_row(&self) -> u64 {
        (self.shape.heads * self.shape.key_width) as u64
    }

    fn walk_grid(&self) -> (usize, usize) {
        (self.shape.value_width / self.columns, self.shape.pieces())
    }

    fn walk_extents(&self, arguments: &mut Arguments) {
        let Shape { tokens, heads, value_width, .. } = self.shape;
        arguments.counts(&[tokens, heads, heads, value_width]).factor(self.scale);
    }
}
