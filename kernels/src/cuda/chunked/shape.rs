//! The extents of the chunked kernels, and what they read and write.

use super::Rule;
use crate::cuda::Error;

/// Positions of a chunk.
pub const CHUNK: usize = 64;

/// Whether the kernels of this module cover states of K × V, on any machine and of any rule.
///
/// # Errors
/// With the width that they do not cover.
pub fn check_widths(key_width: usize, value_width: usize) -> Result<(), Error> {
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
    Ok(())
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
    pub(super) fn parts(&self) -> usize {
        if self.wide { 2 } else { 1 }
    }

    /// A tile of numbers in shared memory, `tile_bytes` of the source.
    pub(super) fn tile(&self, rows: usize, columns: usize) -> usize {
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

    /// Numbers of one of the two matrices that [`super::Chunked::prepare`] writes for each chunk, `[B, H, chunks, 64, 64]`.
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

/// What [`super::Chunked::prepare`] writes and the others read; addresses on the device.
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
    /// f32 `[B, T, H]`; 0: not wanted. Of a decay for each channel ([`super::kda`]) `[B, T, H, K]`, always wanted.
    pub g: u64,
    /// f32 `[B, T, H]`; not written by linear attention.
    pub beta: u64,
    /// f32 `[B, H, K, V]`, of the state before the first position; 0: not wanted.
    pub state: u64,
    /// Scratch: [`Shape::states_len`] numbers.
    pub states: u64,
}

/// `tile_bytes` of the source.
pub(in crate::cuda) fn tile(rows: usize, columns: usize) -> usize {
    rows * (columns * 2 + 16)
}
