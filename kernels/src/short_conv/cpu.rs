//! The short convolution on the CPU, with the SiLU that follows it everywhere.

use super::WIDTH;
use crate::cpu::{Kernel, Simd};

/// SiLU(convolution) of consecutive positions.
#[derive(Debug)]
pub struct ConvolveSilu<'a> {
    /// The rows `[C]` of the inputs: the three before the first position, then one for each.
    pub rows: &'a [&'a [f32]],
    /// The weights transposed, `[4, C]`: the last row multiplies the current position.
    pub weight: &'a [f32],
    /// `[C]`
    pub bias: Option<&'a [f32]>,
    /// `[T, C]`, overwritten.
    pub y: &'a mut [f32],
}

/// The weights `[C, 4]` of a model as `[4, C]`.
pub fn transpose_weight(weight: &[f32]) -> Vec<f32> {
    (0..WIDTH).flat_map(|j| weight.iter().skip(j).step_by(WIDTH).copied()).collect()
}

impl Kernel for ConvolveSilu<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let channels = self.weight.len() / WIDTH;
        if channels == 0 {
            return;
        }
        assert_eq!(
            self.y.len() + (WIDTH - 1) * channels,
            self.rows.len() * channels,
            "convolution: rows must be T + 3"
        );
        assert!(self.rows.iter().all(|row| row.len() == channels), "convolution: rows must be [C]");
        assert!(
            self.bias.is_none_or(|bias| bias.len() == channels),
            "convolution: bias must be [C]"
        );
        let weight = self.weight.as_ptr();
        for (rows, y) in self.rows.windows(WIDTH).zip(self.y.chunks_exact_mut(channels)) {
            let mut c = 0;
            while c < channels {
                let n = (channels - c).min(S::LANES);
                // SAFETY: n values from c lie inside the C channels of rows, weight rows, bias and y.
                unsafe {
                    let mut sum = match self.bias {
                        Some(bias) => load(s, bias.as_ptr().add(c), n),
                        None => s.splat(0.0),
                    };
                    for (j, row) in rows.iter().enumerate() {
                        let weight = load(s, weight.add(j * channels + c), n);
                        sum = s.fma(weight, load(s, row.as_ptr().add(c), n), sum);
                    }
                    let (out, sum) = (y.as_mut_ptr().add(c), s.silu(sum));
                    if n == S::LANES { s.store(out, sum) } else { s.store_part(out, n, sum) }
                }
                c += n;
            }
        }
    }
}

/// `n` ≤ LANES values, the other lanes 0.
///
/// # Safety
/// `n` values are readable at `p`.
#[inline(always)]
unsafe fn load<S: Simd>(s: S, p: *const f32, n: usize) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { if n == S::LANES { s.load(p) } else { s.load_part(p, n) } }
}
