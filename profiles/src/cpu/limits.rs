//! The work that shows what this machine can do at best: reading memory. (Multiplying is the engine's own product.)

use std::hint::black_box;

use kernels::cpu::Pool;

/// Reads all values once, each thread its share.
pub(crate) fn read(pool: &Pool, values: &[f32]) {
    let threads = pool.threads();
    let share = values.len() / threads;
    pool.for_each(threads, |thread| {
        black_box(sum(&values[thread * share..][..share]));
    });
}

/// A sum with enough independent additions to wait for nothing but the reads.
fn sum(values: &[f32]) -> f32 {
    let mut sums = [0.0; 128];
    for chunk in values.as_chunks::<128>().0 {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    sums.iter().sum()
}
