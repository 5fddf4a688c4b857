//! The gradients of the gated short convolution.
//!
//! With u = B ⊙ x̃, z = conv(u), y = C ⊙ z and e = dy ⊙ C: dC = dy ⊙ z, du_t = Σ_j w_j e_{t+k−1−j}, dB = du ⊙ x̃,
//! dx̃ = du ⊙ B, dw_j = Σ_t e_t u_{t−k+1+j}. Nothing but the inputs is kept for the backward pass: u and z cost k + 1
//! products to form anew.

use super::cpu::{Inputs, TILE, multiply};
use crate::cpu::element::Rows;
use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Kernel, Parallel, Simd, run};

/// Where the gradients go, each of the shape of its input, without gaps. Everything is overwritten.
#[derive(Debug)]
pub struct Gradients<'a, E> {
    /// `[B, T, 3, C]`
    pub rows: &'a mut [E],
    /// `[B, k − 1, C]`
    pub before: Option<&'a mut [f32]>,
    /// `[C, k]`, as a model has it.
    pub weight: &'a mut [f32],
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
    let (channels, taps) = (inputs.channels(), inputs.taps());
    let length = inputs.batch * inputs.tokens * 3 * channels;
    assert_eq!(d_y.width(), channels, "gated convolution: rows of d_y must be [C]");
    assert_eq!(gradients.rows.len(), length, "gated convolution: d_rows must be [B, T, 3, C]");
    assert_eq!(
        gradients.weight.len(),
        taps * channels,
        "gated convolution: dweight must be [C, k]"
    );
    let mut no_before = Vec::new();
    let before = gradients.before.as_deref_mut().unwrap_or(&mut no_before);
    assert!(
        before.is_empty() || before.len() == inputs.batch * inputs.past() * channels,
        "gated convolution: the gradient of the products before must be [B, k − 1, C]"
    );
    if inputs.tokens == 0 {
        before.fill(0.0);
    }
    // [pieces, k, C]: dw of each piece
    let mut partial = vec![0.0; inputs.pieces() * taps * channels];
    {
        let (rows, before) = (SharedMut::new(gradients.rows), SharedMut::new(before));
        let partial = SharedMut::new(&mut partial);
        parallel(inputs.pieces(), &|piece| {
            let to = Shared { rows: &rows, before: &before, partial: &partial };
            run(Backward { inputs, d_y, to, piece });
        });
    }
    for (at, d) in gradients.weight.iter_mut().enumerate() {
        let first = at % taps * channels + at / taps;
        *d = partial.iter().skip(first).step_by(taps * channels).sum();
    }
}

struct Shared<'a, E> {
    rows: &'a SharedMut<'a, E>,
    /// Empty, or `[B, k − 1, C]`.
    before: &'a SharedMut<'a>,
    /// `[pieces, k, C]`
    partial: &'a SharedMut<'a>,
}

struct Backward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
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
        let rows = self.inputs.past() + end - first;
        let (mut u, mut e) = (vec![0.0; rows * TILE], vec![0.0; rows * TILE]);
        for from in (0..channels).step_by(TILE) {
            let width = TILE.min(channels - from);
            let tile = Tile { kernel: &self, sequence, first, end, from, width };
            self.inputs.products(s, (sequence, first, end - first), (from, width), &mut u);
            tile.slopes(s, &mut e);
            tile.write_rows(s, &u, &e);
            tile.add_weight(s, &u, &e);
            if first == 0 && self.inputs.before.is_some() {
                tile.write_before(&e);
            }
        }
    }
}

/// A tile of channels of one piece.
struct Tile<'a, 'b, 'c, E> {
    kernel: &'a Backward<'b, 'c, E>,
    sequence: usize,
    first: usize,
    end: usize,
    from: usize,
    width: usize,
}

impl<E: Element> Tile<'_, '_, '_, E> {
    /// e of the piece's positions and of the k − 1 after it, which belong to the next one: formed there once more.
    #[inline(always)]
    fn slopes<S: Simd>(&self, s: S, e: &mut [f32]) {
        let Self { kernel: Backward { inputs, d_y, .. }, sequence, first, from, width, .. } = *self;
        for (t, e) in (first..).zip(e.chunks_exact_mut(TILE)) {
            let e = &mut e[..width];
            if t < inputs.tokens {
                let d_y = d_y.part(sequence * inputs.tokens + t, from, width);
                multiply(s, d_y, inputs.part(sequence, t, 1, from, width), e);
            } else {
                e.fill(0.0);
            }
        }
    }

    /// dB, dC and dx̃ of the piece's positions.
    #[inline(always)]
    fn write_rows<S: Simd>(&self, s: S, u: &[f32], e: &[f32]) {
        let Self { kernel: Backward { inputs, d_y, to, .. }, sequence, first, end, from, width } =
            *self;
        let (channels, taps) = (inputs.channels(), inputs.taps());
        assert!(
            u.len().min(e.len()) >= (end - first + taps - 1) * TILE && from + width <= channels
        );
        for t in first..end {
            let (row, i) = (sequence * inputs.tokens + t, t - first);
            let [b, x] = [0, 2].map(
                #[inline(always)]
                |part| inputs.part(sequence, t, part, from, width),
            );
            let d_y = d_y.part(row, from, width);
            let d: [&mut [E]; 3] = std::array::from_fn(
                #[inline(always)]
                |part| {
                    // SAFETY: the positions of a piece belong to it alone.
                    unsafe { to.rows.part((row * 3 + part) * channels + from, width) }
                },
            );
            let mut c = 0;
            while c < width {
                let n = S::LANES.min(width - c);
                // SAFETY: n channels from c lie inside the tile, in which all rows are, and k rows from i on inside u
                // and e.
                unsafe {
                    let z = inputs.convolved(s, u.as_ptr().add(i * TILE), from, c, n);
                    let mut d_u = s.splat(0.0);
                    for j in 0..taps {
                        let w =
                            f32::load(s, inputs.weight.as_ptr().add(j * channels + from + c), n);
                        let e = f32::load(s, e.as_ptr().add((i + taps - 1 - j) * TILE + c), n);
                        d_u = s.fma(w, e, d_u);
                    }
                    let values = [
                        s.mul(d_u, E::load(s, x.as_ptr().add(c), n)),
                        s.mul(z, E::load(s, d_y.as_ptr().add(c), n)),
                        s.mul(d_u, E::load(s, b.as_ptr().add(c), n)),
                    ];
                    for (part, value) in values.into_iter().enumerate() {
                        E::store(s, d[part].as_mut_ptr().add(c), n, value);
                    }
                }
                c += n;
            }
        }
    }

    /// dw of the piece.
    #[inline(always)]
    fn add_weight<S: Simd>(&self, s: S, u: &[f32], e: &[f32]) {
        let Self { kernel: Backward { inputs, to, piece, .. }, first, end, from, width, .. } =
            *self;
        let (channels, taps) = (inputs.channels(), inputs.taps());
        assert!(
            u.len().min(e.len()) >= (end - first + taps - 1) * TILE && from + width <= channels
        );
        // SAFETY: this part belongs to the piece.
        let partial = unsafe { to.partial.part(piece * taps * channels, taps * channels) };
        for j in 0..taps {
            let mut c = 0;
            while c < width {
                let n = S::LANES.min(width - c);
                // SAFETY: n channels from c lie inside the tile, rows up to end − first + k − 1 inside u and e, and j
                // inside the piece's part.
                unsafe {
                    let mut sum = s.splat(0.0);
                    for i in 0..end - first {
                        let e = f32::load(s, e.as_ptr().add(i * TILE + c), n);
                        sum = s.fma(e, f32::load(s, u.as_ptr().add((i + j) * TILE + c), n), sum);
                    }
                    f32::store(s, partial.as_mut_ptr().add(j * channels + from + c), n, sum);
                }
                c += n;
            }
        }
    }

    /// The gradient of u before the first position; `e` begins at position 0.
    fn write_before(&self, e: &[f32]) {
        let Self { kernel: Backward { inputs, to, .. }, sequence, from, width, .. } = *self;
        let (channels, past) = (inputs.channels(), inputs.past());
        for i in 0..past {
            // SAFETY: the first piece of a sequence has these rows alone.
            let before = unsafe { to.before.part((sequence * past + i) * channels + from, width) };
            for (c, to) in before.iter_mut().enumerate() {
                let term =
                    |j: usize| inputs.weight[j * channels + from + c] * e[(i - j) * TILE + c];
                *to = (0..=i).map(term).sum();
            }
        }
    }
}
