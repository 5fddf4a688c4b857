//! Linear maps that share an input, y_i = W_i x, for training: forward, gradient of the input, gradients of the weights.
//!
//! Maps of one input are one operation, because the projections of a mixer are: no weights are joined, every output lies
//! by itself, and the gradient of the input is summed where it is computed.

use std::cell::RefCell;

use crate::cpu::gemm::View;
use crate::cpu::packed::{BLOCK, Block, Columns, aligned};
use crate::cpu::pool::SharedMut;
use crate::cpu::{Arithmetic, Parallel, dynamic};

/// One map: y_o = Σ_i W_oi x_i.
///
/// * `x`: `[T, in]`, `w`: `[out, in]`
///
/// Returns y, `[T, out]`.
pub fn definition(x: &[f64], w: &[f64], inputs: usize) -> Vec<f64> {
    let row = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum();
    x.chunks(inputs).flat_map(|x| w.chunks(inputs).map(move |w| row(x, w))).collect()
}

thread_local! {
    /// Strips of the rows that a thread works on, and the panels that all its helpers read.
    static STRIPS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static PANELS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Extents that all maps share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// T, rows of the input.
    pub tokens: usize,
    /// Columns of the input.
    pub inputs: usize,
}

impl Shape {
    /// Outputs of a map with these weights.
    fn outputs(self, weights: &[f32]) -> usize {
        assert!(self.inputs > 0, "linear: an input of no columns");
        assert_eq!(weights.len() % self.inputs, 0, "linear: weights must be [out, in]");
        weights.len() / self.inputs
    }

    fn check(self, x: usize, ys: impl Iterator<Item = usize>, weights: &[&[f32]]) {
        assert_eq!(x, self.tokens * self.inputs, "linear: x must be [T, in]");
        assert!(
            ys.eq(weights.iter().map(|w| self.tokens * self.outputs(w))),
            "linear: one y [T, out] for each map"
        );
    }
}

/// One B to be packed: its transpose `[n, k]`.
struct Factor<'a> {
    transpose: View<'a>,
    n: usize,
    k: usize,
}

/// Packs factors one after the other and lends their panels.
fn with_panels(
    arithmetic: Arithmetic,
    factors: &[Factor],
    parallel: Parallel,
    then: impl FnOnce(&[&[f32]]),
) {
    let lengths: Vec<usize> = factors.iter().map(|f| arithmetic.panels_len(f.n, f.k)).collect();
    let pieces: Vec<(usize, usize)> = factors
        .iter()
        .enumerate()
        .flat_map(|(f, factor)| {
            (0..factor.n.div_ceil(crate::cpu::PANEL)).map(move |panel| (f, panel))
        })
        .collect();
    PANELS.with_borrow_mut(|buffer| {
        let mut rest = aligned(buffer, lengths.iter().sum());
        let mut parts = Vec::with_capacity(factors.len());
        for length in &lengths {
            let (part, after) = rest.split_at_mut(*length);
            parts.push(SharedMut::new(part));
            rest = after;
        }
        dynamic(parallel, pieces.len(), &|i| {
            let (f, panel) = pieces[i];
            let Factor { transpose, n, k } = factors[f];
            arithmetic.pack_panel(transpose, [n, k], panel, &parts[f]);
        });
        // SAFETY: packing is over; the panels are only read from here on.
        let panels: Vec<&[f32]> =
            parts.iter().zip(&lengths).map(|(part, n)| unsafe { &*part.part(0, *n) }).collect();
        then(&panels);
    });
}

/// Y_i `[T, out_i]` ← X `[T, in]` · W_iᵀ, W_i `[out_i, in]`.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn forward(
    arithmetic: Arithmetic,
    shape: Shape,
    x: &[f32],
    weights: &[&[f32]],
    ys: &mut [&mut [f32]],
    parallel: Parallel,
) {
    shape.check(x.len(), ys.iter().map(|y| y.len()), weights);
    let Shape { tokens, inputs } = shape;
    let parts: Vec<(usize, usize)> = arithmetic.parts(inputs).collect();
    let factors: Vec<Factor> = parts
        .iter()
        .flat_map(|&(from, k)| {
            weights.iter().map(move |w| Factor {
                transpose: View::new(&w[from.min(w.len())..], inputs),
                n: shape.outputs(w),
                k,
            })
        })
        .collect();
    let ys: Vec<SharedMut> = ys.iter_mut().map(|y| SharedMut::new(y)).collect();
    with_panels(arithmetic, &factors, parallel, |panels| {
        let steps: Vec<Vec<Columns>> = panels
            .chunks(weights.len().max(1))
            .map(|panels| {
                let maps = panels.iter().zip(&ys).zip(weights);
                maps.map(|((panels, c), w)| Columns { panels, n: shape.outputs(w), c }).collect()
            })
            .collect();
        dynamic(parallel, tokens.div_ceil(BLOCK), &|block| {
            let rows = (block * BLOCK, (tokens - block * BLOCK).min(BLOCK));
            STRIPS.with_borrow_mut(|scratch| {
                for (&(from, k), columns) in parts.iter().zip(&steps) {
                    let a = View::new(&x[from..], inputs);
                    let accumulate = from > 0;
                    arithmetic.block(Block { a, rows, k, columns, accumulate, scratch });
                }
            });
        });
    });
}

/// dX `[T, in]` ← Σ_i dY_i · W_i.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn d_input(
    arithmetic: Arithmetic,
    shape: Shape,
    weights: &[&[f32]],
    d_ys: &[&[f32]],
    d_x: &mut [f32],
    parallel: Parallel,
) {
    shape.check(d_x.len(), d_ys.iter().map(|y| y.len()), weights);
    let Shape { tokens, inputs } = shape;
    // (map, start, length) of every part of the outputs
    let parts: Vec<(usize, usize, usize)> = weights
        .iter()
        .enumerate()
        .flat_map(|(i, w)| arithmetic.parts(shape.outputs(w)).map(move |(from, k)| (i, from, k)))
        .filter(|&(.., k)| k > 0)
        .collect();
    if parts.is_empty() {
        return d_x.fill(0.0);
    }
    let factors: Vec<Factor> = parts
        .iter()
        .map(|&(i, from, k)| Factor {
            transpose: View::new(&weights[i][from * inputs..], inputs).transposed(),
            n: inputs,
            k,
        })
        .collect();
    let d_x = SharedMut::new(d_x);
    with_panels(arithmetic, &factors, parallel, |panels| {
        dynamic(parallel, tokens.div_ceil(BLOCK), &|block| {
            let rows = (block * BLOCK, (tokens - block * BLOCK).min(BLOCK));
            STRIPS.with_borrow_mut(|scratch| {
                for (step, (&(i, from, k), panels)) in parts.iter().zip(panels).enumerate() {
                    let a = View::new(&d_ys[i][from..], shape.outputs(weights[i]));
                    let columns = &[Columns { panels, n: inputs, c: &d_x }];
                    let accumulate = step > 0;
                    arithmetic.block(Block { a, rows, k, columns, accumulate, scratch });
                }
            });
        });
    });
}

/// dW_i `[out_i, in]` ← dY_iᵀ · X.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn d_weights(
    arithmetic: Arithmetic,
    shape: Shape,
    x: &[f32],
    d_ys: &[&[f32]],
    d_weights: &mut [&mut [f32]],
    parallel: Parallel,
) {
    let Shape { tokens, inputs } = shape;
    assert_eq!(x.len(), tokens * inputs, "linear: x must be [T, in]");
    let outputs: Vec<usize> = d_weights.iter().map(|w| shape.outputs(w)).collect();
    assert!(
        d_ys.iter().map(|y| y.len()).eq(outputs.iter().map(|n| tokens * n)),
        "linear: one dY [T, out] for each map"
    );
    // (map, first row) of every block of rows
    let blocks: Vec<(usize, usize)> = outputs
        .iter()
        .enumerate()
        .flat_map(|(i, n)| (0..*n).step_by(BLOCK / 2).map(move |row| (i, row)))
        .collect();
    let d_weights: Vec<SharedMut> = d_weights.iter_mut().map(|w| SharedMut::new(w)).collect();
    for (from, k) in arithmetic.parts(tokens) {
        let transpose = View::new(&x[from * inputs..], inputs).transposed();
        let factors = [Factor { transpose, n: inputs, k }];
        with_panels(arithmetic, &factors, parallel, |panels| {
            dynamic(parallel, blocks.len(), &|block| {
                let (i, row) = blocks[block];
                let n = outputs[i];
                let a = View::new(&d_ys[i][from * n..], n).transposed();
                let rows = (row, (n - row).min(BLOCK / 2));
                let columns = &[Columns { panels: panels[0], n: inputs, c: &d_weights[i] }];
                STRIPS.with_borrow_mut(|scratch| {
                    let accumulate = from > 0;
                    arithmetic.block(Block { a, rows, k, columns, accumulate, scratch });
                });
            });
        });
    }
}
