//! Kimi Delta Attention over whole sequences: prefill.
//!
//! `kda_prepare` computes what does not depend on the state, and scales queries and keys by the running products of their
//! decays; the walk over the chunks is that of the delta rule, `chunked_forward` compiled with `CHANNELS`.

pub mod check;

use super::shape::tile;
use super::{CHUNK, Rows};
use crate::cuda::arguments::Arguments;
use crate::cuda::step::Decay;
use crate::cuda::{Error, Extent, Launch, Source, check_shared};

/// One of the two kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the module says what each does")]
pub enum Part {
    Prepare,
    Forward,
}

impl Part {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Prepare, Self::Forward];
}

/// The extents of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// B, sequences.
    pub batch: usize,
    /// T, positions.
    pub tokens: usize,
    /// H.
    pub heads: usize,
    /// K: 32, 64, 96 or 128.
    pub key_width: usize,
    /// V, a multiple of 16.
    pub value_width: usize,
}

impl Shape {
    fn chunks(&self) -> usize {
        self.tokens.div_ceil(CHUNK)
    }

    fn pieces(&self) -> usize {
        self.batch * self.heads
    }

    /// bf16 numbers of one of the two matrices of every chunk, `[B, H, chunks, 64, 64]`.
    pub fn squares_len(&self) -> usize {
        self.pieces() * self.chunks() * CHUNK * CHUNK
    }

    /// f32 values of the decays of whole chunks, `[B, H, chunks, K]`.
    pub fn decays_len(&self) -> usize {
        self.pieces() * self.chunks() * self.key_width
    }

    /// f32 values of the state of all heads, `[B, H, K, V]`.
    pub fn state_len(&self) -> usize {
        self.pieces() * self.key_width * self.value_width
    }

    /// Floating-point operations of the products, as of the gated delta rule ([`super::Shape::flops`]).
    pub fn flops(&self) -> f64 {
        let Self { batch, tokens, heads, key_width, value_width } = *self;
        let (key_heads, wide) = (heads, false);
        super::Shape { batch, tokens, heads, key_heads, key_width, value_width, wide }
            .flops(super::Rule::Delta)
    }

    /// Bytes of q, k, v, o and what the decays come from, in bf16, and β in fp32: what cannot be done without.
    pub fn bytes(&self) -> f64 {
        let row = 2 * (3 * self.key_width + 2 * self.value_width) + 4;
        (self.batch * self.tokens * self.heads * row) as f64
    }
}

/// What the rule reads; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// bf16 `[B, T, H, K]`, of length 1.
    pub q: Rows,
    /// bf16 `[B, T, H, K]`, of length 1.
    pub k: Rows,
    /// bf16 `[B, T, H, V]`.
    pub v: Rows,
    /// `raw` bf16 `[B, T, H, K]`, `a_log` f32 `[H]`, `dt_bias` f32 `[H, K]`: g = −e^A_log softplus(raw + dt_bias).
    pub decay: Decay,
    /// f32 `[B, T, H]`.
    pub beta: u64,
}

/// What [`Kda::prepare`] writes and [`Kda::forward`] reads; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Prepared {
    /// bf16 `[B, T, H, K]`.
    pub queries: u64,
    /// bf16 `[B, T, H, K]`.
    pub keys: u64,
    /// bf16 `[B, T, H, K]`.
    pub keys_after: u64,
    /// bf16, [`Shape::squares_len`].
    pub inverse: u64,
    /// bf16, [`Shape::squares_len`].
    pub scores: u64,
    /// f32, [`Shape::decays_len`].
    pub decays: u64,
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
}

impl Kda {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn new(shape: Shape, scale: f32, extent: Extent) -> Result<Self, Error> {
        let Shape { key_width, value_width, .. } = shape;
        let refuse = |what: &str, expected: &str, got: usize| {
            let (what, expected, got) = (what.to_owned(), expected.to_owned(), got.to_string());
            Err(Error::Shape { what, expected, got })
        };
        if ![32, 64, 96, 128].contains(&key_width) {
            return refuse("the key width", "32, 64, 96 or 128", key_width);
        }
        if value_width == 0 || !value_width.is_multiple_of(16) {
            return refuse("the value width", "a multiple of 16", value_width);
        }
        if shape.batch * shape.tokens * shape.heads == 0 {
            return refuse("the number of positions", "at least 1", shape.batch * shape.tokens);
        }
        // as of the delta rule: wide blocks take longer, but read keys less often and need fewer rounds
        let rounds = |columns: usize| {
            let blocks = shape.pieces() * (value_width / columns);
            blocks.div_ceil(extent.multiprocessors.max(1) as usize) as f64
        };
        let mut columns = [(32, 1.0), (64, 1.6), (16, 0.85)];
        columns.sort_by(|a, b| (a.1 * rounds(a.0)).total_cmp(&(b.1 * rounds(b.0))));
        let limit = extent.shared_bytes as usize;
        let mut fitting = columns.iter().flat_map(|(columns, _)| {
            [3, 2, 1].map(|stages| Self { shape, scale, columns: *columns, stages })
        });
        let fits = |kda: &Self| {
            value_width.is_multiple_of(kda.columns)
                && kda.forward_shared_bytes() <= limit
                && (kda.stages > 1 || kda.columns == 16)
        };
        let least = Self { shape, scale, columns: 16, stages: 1 };
        let chosen = fitting.find(fits).unwrap_or(least);
        check_shared(Part::ALL.map(|part| chosen.part_shared_bytes(part)), limit)?;
        Ok(chosen)
    }

    /// The constants of one kernel, which compile that kernel alone.
    pub fn part_defines(&self, part: Part) -> Vec<(&'static str, u32)> {
        let mut defines = vec![("DELTA", 1), ("WIDE", 0), ("KW", self.shape.key_width as u32)];
        match part {
            Part::Prepare => defines.push(("KDA_PREPARE", 1)),
            Part::Forward => {
                let (columns, stages) = (self.columns as u32, self.stages as u32);
                let walk = [("FORWARD", 1), ("CHANNELS", 1), ("VB", columns), ("STAGES", stages)];
                defines.extend(walk);
            }
        }
        defines
    }

    /// Bytes of shared memory of a block of one kernel.
    pub fn part_shared_bytes(&self, part: Part) -> usize {
        match part {
            Part::Prepare => self.prepare_shared_bytes(),
            Part::Forward => self.forward_shared_bytes(),
        }
    }

    /// `KdaShared::end` of the source.
    fn prepare_shared_bytes(&self) -> usize {
        let width = self.shape.key_width;
        2 * tile(CHUNK, width) + CHUNK * (width + 4) * 4 + CHUNK * (CHUNK + 4) * 4 + CHUNK * 4
    }

    /// `ForwardShared::end`.
    fn forward_shared_bytes(&self) -> usize {
        let width = self.shape.key_width;
        let stage =
            3 * tile(CHUNK, width) + 2 * tile(CHUNK, CHUNK) + tile(CHUNK, self.columns) + 4 * width;
        let walkers = self.columns / 16;
        let handover = (width / 16 + CHUNK / 16) * 512;
        self.stages * stage + walkers * 2 * handover + (2 * self.stages + 4 * walkers) * 8
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
            kernel: match part {
                Part::Prepare => "kda_prepare",
                Part::Forward => "chunked_forward",
            },
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
        let Inputs { q, k, decay, beta, .. } = *inputs;
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[q.address, k.address, decay.raw.address])
            .addresses(&[decay.a_log, decay.dt_bias, beta])
            .addresses(&[to.queries, to.keys, to.keys_after, to.inverse, to.scores, to.decays])
            .addresses(&[q.stride, k.stride, decay.raw.stride].map(|stride| stride as u64))
            .counts(&[self.shape.tokens, self.shape.heads])
            .factor(self.scale);
        let grid = (self.shape.chunks(), self.shape.pieces());
        self.launch(Part::Prepare, grid, 128, &mut arguments)
    }

    /// The output, bf16 `[B, T, H, V]`. The states before and after are f32 `[B, H, K, V]`, 0 for zeros and for not wanted;
    /// they may be the same.
    pub fn forward(
        &self,
        inputs: &Inputs,
        prepared: &Prepared,
        (state, state_after): (u64, u64),
        out: u64,
    ) -> Launch {
        let Shape { tokens, heads, key_width, value_width, .. } = self.shape;
        let keys = (heads * key_width) as u64;
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[prepared.queries, prepared.keys, inputs.v.address])
            .addresses(&[prepared.inverse, prepared.scores, prepared.decays])
            .addresses(&[state, state_after, out, 0, 0, prepared.keys_after])
            .addresses(&[keys, keys, inputs.v.stride as u64])
            .counts(&[tokens, heads, heads, value_width])
            .factor(self.scale);
        let threads = 32 * (2 * self.columns / 16 + 1);
        let grid = (value_width / self.columns, self.shape.pieces());
        self.launch(Part::Forward, grid, threads, &mut arguments)
    }
}
