//! The most that a machine multiplies: the bound beside which products are shown.

use super::{Arithmetic, Kernel, Parallel, Precision, Simd, dynamic, run_in};

/// Sums of one round.
const VALUES: usize = 384;

/// Rounds of one measurement.
const ROUNDS: usize = 4_000_000;

/// FLOPs per second of products whose factors never leave the registers: the bound of every product in this arithmetic.
/// Takes a few hundredths of a second.
pub fn peak_flops(arithmetic: Arithmetic, threads: usize, parallel: Parallel) -> f64 {
    let start = std::time::Instant::now();
    dynamic(parallel, threads, &|_| {
        std::hint::black_box(run_in(arithmetic.level, arithmetic.precision, Peak(arithmetic)));
    });
    let products = match arithmetic.precision {
        Precision::F32 => 1.0,
        Precision::Bf16 => 2.0,
    };
    2.0 * products * (VALUES * ROUNDS * threads) as f64 / start.elapsed().as_secs_f64()
}

struct Peak(Arithmetic);

impl Kernel for Peak {
    type Output = f32;

    #[inline(always)]
    fn body<S: Simd>(self, s: S) -> f32 {
        match S::LANES {
            16 => self.vectors::<S, 24>(s),
            _ => self.vectors::<S, 12>(s),
        }
    }
}

impl Peak {
    #[inline(always)]
    fn vectors<S: Simd, const N: usize>(self, s: S) -> f32 {
        let (x, mut sums) = (s.splat(1.0), [s.splat(0.0); N]);
        for _ in 0..ROUNDS * VALUES / (N * S::LANES) {
            for sum in &mut sums {
                *sum = match self.0.precision {
                    Precision::F32 => s.fma(x, x, *sum),
                    Precision::Bf16 => s.dot_pairs(x, x, *sum),
                };
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += s.sum(sum);
        }
        total
    }
}
