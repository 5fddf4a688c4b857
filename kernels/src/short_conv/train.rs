//! The short convolution for training: SiLU(convolution + bias), forward and backward.
//!
//! With z = conv(x) + b, y = SiLU(z) and D = dy ⊙ SiLU'(z): dx_t = Σ_j w_j D_{t+3−j}, dw_j = Σ_t D_t x_{t−3+j},
//! db = Σ_t D_t. Nothing but the inputs is kept for the backward pass: z costs four products to form anew.
//!
//! A piece of work is some positions of one sequence. Channels are taken in tiles, so that the rows that several
//! positions share stay in the first cache.

use super::WIDTH;
use super::cpu::transpose_weight;
use crate::cpu::element::Rows;
use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Kernel, Parallel, Simd, run};

/// Positions before the current one.
const PAST: usize = WIDTH - 1;
/// Positions of a piece.
const PIECE: usize = 256;
/// Channels of a tile.
const TILE: usize = 256;
/// Positions that the backward pass holds at once.
const BLOCK: usize = 16;

/// What the convolution reads; E is f32 or bf16.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, E> {
    /// B, sequences.
    pub batch: usize,
    /// T, positions.
    pub tokens: usize,
    /// B·T rows of C.
    pub x: Rows<'a, E>,
    /// The three positions before the first, oldest first, `[B, 3, C]`; none: zeros.
    pub before: Option<&'a [E]>,
    /// `[C, 4]`: the last column multiplies the current position.
    pub weight: &'a [f32],
    /// `[C]`
    pub bias: Option<&'a [f32]>,
}

impl<'a, E: Element> Inputs<'a, E> {
    fn check(&self) {
        let channels = self.channels();
        assert_eq!(self.weight.len(), WIDTH * channels, "convolution: the weight must be [C, 4]");
        assert!(self.bias.is_none_or(|b| b.len() == channels), "convolution: the bias must be [C]");
        assert!(
            self.before.is_none_or(|b| b.len() == self.batch * PAST * channels),
            "convolution: the inputs before must be [B, 3, C]"
        );
    }

    fn channels(&self) -> usize {
        self.x.width()
    }

    fn pieces(&self) -> usize {
        self.batch * self.tokens.div_ceil(PIECE)
    }

    /// Sequence, first position, and the one after the last of a piece.
    fn piece(&self, piece: usize) -> (usize, usize, usize) {
        let each = self.tokens.div_ceil(PIECE);
        let first = piece % each * PIECE;
        (piece / each, first, (first + PIECE).min(self.tokens))
    }

    /// `width` channels from `from` on at position `t` − 3 of a sequence; `zeros` where there is none.
    #[inline(always)]
    fn past(
        &self,
        sequence: usize,
        t: usize,
        from: usize,
        width: usize,
        zeros: &'a [E],
    ) -> &'a [E] {
        if let Some(t) = t.checked_sub(PAST) {
            return self.x.part(sequence * self.tokens + t, from, width);
        }
        match self.before {
            Some(before) => &before[(sequence * PAST + t) * self.channels() + from..][..width],
            None => &zeros[..width],
        }
    }
}

/// y `[B, T, C]` ← SiLU(convolution).
///
/// # Panics
/// When a slice has another length than its shape.
pub fn forward<E: Element>(inputs: &Inputs<E>, y: &mut [E], parallel: Parallel) {
    inputs.check();
    assert_eq!(
        y.len(),
        inputs.batch * inputs.tokens * inputs.channels(),
        "convolution: y must be [B, T, C]"
    );
    let (y, weight) = (SharedMut::new(y), transpose_weight(inputs.weight));
    let zeros = vec![E::default(); TILE];
    parallel(inputs.pieces(), &|piece| {
        run(Forward { inputs, weight: &weight, zeros: &zeros, y: &y, piece });
    });
}

/// Where the gradients go, each of the shape of its input, without gaps. Everything is overwritten.
#[derive(Debug)]
pub struct Gradients<'a, E> {
    /// `[B, T, C]`
    pub x: &'a mut [E],
    /// `[B, 3, C]`
    pub before: Option<&'a mut [E]>,
    /// `[C, 4]`
    pub weight: &'a mut [f32],
    /// `[C]`
    pub bias: Option<&'a mut [f32]>,
}

/// Gradients from `d_y`, B·T rows of C.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn backward<E: Element>(
    inputs: &Inputs<E>,
    d_y: Rows<E>,
    gradients: &mut Gradients<E>,
    parallel: Parallel,
) {
    inputs.check();
    let channels = inputs.channels();
    assert_eq!(d_y.width(), channels, "convolution: rows of d_y must be [C]");
    assert_eq!(
        gradients.x.len(),
        inputs.batch * inputs.tokens * channels,
        "convolution: dx must be [B, T, C]"
    );
    assert_eq!(gradients.weight.len(), WIDTH * channels, "convolution: dweight must be [C, 4]");
    let mut no_before = Vec::new();
    let before = gradients.before.as_deref_mut().unwrap_or(&mut no_before);
    assert!(
        before.is_empty() || before.len() == inputs.batch * PAST * channels,
        "convolution: the gradient of the inputs before must be [B, 3, C]"
    );
    before.fill(E::default()); // short sequences leave some of it untouched
    // [pieces, 5, C]: dw and db of each piece
    let mut partial = vec![0.0; inputs.pieces() * (WIDTH + 1) * channels];
    let weight = transpose_weight(inputs.weight);
    let zeros = vec![E::default(); TILE];
    {
        let (x, before) = (SharedMut::new(gradients.x), SharedMut::new(before));
        let partial = SharedMut::new(&mut partial);
        parallel(inputs.pieces(), &|piece| {
            let to = Shared { x: &x, before: &before, partial: &partial };
            run(Backward { inputs, weight: &weight, zeros: &zeros, d_y, to, piece });
        });
    }
    let total = |row: usize, c: usize| -> f32 {
        partial.iter().skip(row * channels + c).step_by((WIDTH + 1) * channels).sum()
    };
    for (at, d) in gradients.weight.iter_mut().enumerate() {
        *d = total(at % WIDTH, at / WIDTH);
    }
    for (c, d) in gradients.bias.iter_mut().flat_map(|bias| bias.iter_mut()).enumerate() {
        *d = total(WIDTH, c);
    }
}

struct Forward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
    /// `[4, C]`
    weight: &'a [f32],
    zeros: &'a [E],
    y: &'a SharedMut<'a, E>,
    piece: usize,
}

impl<E: Element> Kernel for Forward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { inputs, weight, zeros, y, piece } = self;
        let channels = inputs.channels();
        let (sequence, first, end) = inputs.piece(piece);
        for from in (0..channels).step_by(TILE) {
            let width = TILE.min(channels - from);
            let taps = Taps::new(weight, inputs.bias, channels, from, width);
            for t in first..end {
                let rows: [&[E]; WIDTH] = std::array::from_fn(
                    #[inline(always)]
                    |j| inputs.past(sequence, t + j, from, width, zeros),
                );
                let at = (sequence * inputs.tokens + t) * channels + from;
                // SAFETY: the positions of a piece belong to it alone.
                let y = unsafe { y.part(at, width) };
                let mut c = 0;
                while c < width {
                    let n = S::LANES.min(width - c);
                    // SAFETY: n channels from c lie inside the rows, the taps and y, which are `width` long.
                    unsafe {
                        E::store(s, y.as_mut_ptr().add(c), n, s.silu(taps.at(s, &rows, c, n)));
                    };
                    c += n;
                }
            }
        }
    }
}

/// The weights of a tile of channels.
struct Taps<'a> {
    weight: [&'a [f32]; WIDTH],
    bias: Option<&'a [f32]>,
}

impl<'a> Taps<'a> {
    fn new(
        weight: &'a [f32],
        bias: Option<&'a [f32]>,
        channels: usize,
        from: usize,
        width: usize,
    ) -> Self {
        let tap = |j: usize| &weight[j * channels + from..][..width];
        Self { weight: std::array::from_fn(tap), bias: bias.map(|bias| &bias[from..][..width]) }
    }

    /// z of `n` ≤ LANES channels from `c` on.
    ///
    /// # Safety
    /// `n` channels from `c` on lie inside the tile and the rows.
    #[inline(always)]
    unsafe fn at<S: Simd, E: Element>(
        &self,
        s: S,
        rows: &[&[E]; WIDTH],
        c: usize,
        n: usize,
    ) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = match self.bias {
                Some(bias) => f32::load(s, bias.as_ptr().add(c), n),
                None => s.splat(0.0),
            };
            for (row, weight) in rows.iter().zip(&self.weight) {
                let x = E::load(s, row.as_ptr().add(c), n);
                sum = s.fma(f32::load(s, weight.as_ptr().add(c), n), x, sum);
            }
            sum
        }
    }
}

struct Shared<'a, E> {
    x: &'a SharedMut<'a, E>,
    /// Empty, or `[B, 3, C]`.
    before: &'a SharedMut<'a, E>,
    /// `[pieces, 5, C]`
    partial: &'a SharedMut<'a>,
}

struct Backward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
    /// `[4, C]`
    weight: &'a [f32],
    zeros: &'a [E],
    d_y: Rows<'a, E>,
    to: Shared<'a, E>,
    piece: usize,
}

impl<E: Element> Kernel for Backward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let channels = self.inputs.channels();
        let (sequence, first, end) = self.inputs.piece(self.piece);
        // D of a block of positions and of the three after it, `[BLOCK + 3, TILE]`
        let mut d = vec![0.0; (BLOCK + PAST) * TILE];
        for from in (0..channels).step_by(TILE) {
            let width = TILE.min(channels - from);
            let tile = Tile {
                taps: Taps::new(self.weight, self.inputs.bias, channels, from, width),
                kernel: &self,
                sequence,
                from,
                width,
            };
            // the three positions after the piece belong to the next one: D is formed there once more
            for i in 0..PAST {
                let row = &mut d[i * TILE..][..width];
                if end + i < self.inputs.tokens { tile.d(s, end + i, row) } else { row.fill(0.0) }
            }
            let mut block_end = end;
            while block_end > first {
                let start = block_end.saturating_sub(BLOCK).max(first);
                let rows = block_end - start;
                d.copy_within(0..PAST * TILE, rows * TILE);
                for i in 0..rows {
                    tile.d(s, start + i, &mut d[i * TILE..][..width]);
                }
                tile.write_x(s, start, rows, &d);
                tile.add_weight(s, start, rows, &d);
                block_end = start;
            }
            if first == 0 && self.inputs.tokens > 0 {
                tile.write_before(&d);
            }
        }
    }
}

/// A tile of channels of one piece.
struct Tile<'a, 'b, 'c, E> {
    kernel: &'a Backward<'b, 'c, E>,
    taps: Taps<'a>,
    sequence: usize,
    from: usize,
    width: usize,
}

impl<E: Element> Tile<'_, '_, '_, E> {
    /// D at position t.
    #[inline(always)]
    fn d<S: Simd>(&self, s: S, t: usize, out: &mut [f32]) {
        let Self { kernel: Backward { inputs, zeros, d_y, .. }, sequence, from, width, .. } = *self;
        let rows: [&[E]; WIDTH] = std::array::from_fn(
            #[inline(always)]
            |j| inputs.past(sequence, t + j, from, width, zeros),
        );
        let d_y = d_y.part(sequence * inputs.tokens + t, from, width);
        assert_eq!(out.len(), width);
        let one = s.splat(1.0);
        let mut c = 0;
        while c < width {
            let n = S::LANES.min(width - c);
            // SAFETY: n channels from c lie inside the rows, the taps, d_y and out, which are `width` long.
            unsafe {
                let z = self.taps.at(s, &rows, c, n);
                let sigmoid = s.sigmoid(z);
                // SiLU' = σ (1 + z (1 − σ))
                let slope = s.mul(sigmoid, s.fma(z, s.sub(one, sigmoid), one));
                let d_y = E::load(s, d_y.as_ptr().add(c), n);
                f32::store(s, out.as_mut_ptr().add(c), n, s.mul(d_y, slope));
            }
            c += n;
        }
    }

    /// dx of `rows` positions from `start` on; `d` has D from `start` on.
    #[inline(always)]
    fn write_x<S: Simd>(&self, s: S, start: usize, rows: usize, d: &[f32]) {
        let Self { kernel: Backward { inputs, to, .. }, sequence, from, width, .. } = *self;
        assert!(d.len() >= (rows + PAST) * TILE);
        for i in 0..rows {
            let at = (sequence * inputs.tokens + start + i) * inputs.channels() + from;
            // SAFETY: the positions of a piece belong to it alone.
            let x = unsafe { to.x.part(at, width) };
            let mut c = 0;
            while c < width {
                let n = S::LANES.min(width - c);
                // SAFETY: n channels from c lie inside the taps and x, and rows up to i + 3 inside D.
                unsafe {
                    let mut sum = s.splat(0.0);
                    for (j, weight) in self.taps.weight.iter().enumerate() {
                        let d = f32::load(s, d.as_ptr().add((i + PAST - j) * TILE + c), n);
                        sum = s.fma(f32::load(s, weight.as_ptr().add(c), n), d, sum);
                    }
                    E::store(s, x.as_mut_ptr().add(c), n, sum);
                }
                c += n;
            }
        }
    }

    /// Adds dw and db of `rows` positions to the piece's part.
    #[inline(always)]
    fn add_weight<S: Simd>(&self, s: S, start: usize, rows: usize, d: &[f32]) {
        let Self {
            kernel: Backward { inputs, zeros, to, piece, .. }, sequence, from, width, ..
        } = *self;
        let channels = inputs.channels();
        // SAFETY: this part belongs to the piece.
        let partial =
            unsafe { to.partial.part(piece * (WIDTH + 1) * channels, (WIDTH + 1) * channels) };
        // x from three positions before the block to its end
        let mut x: [&[E]; BLOCK + PAST] = [&zeros[..width]; BLOCK + PAST];
        for (i, x) in x.iter_mut().enumerate().take(rows + PAST) {
            *x = inputs.past(sequence, start + i, from, width, zeros);
        }
        assert!(d.len() >= rows * TILE && from + width <= channels);
        let mut c = 0;
        while c < width {
            let n = S::LANES.min(width - c);
            // SAFETY: n channels from c lie inside every row, D and the piece's part.
            unsafe {
                let mut sums = [s.splat(0.0); WIDTH];
                let mut bias = s.splat(0.0);
                let mut window = [s.splat(0.0); WIDTH];
                for (window, x) in window[1..].iter_mut().zip(&x) {
                    *window = E::load(s, x.as_ptr().add(c), n);
                }
                for (i, x) in x[PAST..PAST + rows].iter().enumerate() {
                    let x = E::load(s, x.as_ptr().add(c), n);
                    window = [window[1], window[2], window[3], x];
                    let d = f32::load(s, d.as_ptr().add(i * TILE + c), n);
                    for (sum, x) in sums.iter_mut().zip(window) {
                        *sum = s.fma(d, x, *sum);
                    }
                    bias = s.add(bias, d);
                }
                for (j, sum) in sums.into_iter().chain([bias]).enumerate() {
                    let to = partial.as_mut_ptr().add(j * channels + from + c);
                    f32::store(s, to, n, s.add(sum, f32::load(s, to, n)));
                }
            }
            c += n;
        }
    }

    /// The gradient of the three inputs before the first position; `d` has D from position 0 on.
    fn write_before(&self, d: &[f32]) {
        let Self { kernel: Backward { inputs, to, .. }, sequence, from, width, .. } = *self;
        if inputs.before.is_none() {
            return;
        }
        let channels = inputs.channels();
        for i in 0..PAST {
            // SAFETY: the first piece of a sequence has these rows alone.
            let before = unsafe { to.before.part((sequence * PAST + i) * channels + from, width) };
            for (c, to) in before.iter_mut().enumerate() {
                let terms = (0..=i).map(|j| self.taps.weight[j][c] * d[(i - j) * TILE + c]);
                *to = E::narrow(terms.sum());
            }
        }
    }
}
