//! SwiGLU for training: forward and backward, one pass over the elements each.
//!
//! With s = σ(gate): out = gate · s · up; d_up = d_out · gate · s; d_gate = d_out · up · s · (1 + gate · (1 − s)).

use crate::cpu::pool::SharedMut;
use crate::cpu::{Kernel, Parallel, Simd, dynamic, run};

/// Elements of a piece of work.
const PIECE: usize = 1 << 14;

/// out ← SiLU(gate) · up.
///
/// # Panics
/// When the slices differ in length.
pub fn forward(gate: &[f32], up: &[f32], out: &mut [f32], parallel: Parallel) {
    assert_eq!((gate.len(), up.len()), (out.len(), out.len()), "swiglu: one length");
    let (n, out) = (out.len(), SharedMut::new(out));
    dynamic(parallel, n.div_ceil(PIECE), &|i| {
        let (from, len) = (i * PIECE, PIECE.min(n - i * PIECE));
        // SAFETY: pieces do not overlap.
        let out = unsafe { out.part(from, len) };
        run(super::cpu::SwiGlu { gate: &gate[from..][..len], up: &up[from..][..len], out });
    });
}

/// The gradients of both inputs, overwritten.
///
/// # Panics
/// When the slices differ in length.
pub fn backward(
    gate: &[f32],
    up: &[f32],
    d_out: &[f32],
    d_gate: &mut [f32],
    d_up: &mut [f32],
    parallel: Parallel,
) {
    let n = gate.len();
    assert_eq!([up.len(), d_out.len(), d_gate.len(), d_up.len()], [n; 4], "swiglu: one length");
    let (d_gate, d_up) = (SharedMut::new(d_gate), SharedMut::new(d_up));
    dynamic(parallel, n.div_ceil(PIECE), &|i| {
        let (from, len) = (i * PIECE, PIECE.min(n - i * PIECE));
        let [gate, up, d_out] = [gate, up, d_out].map(|x| &x[from..][..len]);
        // SAFETY: pieces do not overlap.
        let (d_gate, d_up) = unsafe { (d_gate.part(from, len), d_up.part(from, len)) };
        run(Backward { gate, up, d_out, d_gate, d_up });
    });
}

struct Backward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    d_out: &'a [f32],
    d_gate: &'a mut [f32],
    d_up: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { gate, up, d_out, d_gate, d_up } = self;
        let n = gate.len();
        let one = s.splat(1.0);
        for i in (0..n).step_by(S::LANES) {
            let count = S::LANES.min(n - i);
            // SAFETY: `count` elements from i lie inside all five slices, which have one length.
            unsafe {
                let at = |x: &[f32]| x.as_ptr().add(i);
                let (g, u, d) = if count == S::LANES {
                    (s.load(at(gate)), s.load(at(up)), s.load(at(d_out)))
                } else {
                    (
                        s.load_part(at(gate), count),
                        s.load_part(at(up), count),
                        s.load_part(at(d_out), count),
                    )
                };
                let sigmoid = s.sigmoid(g);
                let d_u = s.mul(d, s.mul(g, sigmoid));
                let slope = s.mul(sigmoid, s.fma(g, s.sub(one, sigmoid), one));
                let d_g = s.mul(s.mul(d, u), slope);
                let (to_gate, to_up) = (d_gate.as_mut_ptr().add(i), d_up.as_mut_ptr().add(i));
                if count == S::LANES {
                    s.store(to_gate, d_g);
                    s.store(to_up, d_u);
                } else {
                    s.store_part(to_gate, count, d_g);
                    s.store_part(to_up, count, d_u);
                }
            }
        }
    }
}
