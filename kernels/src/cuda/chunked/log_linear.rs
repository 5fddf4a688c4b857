//! The log-linear forms over whole sequences: prefill (arXiv 2506.04761).
//!
//! What a position reads of its own chunk is one product more; what it reads of earlier chunks is the rule's own walk, once
//! for each level, over pairs of spans that all run at once. Sums over levels are fp32.

use super::shape::tile;
use super::{CHUNK, Chunked, Inputs, Part, Prepared, Rows};
use crate::cuda::arguments::Arguments;
use crate::cuda::{Error, Extent, Launch, Source, check_shared};

/// The level that the first pair of chunks has: those below it lie inside a chunk.
const FIRST: usize = CHUNK.ilog2() as usize + 1;
const THREADS: usize = 128;
/// Value columns of a block of the last kernel.
const LAST_COLUMNS: usize = 16;
/// Levels of the largest mixer, `MOST_LEVELS` of the source.
const MOST_LEVELS: usize = 33;

/// What λ comes from; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Scales {
    /// bf16 `[B, T, H · levels]`.
    pub raw: Rows,
    /// L, f32 `[H, levels]`: λ = softplus(L ⊙ raw).
    pub scales: u64,
}

/// Scratch memory; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    /// What the rule prepares.
    pub prepared: Prepared,
    /// f32 `[B, T, H, levels]`.
    pub lambda: u64,
    /// f32 `[B, T, H, V]`.
    pub sums: u64,
}

/// The states that are left, f32 `[levels, B, H, K, V]` at an address on the device.
#[derive(Debug, Clone, Copy)]
pub struct States {
    /// Address.
    pub address: u64,
    /// Levels that there is memory for: [`crate::log_linear::levels_within`] of all positions to come.
    pub levels: usize,
}

/// The launches of one rule at one shape.
#[derive(Debug, Clone)]
pub struct LogLinear {
    chunked: Chunked,
    /// That there are scales for.
    levels: usize,
}

impl LogLinear {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn new(chunked: Chunked, levels: usize, extent: Extent) -> Result<Self, Error> {
        let refuse = |what: &str, expected: &str, got: &str| {
            let (what, expected, got) = (what.to_owned(), expected.to_owned(), got.to_owned());
            Err(Error::Shape { what, expected, got })
        };
        if chunked.shape.wide {
            return refuse("the numbers of log-linear prompts", "bf16", "fp32");
        }
        if !(2..=MOST_LEVELS).contains(&levels) {
            return refuse("the levels of a log-linear mixer", "2 to 33", &levels.to_string());
        }
        let log_linear = Self { chunked, levels };
        check_shared([log_linear.inside_shared_bytes()], extent.shared_bytes as usize)?;
        Ok(log_linear)
    }

    /// The constants of the kernels of this module, and the shared memory of the one that wants most.
    pub fn defines(&self) -> (Vec<(&'static str, u32)>, usize) {
        let mut defines = self.chunked.part_defines(Part::Prepare);
        defines.retain(|(name, _)| *name != "PREPARE");
        defines.extend([("LOG_LINEAR", 1), ("SLICE", self.slice() as u32)]);
        (defines, self.inside_shared_bytes())
    }

    /// The constants of the walk, and its shared memory.
    pub fn walk_defines(&self) -> (Vec<(&'static str, u32)>, usize) {
        let mut defines = self.chunked.part_defines(Part::Forward);
        defines.push(("LEVELS", 1));
        (defines, self.chunked.part_shared_bytes(Part::Forward))
    }

    fn slice(&self) -> usize {
        let width = self.chunked.shape.value_width;
        [64, 32].into_iter().find(|slice| width.is_multiple_of(*slice)).unwrap_or(16)
    }

    /// `InsideShared::end` of the source.
    fn inside_shared_bytes(&self) -> usize {
        2 * tile(CHUNK, CHUNK) + tile(CHUNK, self.slice()) + CHUNK * MOST_LEVELS * 4
    }

    fn launch(
        &self,
        kernel: &'static str,
        grid: (usize, usize),
        (threads, shared_bytes): (usize, usize),
        arguments: &mut Arguments,
    ) -> Launch {
        Launch {
            source: Source::Chunked,
            kernel,
            defines: self.defines().0,
            grid: (grid.0 as u32, grid.1 as u32),
            threads: threads as u32,
            shared_bytes: shared_bytes as u32,
            together: false,
            boxes: Vec::new(),
            arguments: arguments.finish(),
        }
    }

    /// From an empty past: out, bf16 `[B, T, H, V]`, and the states that the last position leaves.
    pub fn forward(
        &self,
        inputs: &Inputs,
        scales: Scales,
        scratch: &Scratch,
        states: States,
        out: u64,
    ) -> Vec<Launch> {
        let shape = self.chunked.shape;
        let positions = shape.batch * shape.tokens;
        let mut launches = vec![self.chunked.prepare(inputs, &scratch.prepared)];
        let columns = shape.heads * self.levels;
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[scales.raw.address, scales.scales, scratch.lambda])
            .addresses(&[scales.raw.stride as u64])
            .counts(&[positions, columns]);
        let grid = ((positions * columns).div_ceil(256), 1);
        launches.push(self.launch("log_linear_scales", grid, (256, 0), &mut arguments));
        launches.push(self.inside(inputs, scratch));
        launches.extend(self.walks(inputs, scratch, states));
        launches.push(self.last(inputs, scratch, states));
        let pieces = positions * shape.heads * shape.value_width / 8;
        let mut arguments = Arguments::default();
        arguments.addresses(&[scratch.sums, out, pieces as u64]);
        let grid = (pieces.div_ceil(256), 1);
        launches.push(self.launch("log_linear_finish", grid, (256, 0), &mut arguments));
        launches
    }

    /// What positions read of their own chunk.
    fn inside(&self, inputs: &Inputs, scratch: &Scratch) -> Launch {
        let shape = self.chunked.shape;
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[inputs.v.address, scratch.prepared.inverse, scratch.prepared.scores])
            .addresses(&[scratch.lambda, scratch.sums, inputs.v.stride as u64])
            .counts(&[shape.tokens, shape.heads, shape.value_width, self.levels]);
        let block = (THREADS, self.inside_shared_bytes());
        let grid = (shape.chunks(), shape.pieces());
        self.launch("log_linear_inside", grid, block, &mut arguments)
    }

    /// What they read of earlier chunks, a launch for each level.
    fn walks(&self, inputs: &Inputs, scratch: &Scratch, states: States) -> Vec<Launch> {
        let Chunked { shape, columns, scale, .. } = self.chunked;
        let chunks = shape.chunks();
        let level_of = |b: usize, levels: usize| (FIRST + b).min(levels - 1);
        let is_left = |b: usize| (chunks - 1) >> b & 1 == 1;
        let level_bytes = 4 * shape.state_len();
        let (defines, shared_bytes) = self.walk_defines();
        (0..chunks.next_power_of_two().ilog2() as usize)
            .map(|b| {
                let span = 1 << b;
                let pairs = (chunks - span).div_ceil(2 * span);
                let to = level_of(b, states.levels);
                let adds =
                    (0..b).any(|below| is_left(below) && level_of(below, states.levels) == to);
                let mut arguments = Arguments::default();
                arguments
                    .addresses(&[inputs.q.address, inputs.k.address, inputs.v.address])
                    .addresses(&[scratch.prepared.inverse, scratch.prepared.scores])
                    .addresses(&[scratch.prepared.decays, 0])
                    .addresses(&[states.address + (to * level_bytes) as u64, 0, 0, 0])
                    .addresses(&[scratch.lambda, scratch.sums])
                    .addresses(&[inputs.q, inputs.k, inputs.v].map(|rows| rows.stride as u64))
                    .counts(&[shape.tokens, shape.heads, shape.key_heads, shape.value_width])
                    .factor(scale)
                    .counts(&[span, level_of(b, self.levels), self.levels, usize::from(adds)]);
                Launch {
                    source: Source::Chunked,
                    kernel: Part::Forward.kernel(),
                    defines: defines.clone(),
                    grid: ((pairs * shape.value_width / columns) as u32, shape.pieces() as u32),
                    threads: (32 * (2 * columns / 16 + 1)) as u32,
                    shared_bytes: shared_bytes as u32,
                    together: false,
                    boxes: Vec::new(),
                    arguments: arguments.finish(),
                }
            })
            .collect()
    }

    /// The states of the levels inside the last chunk.
    fn last(&self, inputs: &Inputs, scratch: &Scratch, states: States) -> Launch {
        let shape = self.chunked.shape;
        // a last level that is as low as those holds all chunks before, too
        let adds = states.levels <= FIRST && shape.chunks() > 1;
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[inputs.k.address, inputs.v.address, scratch.prepared.inverse])
            .addresses(&[scratch.prepared.decays, states.address])
            .addresses(&[inputs.k.stride, inputs.v.stride, shape.state_len()].map(|n| n as u64))
            .counts(&[shape.tokens, shape.heads, shape.key_heads, shape.value_width])
            .counts(&[states.levels, usize::from(adds)]);
        let grid = (shape.value_width / LAST_COLUMNS, shape.pieces());
        let block = (THREADS, CHUNK * LAST_COLUMNS * 4);
        self.launch("log_linear_last", grid, block, &mut arguments)
    }

    /// f32 values of the sums.
    pub fn sums_len(&self) -> usize {
        self.chunked.shape.rows() * self.chunked.shape.value_width
    }

    /// f32 values of λ.
    pub fn lambda_len(&self) -> usize {
        self.chunked.shape.rows() * self.levels
    }
}
