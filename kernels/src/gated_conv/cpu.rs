//! The gated short convolution on the CPU: whole sequences and single tokens alike.
//!
//! A piece of work is some positions of one sequence. Channels are taken in tiles, so that the products u = B ⊙ x̃ of a
//! piece, of which each is read by several positions, stay in the first cache.

use crate::cpu::element::Rows;
use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Kernel, Parallel, Simd, run};

/// Positions of a piece.
pub(super) const PIECE: usize = 32;
/// Channels of a tile.
pub(super) const TILE: usize = 128;

/// What the convolution reads; E is f32 or bf16.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, E> {
    /// B, sequences.
    pub batch: usize,
    /// T, positions.
    pub tokens: usize,
    /// B·T rows of 3·C: of each position B, C and x̃.
    pub rows: Rows<'a, E>,
    /// u of the positions before the first, oldest first, `[B, k − 1, C]`; none: zeros.
    pub before: Option<&'a [f32]>,
    /// The weights transposed, `[k, C]`: the last row multiplies the current position.
    pub weight: &'a [f32],
}

/// The weights `[C, k]` of a model as `[k, C]`.
pub fn transpose_weight(weight: &[f32], taps: usize) -> Vec<f32> {
    (0..taps).flat_map(|j| weight.iter().skip(j).step_by(taps).copied()).collect()
}

/// y `[B, T, C]` ← C ⊙ conv(B ⊙ x̃).
///
/// # Panics
/// When a slice has another length than its shape.
pub fn forward<E: Element>(inputs: &Inputs<E>, y: &mut [E], parallel: Parallel) {
    inputs.check();
    let length = inputs.batch * inputs.tokens * inputs.channels();
    assert_eq!(y.len(), length, "gated convolution: y must be [B, T, C]");
    let y = SharedMut::new(y);
    parallel(inputs.pieces(), &|piece| run(Forward { inputs, y: &y, piece }));
}

impl<E: Element> Inputs<'_, E> {
    /// u of the last k − 1 positions, `[B, k − 1, C]`: what comes before the positions that follow.
    pub fn after(&self) -> Vec<f32> {
        let (past, channels) = (self.past(), self.channels());
        let mut after = vec![0.0; self.batch * past * channels];
        for (at, row) in after.chunks_exact_mut(channels.max(1)).enumerate() {
            let (sequence, i) = (at / past, at % past);
            match (self.tokens + i).checked_sub(past) {
                Some(t) => {
                    let [b, x] = [0, 2].map(|part| self.part(sequence, t, part, 0, channels));
                    for (u, (b, x)) in row.iter_mut().zip(b.iter().zip(x)) {
                        *u = b.widen() * x.widen();
                    }
                }
                None => {
                    if let Some(before) = self.before {
                        let from = (sequence * past + self.tokens + i) * channels;
                        row.copy_from_slice(&before[from..][..channels]);
                    }
                }
            }
        }
        after
    }

    pub(super) fn check(&self) {
        let channels = self.channels();
        assert_eq!(3 * channels, self.rows.width(), "gated convolution: rows must be [3, C]");
        assert!(
            channels == 0
                || (!self.weight.is_empty() && self.weight.len().is_multiple_of(channels)),
            "gated convolution: the weight must be [k, C]"
        );
        assert!(
            self.before.is_none_or(|b| b.len() == self.batch * self.past() * channels),
            "gated convolution: the products before must be [B, k − 1, C]"
        );
    }

    pub(super) fn channels(&self) -> usize {
        self.rows.width() / 3
    }

    pub(super) fn taps(&self) -> usize {
        self.weight.len().checked_div(self.channels()).unwrap_or(1)
    }

    /// Positions before the current one that it sees.
    pub(super) fn past(&self) -> usize {
        self.taps() - 1
    }

    pub(super) fn pieces(&self) -> usize {
        self.batch * self.tokens.div_ceil(PIECE)
    }

    /// Sequence, first position, and the one after the last of a piece.
    pub(super) fn piece(&self, piece: usize) -> (usize, usize, usize) {
        let each = self.tokens.div_ceil(PIECE);
        let first = piece % each * PIECE;
        (piece / each, first, (first + PIECE).min(self.tokens))
    }
}

impl<'a, E: Element> Inputs<'a, E> {
    /// `width` channels from `from` on of B, C or x̃ (part 0, 1, 2) at a position of a sequence.
    #[inline(always)]
    pub(super) fn part(
        &self,
        sequence: usize,
        t: usize,
        part: usize,
        from: usize,
        width: usize,
    ) -> &'a [E] {
        self.rows.part(sequence * self.tokens + t, part * self.channels() + from, width)
    }

    /// u of `rows` positions from `first` on and of the k − 1 before them, `[k − 1 + rows, TILE]`.
    #[inline(always)]
    pub(super) fn products<S: Simd>(
        &self,
        s: S,
        (sequence, first, rows): (usize, usize, usize),
        (from, width): (usize, usize),
        u: &mut [f32],
    ) {
        let (past, channels) = (self.past(), self.channels());
        for (i, u) in u.chunks_exact_mut(TILE).enumerate().take(past + rows) {
            let u = &mut u[..width];
            match ((first + i).checked_sub(past), self.before) {
                (Some(t), _) => {
                    let [b, x] = [0, 2].map(
                        #[inline(always)]
                        |part| self.part(sequence, t, part, from, width),
                    );
                    multiply(s, b, x, u);
                }
                (None, Some(before)) => {
                    let at = (sequence * past + first + i) * channels + from;
                    u.copy_from_slice(&before[at..][..width]);
                }
                (None, None) => u.fill(0.0),
            }
        }
    }

    /// Σ_j w_j u_j of `n` ≤ LANES channels from `c` of a tile on; `u` begins k − 1 positions before the current one.
    ///
    /// # Safety
    /// `n` channels from `c` on lie inside the tile, which begins at channel `from`, and k rows of TILE inside u.
    #[inline(always)]
    pub(super) unsafe fn convolved<S: Simd>(
        &self,
        s: S,
        u: *const f32,
        from: usize,
        c: usize,
        n: usize,
    ) -> S::V {
        let weight = self.weight.as_ptr();
        let mut sum = s.splat(0.0);
        for j in 0..self.taps() {
            // SAFETY: the caller's promise; the weight is [k, C].
            unsafe {
                let w = f32::load(s, weight.add(j * self.channels() + from + c), n);
                sum = s.fma(w, f32::load(s, u.add(j * TILE + c), n), sum);
            }
        }
        sum
    }
}

/// to ← a ⊙ b
#[inline(always)]
pub(super) fn multiply<S: Simd, E: Element>(s: S, a: &[E], b: &[E], to: &mut [f32]) {
    crate::cpu::element::convert_two(
        s,
        a,
        b,
        to,
        #[inline(always)]
        |a, b| s.mul(a, b),
    );
}

struct Forward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
    y: &'a SharedMut<'a, E>,
    piece: usize,
}

impl<E: Element> Kernel for Forward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { inputs, y, piece } = self;
        let channels = inputs.channels();
        let (sequence, first, end) = inputs.piece(piece);
        let mut u = vec![0.0; (inputs.past() + end - first) * TILE];
        for from in (0..channels).step_by(TILE) {
            let width = TILE.min(channels - from);
            inputs.products(s, (sequence, first, end - first), (from, width), &mut u);
            for t in first..end {
                let gate = inputs.part(sequence, t, 1, from, width);
                let at = (sequence * inputs.tokens + t) * channels + from;
                // SAFETY: the positions of a piece belong to it alone.
                let y = unsafe { y.part(at, width) };
                let mut c = 0;
                while c < width {
                    let n = S::LANES.min(width - c);
                    // SAFETY: n channels from c lie inside the gate and y, which are `width` long, and k rows from
                    // t − first on inside u.
                    unsafe {
                        let z = inputs.convolved(s, u.as_ptr().add((t - first) * TILE), from, c, n);
                        let gated = s.mul(E::load(s, gate.as_ptr().add(c), n), z);
                        E::store(s, y.as_mut_ptr().add(c), n, gated);
                    }
                    c += n;
                }
            }
        }
    }
}
