//! The extents of attention, and where its tensors lie.

/// The extents of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// B, sequences.
    pub batch: usize,
    /// T, positions; 1 for a step.
    pub tokens: usize,
    /// H, heads of q.
    pub heads: usize,
    /// Heads of k and v, each shared by H / key heads neighbouring heads of q.
    pub kv_heads: usize,
    /// K: 32, 64, 96 or 128.
    pub width: usize,
    /// Positions seen, the current one included; all if none.
    pub window: Option<usize>,
}

impl Shape {
    /// Pairs of a query and a key that it sees, for one head of one sequence.
    pub fn pairs(&self) -> f64 {
        let (t, w) =
            (self.tokens as f64, self.window.unwrap_or(self.tokens).min(self.tokens) as f64);
        w * (w + 1.0) / 2.0 + (t - w) * w
    }

    /// Floating-point operations of the two products of whole sequences.
    pub fn flops(&self) -> f64 {
        4.0 * (self.batch * self.heads * self.width) as f64 * self.pairs()
    }

    /// Bytes of q, k, v and the output: what whole sequences cannot do without.
    pub fn bytes(&self) -> f64 {
        (2 * self.batch * self.tokens * (2 * self.heads + 2 * self.kv_heads) * self.width) as f64
    }

    /// Bytes that a step over `positions` reads and writes.
    pub fn step_bytes(&self, positions: usize) -> f64 {
        let seen = self.window.map_or(positions, |window| positions.min(window));
        (2 * self.batch * self.width * (2 * self.kv_heads * seen + 2 * self.heads)) as f64
    }
}

/// A tensor `[B, T, H, K]` on the device whose axes may lie apart, in elements; all multiples of 8.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Address of the first element, a multiple of 16.
    pub address: u64,
    /// From a sequence to the next.
    pub batch: usize,
    /// From a position to the next.
    pub row: usize,
    /// From a head to the next.
    pub head: usize,
}
