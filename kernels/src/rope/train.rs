//! Rotary positions for training. A rotation's gradient is the rotation back, so one function serves both passes.

use crate::cpu::pool::SharedMut;
use crate::cpu::{Kernel, Parallel, Simd, dynamic, run};

/// Positions of a piece of work.
const PIECE: usize = 64;

/// The extents of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// T, positions of a sequence.
    pub tokens: usize,
    /// H, heads.
    pub heads: usize,
    /// K, channels of a head.
    pub width: usize,
    /// R, its first channels, which turn.
    pub turned: usize,
}

/// Rotates the first R channels of x `[B, T, H, K]` by the angles whose cosines and sines are `[T, R/2]`, or back by them,
/// into `out`.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn rotate(
    shape: Shape,
    x: &[f32],
    [cos, sin]: [&[f32]; 2],
    back: bool,
    out: &mut [f32],
    parallel: Parallel,
) {
    let Shape { tokens, heads, width, turned } = shape;
    assert!(turned.is_multiple_of(2) && turned <= width, "rope: pairs of channels of a head");
    let (row, half) = (heads * width, turned / 2);
    assert_eq!((cos.len(), sin.len()), (tokens * half, tokens * half), "rope: [T, R/2]");
    assert_eq!(x.len(), out.len(), "rope: out must have the shape of x");
    assert!(row * tokens == 0 || x.len().is_multiple_of(row * tokens), "rope: x: [B, T, H, K]");
    let positions = x.len().checked_div(row).unwrap_or(0);
    let out = SharedMut::new(out);
    dynamic(parallel, positions.div_ceil(PIECE), &|piece| {
        for position in piece * PIECE..((piece + 1) * PIECE).min(positions) {
            let t = position % tokens;
            let [cos, sin] = [cos, sin].map(|x| &x[t * half..][..half]);
            // SAFETY: each position is one piece's.
            let to = unsafe { out.part(position * row, row) };
            run(Rotate { x: &x[position * row..][..row], width, cos, sin, back, to });
        }
    });
}

/// The heads of one position.
struct Rotate<'a> {
    x: &'a [f32],
    width: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    back: bool,
    to: &'a mut [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { x, width, cos, sin, back, to } = self;
        let half = cos.len();
        let direction = s.splat(if back { -1.0 } else { 1.0 });
        for (x, to) in x.chunks_exact(width).zip(to.chunks_exact_mut(width)) {
            to[2 * half..].copy_from_slice(&x[2 * half..]);
            for i in (0..half).step_by(S::LANES) {
                let count = S::LANES.min(half - i);
                // SAFETY: `count` channels from i lie inside each half of those that turn, and the tables.
                unsafe {
                    let (a, b) = (x.as_ptr().add(i), x.as_ptr().add(half + i));
                    let (c, d) = (cos.as_ptr().add(i), sin.as_ptr().add(i));
                    let (to_a, to_b) = (to.as_mut_ptr().add(i), to.as_mut_ptr().add(half + i));
                    let whole = count == S::LANES;
                    let [a, b, c, d] = if whole {
                        [s.load(a), s.load(b), s.load(c), s.load(d)]
                    } else {
                        [
                            s.load_part(a, count),
                            s.load_part(b, count),
                            s.load_part(c, count),
                            s.load_part(d, count),
                        ]
                    };
                    let d = s.mul(d, direction);
                    let (first, second) =
                        (s.sub(s.mul(a, c), s.mul(b, d)), s.fma(b, c, s.mul(a, d)));
                    if whole {
                        s.store(to_a, first);
                        s.store(to_b, second);
                    } else {
                        s.store_part(to_a, count, first);
                        s.store_part(to_b, count, second);
                    }
                }
            }
        }
    }
}
