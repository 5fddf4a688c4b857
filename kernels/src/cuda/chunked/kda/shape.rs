//! The extents of the kernels of Kimi Delta Attention, and what they read and write.

use crate::cuda::chunked::{self, CHUNK, Rows, Rule};
use crate::cuda::step::Decay;

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
    /// Whether numbers are f32, else bf16; decays, β and the states before and after are always f32.
    pub wide: bool,
}

impl Shape {
    /// That of a delta rule with as many heads of keys.
    fn of_delta(&self) -> chunked::Shape {
        let Self { batch, tokens, heads, key_width, value_width, wide } = *self;
        chunked::Shape { batch, tokens, heads, key_heads: heads, key_width, value_width, wide }
    }

    /// Of a number.
    pub fn number_bytes(&self) -> usize {
        self.of_delta().number_bytes()
    }

    pub(super) fn parts(&self) -> usize {
        self.of_delta().parts()
    }

    pub(super) fn tile(&self, rows: usize, columns: usize) -> usize {
        self.of_delta().tile(rows, columns)
    }

    pub(super) fn chunks(&self) -> usize {
        self.of_delta().chunks()
    }

    pub(super) fn pieces(&self) -> usize {
        self.of_delta().pieces()
    }

    /// Values of `[B, T, H]`.
    pub fn rows(&self) -> usize {
        self.of_delta().rows()
    }

    /// Numbers of one of the two matrices of every chunk, `[B, H, chunks, 64, 64]`.
    pub fn squares_len(&self) -> usize {
        self.of_delta().squares_len()
    }

    /// f32 values of the decays of whole chunks, `[B, H, chunks, K]`.
    pub fn decays_len(&self) -> usize {
        self.pieces() * self.chunks() * self.key_width
    }

    /// Numbers of the states before every chunk, `[B, H, chunks, V, K]`.
    pub fn states_len(&self) -> usize {
        self.of_delta().states_len()
    }

    /// f32 values of the state of all heads, `[B, H, K, V]`.
    pub fn state_len(&self) -> usize {
        self.of_delta().state_len()
    }

    /// Floating-point operations of the products of a forward pass, as of the gated delta rule ([`chunked::Shape::flops`]).
    pub fn flops(&self) -> f64 {
        self.of_delta().flops(Rule::Delta)
    }

    /// Bytes of q, k, v, o and what the decays come from (g in fp32 where it is `logarithms`, else a number), and β in
    /// fp32: what a forward pass cannot do without.
    pub fn bytes(&self, logarithms: bool) -> f64 {
        let decay = if logarithms { 4 } else { self.number_bytes() };
        let row = self.number_bytes() * 2 * (self.key_width + self.value_width);
        (self.rows() * (row + decay * self.key_width + 4)) as f64
    }
}

/// Where the decays come from; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub enum Decays {
    /// `raw` bf16 `[B, T, H, K]`, `a_log` f32 `[H]`, `dt_bias` f32 `[H, K]`: g = −e^A_log softplus(raw + dt_bias).
    Raw(Decay),
    /// g, the logarithms of the decays, f32 `[B, T, H, K]`.
    Logarithms(Rows),
}

/// What the rule reads; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// `[B, T, H, K]`, of length 1.
    pub q: Rows,
    /// `[B, T, H, K]`, of length 1.
    pub k: Rows,
    /// `[B, T, H, V]`.
    pub v: Rows,
    /// What each channel forgets at each position.
    pub decays: Decays,
    /// f32 `[B, T, H]`.
    pub beta: u64,
}

/// What [`super::Kda::prepare`] writes and the walks read; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Prepared {
    /// Numbers, `[B, T, H, K]`.
    pub queries: u64,
    /// Numbers, `[B, T, H, K]`.
    pub keys: u64,
    /// Numbers, `[B, T, H, K]`.
    pub keys_after: u64,
    /// Numbers, [`Shape::squares_len`].
    pub inverse: u64,
    /// Numbers, [`Shape::squares_len`].
    pub scores: u64,
    /// f32, [`Shape::decays_len`].
    pub decays: u64,
}

/// Positions of a piece of a chunk: `KDA_PIECE` of the source.
const PIECE: usize = 16;

/// `KdaGradientShared::end` of the source, of slices of so many value columns.
pub(super) fn gradients_shared_bytes(shape: &Shape, slice: usize) -> usize {
    let width = shape.key_width;
    let key_tile = shape.tile(CHUNK, width);
    let stage = 3 * shape.tile(CHUNK, slice) + 2 * shape.tile(slice, width);
    let tiles = 2 * shape.tile(CHUNK, CHUNK) + 3 * key_tile;
    let staged = 8 * 3 * PIECE * (width / 2 + 8) * 4;
    let own = 2 * 4 * PIECE * PIECE * 4;
    let reused = tiles.max(staged).max(256 * 8 * 4) + own;
    2 * key_tile + (4 + 16 + 1) * width * 4 + reused.max(2 * stage)
}
