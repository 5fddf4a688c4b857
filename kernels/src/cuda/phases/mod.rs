//! Selective RoPE (arXiv 2511.17388) of whole sequences, or of one token of each: the angles, and queries and keys turned by
//! them.

use super::arguments::Arguments;
use super::chunked::Rows;
use super::{Error, Launch, Source, check_grid};

const THREADS: usize = 256;
/// Positions whose turns are summed by one thread.
const SPAN: usize = 32;

/// The launches of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// B.
    pub batch: usize,
    /// T; of a step 1.
    pub tokens: usize,
    /// Heads that turn on their own: those of k.
    pub heads: usize,
    /// Angles of a head, K/2: a multiple of 8.
    pub half: usize,
}

/// What the angles are made of; addresses of f32 on the device.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// `[H·K/2, 4]`
    pub taps: u64,
    /// e^b, `[H·K/2]`; 0: none.
    pub bias: u64,
    /// b_g, `[H]`; not read without a gate.
    pub gate_bias: u64,
    /// τ, `[K/2]`
    pub temperatures: u64,
}

/// What a sequence leaves, and scratch memory; addresses of f32 on the device.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// `[B, 4, H·K/2]`; need not be initialised.
    pub ring: u64,
    /// `[B, H·K/2]`; need not be initialised.
    pub angles: u64,
    /// [`Phases::turns_len`].
    pub turns: u64,
    /// [`Phases::spans_len`].
    pub spans: u64,
}

/// Heads side by side in a row, each turned by the angles of a head of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// The first: of queries.
    pub queries: usize,
    /// All of them: behind the queries keys in their order, perhaps several times.
    pub all: usize,
}

impl Phases {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        let &Self { batch, tokens, heads, half } = self;
        if half.is_multiple_of(8) && batch * tokens * heads * half > 0 {
            return check_grid("spans of 32 positions", batch * tokens.div_ceil(SPAN));
        }
        Err(Error::Shape {
            what: "Selective RoPE".to_owned(),
            expected: "heads as wide as a multiple of 16, and at least one position".to_owned(),
            got: format!("{heads} of {} at {} positions", 2 * half, batch * tokens),
        })
    }

    /// f32 values of the sums inside spans.
    pub fn turns_len(&self) -> usize {
        self.batch * self.tokens * self.heads * self.half
    }

    /// f32 values of the sums of spans.
    pub fn spans_len(&self) -> usize {
        self.batch * self.tokens.div_ceil(SPAN) * self.heads * self.half
    }

    /// The constants of the source.
    pub fn defines() -> Vec<(&'static str, u32)> {
        vec![("WIDE", 0), ("SPAN", SPAN as u32)]
    }

    fn launch(kernel: &'static str, grid: (usize, usize), arguments: Vec<u8>) -> Launch {
        Launch {
            source: Source::Phases,
            kernel,
            defines: Self::defines(),
            grid: (grid.0 as u32, grid.1 as u32),
            threads: THREADS as u32,
            shared_bytes: 0,
            together: false,
            boxes: Vec::new(),
            arguments,
        }
    }

    fn arguments(
        &self,
        [psi, gate]: [Rows; 2],
        weights: &Weights,
        memory: &Memory,
        positions: u64,
    ) -> Vec<u8> {
        let Weights { taps, bias, gate_bias, temperatures } = *weights;
        let Memory { ring, angles, turns, spans } = *memory;
        Arguments::default()
            .addresses(&[psi.address, gate.address, taps, bias, gate_bias, temperatures])
            .addresses(&[ring, angles, turns, spans, positions])
            .addresses(&[psi.stride as u64, gate.stride as u64])
            .counts(&[self.batch, self.tokens, self.heads, self.half])
            .finish()
    }

    /// The angles of whole sequences from the beginning, from ψ f32 `[B, T, H·K/2]` and the gate before its bias and σ, f32
    /// `[B, T, H]` (address 0: there is none).
    pub fn sums(&self, rows: [Rows; 2], weights: &Weights, memory: &Memory) -> [Launch; 2] {
        let blocks = (self.heads * self.half).div_ceil(THREADS);
        let spans = self.batch * self.tokens.div_ceil(SPAN);
        let arguments = self.arguments(rows, weights, memory, 0);
        [
            Self::launch("phases_spans", (blocks, spans), arguments.clone()),
            Self::launch("phases_sums", (blocks, self.batch), arguments),
        ]
    }

    /// The angles of one position of each sequence; `positions` is u32 `[B]`.
    pub fn step(
        &self,
        rows: [Rows; 2],
        weights: &Weights,
        memory: &Memory,
        positions: u64,
    ) -> Launch {
        let blocks = (self.heads * self.half).div_ceil(THREADS);
        let arguments = self.arguments(rows, weights, memory, positions);
        Self::launch("phases_step", (blocks, self.batch), arguments)
    }

    /// Turns bf16 rows `[B, T, heads, K]` in place by the angles of [`Self::sums`], or of [`Self::step`] if `steps`.
    pub fn turn(&self, x: Rows, heads: Heads, memory: &Memory, steps: bool) -> Launch {
        let Heads { queries, all } = heads;
        let rows = self.batch * self.tokens;
        let spans = if steps { 0 } else { memory.spans };
        let arguments = Arguments::default()
            .addresses(&[x.address, memory.turns, spans, x.stride as u64])
            .counts(&[rows, self.tokens, all, queries, (queries / self.heads).max(1)])
            .counts(&[self.heads, self.half])
            .finish();
        let items = rows * all * self.half / 8;
        Self::launch("phases_turn", (items.div_ceil(THREADS), 1), arguments)
    }
}
