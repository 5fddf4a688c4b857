//! The squared ReLU for training: out = max(x, 0)²; d_x = d_out · 2 max(x, 0).

use crate::cpu::pool::SharedMut;
use crate::cpu::{Kernel, Parallel, Simd, dynamic, run, vector};

/// Elements of a piece of work.
const PIECE: usize = 1 << 14;

/// out ← max(x, 0)².
///
/// # Panics
/// When the slices differ in length.
pub fn forward(x: &[f32], out: &mut [f32], parallel: Parallel) {
    assert_eq!(x.len(), out.len(), "relu2: one length");
    let (n, out) = (out.len(), SharedMut::new(out));
    dynamic(parallel, n.div_ceil(PIECE), &|i| {
        let (from, len) = (i * PIECE, PIECE.min(n - i * PIECE));
        // SAFETY: pieces do not overlap.
        let out = unsafe { out.part(from, len) };
        out.copy_from_slice(&x[from..][..len]);
        run(super::cpu::Relu2 { x: out });
    });
}

/// The gradient of x, overwritten.
///
/// # Panics
/// When the slices differ in length.
pub fn backward(x: &[f32], d_out: &[f32], d_x: &mut [f32], parallel: Parallel) {
    let n = x.len();
    assert_eq!((d_out.len(), d_x.len()), (n, n), "relu2: one length");
    let d_x = SharedMut::new(d_x);
    dynamic(parallel, n.div_ceil(PIECE), &|i| {
        let (from, len) = (i * PIECE, PIECE.min(n - i * PIECE));
        // SAFETY: pieces do not overlap.
        let d_x = unsafe { d_x.part(from, len) };
        run(Backward { x: &x[from..][..len], d_out: &d_out[from..][..len], d_x });
    });
}

struct Backward<'a> {
    x: &'a [f32],
    d_out: &'a [f32],
    d_x: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let (zero, two) = (s.splat(0.0), s.splat(2.0));
        vector::combine(
            s,
            self.x,
            self.d_out,
            self.d_x,
            #[inline(always)]
            |x, d_out| s.mul(s.mul(two, s.max(x, zero)), d_out),
        );
    }
}
