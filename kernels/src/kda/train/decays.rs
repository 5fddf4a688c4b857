//! The logarithms of the decays for training, from their projection: g = −e^A ln(1 + e^{x + b}), with A of a head and b of
//! a channel (Kimi Linear, arXiv 2510.26692, the decays of section 4, in the parametrisation of Mamba2).
//!
//! With d the gradient of g: dx = −e^A σ(x + b) ⊙ d, db = Σ dx over the positions, dA = Σ d ⊙ g over positions and channels.

use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Kernel, Parallel, Rows, Simd, run};

/// Positions of a piece of work.
const PIECE: usize = 64;

/// What the decays are made of; E is f32 or bf16.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, E> {
    /// Positions of all sequences.
    pub rows: usize,
    /// Rows of `[H, K]`.
    pub x: Rows<'a, E>,
    /// b, `[H, K]`.
    pub bias: &'a [f32],
    /// A, `[H]`.
    pub a_log: &'a [f32],
}

impl<E: Element> Inputs<'_, E> {
    fn check(&self) {
        let (width, heads) = (self.x.width(), self.a_log.len());
        assert!(heads > 0 && width.is_multiple_of(heads), "KDA decays: rows of x must be [H, K]");
        assert_eq!(self.bias.len(), width, "KDA decays: the bias must be [H, K]");
    }

    /// −e^A of each channel, `[H, K]`.
    fn rates(&self) -> Vec<f32> {
        let key_width = self.x.width() / self.a_log.len();
        self.a_log.iter().flat_map(|a| std::iter::repeat_n(-a.exp(), key_width)).collect()
    }
}

/// Where the gradients go, each of the shape of its input, without gaps. Everything is overwritten.
#[derive(Debug)]
pub struct Gradients<'a, E> {
    /// `[rows, H, K]`
    pub x: &'a mut [E],
    /// `[H, K]`
    pub bias: &'a mut [f32],
    /// `[H]`
    pub a_log: &'a mut [f32],
}

/// g, `[rows, H, K]`.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn forward<E: Element>(inputs: &Inputs<E>, g: &mut [f32], parallel: Parallel) {
    inputs.check();
    let width = inputs.x.width();
    assert_eq!(g.len(), inputs.rows * width, "KDA decays: g must have the shape of x");
    let (rates, g) = (&inputs.rates(), SharedMut::new(g));
    parallel(inputs.rows.div_ceil(PIECE), &|piece| {
        for row in piece * PIECE..((piece + 1) * PIECE).min(inputs.rows) {
            // SAFETY: the rows of a piece belong to it alone.
            let g = unsafe { g.part(row * width, width) };
            run(Forward { x: inputs.x.row(row), bias: inputs.bias, rates, g });
        }
    });
}

/// Gradients from `d_g`, rows like those of x.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn backward<E: Element>(
    inputs: &Inputs<E>,
    d_g: Rows<f32>,
    gradients: &mut Gradients<E>,
    parallel: Parallel,
) {
    inputs.check();
    let width = inputs.x.width();
    assert_eq!(d_g.width(), width, "KDA decays: dg must have the shape of x");
    assert_eq!(gradients.x.len(), inputs.rows * width, "KDA decays: dx must have the shape of x");
    assert_eq!(gradients.bias.len(), width, "KDA decays: dbias must be [H, K]");
    assert_eq!(gradients.a_log.len(), inputs.a_log.len(), "KDA decays: dA must be [H]");
    let (rates, pieces) = (&inputs.rates(), inputs.rows.div_ceil(PIECE));
    let mut partial = vec![0.0; pieces * 2 * width]; // db, and dA of each channel, of each piece
    {
        let (d_x, partial) = (SharedMut::new(gradients.x), SharedMut::new(&mut partial));
        parallel(pieces, &|piece| {
            // SAFETY: this part belongs to the piece.
            let sums = unsafe { partial.part(piece * 2 * width, 2 * width) };
            for row in piece * PIECE..((piece + 1) * PIECE).min(inputs.rows) {
                // SAFETY: the rows of a piece belong to it alone.
                let d_x = unsafe { d_x.part(row * width, width) };
                let (x, d_g) = (inputs.x.row(row), d_g.row(row));
                run(Backward { x, bias: inputs.bias, rates, d_g, d_x, sums });
            }
        });
    }
    let summed = |channel: usize| partial.iter().skip(channel).step_by(2 * width).sum::<f32>();
    for (channel, d) in gradients.bias.iter_mut().enumerate() {
        *d = summed(channel);
    }
    let key_width = width / inputs.a_log.len();
    for (head, d) in gradients.a_log.iter_mut().enumerate() {
        let channels = head * key_width..(head + 1) * key_width;
        *d = channels.map(|channel| summed(width + channel)).sum();
    }
}

/// One position.
struct Forward<'a, E> {
    x: &'a [E],
    bias: &'a [f32],
    rates: &'a [f32],
    g: &'a mut [f32],
}

impl<E: Element> Kernel for Forward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { x, bias, rates, g } = self;
        let width = g.len();
        assert_eq!((x.len(), bias.len(), rates.len()), (width, width, width));
        for i in (0..width).step_by(S::LANES) {
            let n = S::LANES.min(width - i);
            // SAFETY: n values from i lie inside the four slices.
            unsafe {
                let bias = f32::load(s, bias.as_ptr().add(i), n);
                let u = s.add(E::load(s, x.as_ptr().add(i), n), bias);
                let rate = f32::load(s, rates.as_ptr().add(i), n);
                f32::store(s, g.as_mut_ptr().add(i), n, s.mul(rate, s.softplus(u)));
            }
        }
    }
}

/// One position.
struct Backward<'a, E> {
    x: &'a [E],
    bias: &'a [f32],
    rates: &'a [f32],
    d_g: &'a [f32],
    d_x: &'a mut [E],
    /// `[2, H, K]`, added to.
    sums: &'a mut [f32],
}

impl<E: Element> Kernel for Backward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { x, bias, rates, d_g, d_x, sums } = self;
        let width = d_x.len();
        assert_eq!((x.len(), bias.len(), rates.len()), (width, width, width));
        assert_eq!((d_g.len(), sums.len()), (width, 2 * width));
        for i in (0..width).step_by(S::LANES) {
            let n = S::LANES.min(width - i);
            // SAFETY: n values from i lie inside the slices, and as many from width + i inside the sums.
            unsafe {
                let bias = f32::load(s, bias.as_ptr().add(i), n);
                let u = s.add(E::load(s, x.as_ptr().add(i), n), bias);
                let rate = f32::load(s, rates.as_ptr().add(i), n);
                let d = s.mul(f32::load(s, d_g.as_ptr().add(i), n), rate);
                let (d_x_i, d_a) = (s.mul(d, s.sigmoid(u)), s.mul(d, s.softplus(u)));
                E::store(s, d_x.as_mut_ptr().add(i), n, d_x_i);
                let sums = sums.as_mut_ptr().add(i);
                f32::store(s, sums, n, s.add(f32::load(s, sums, n), d_x_i));
                let sums = sums.add(width);
                f32::store(s, sums, n, s.add(f32::load(s, sums, n), d_a));
            }
        }
    }
}
