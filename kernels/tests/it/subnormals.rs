//! Subnormal numbers are zero in what a pool runs, and count again behind it.
#![cfg(target_arch = "x86_64")]

use std::hint::black_box;

use kernels::cpu::{Flushed, Pool};

/// The bits of products with one as input, and as result.
fn products() -> [u32; 2] {
    let (subnormal, least) = (f32::MIN_POSITIVE / 4.0, f32::MIN_POSITIVE);
    [black_box(subnormal) * black_box(4.0), black_box(least) * black_box(0.25)].map(f32::to_bits)
}

#[test]
fn every_thread_of_a_pool_takes_them_as_zero() {
    let count = [f32::MIN_POSITIVE, f32::MIN_POSITIVE / 4.0].map(f32::to_bits);
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads);
        for _ in 0..3 {
            assert!(!Flushed::is_on());
            assert_eq!(products(), count, "before");
            pool.run(|thread| {
                assert!(Flushed::is_on(), "thread {thread} of {threads}");
                assert_eq!(products(), [0, 0], "thread {thread} of {threads}");
            });
            for n in [1, 7] {
                pool.for_each(n, |_| assert!(Flushed::is_on(), "one of {n} pieces"));
            }
        }
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(|_| panic!("on purpose"));
        }));
        assert!(caught.is_err());
        assert_eq!(products(), count, "after a panic");
    }
}

#[test]
fn the_first_to_ask_is_the_last_to_end() {
    let outer = Flushed::begin();
    drop(Flushed::begin());
    assert!(Flushed::is_on());
    drop(outer);
    assert!(!Flushed::is_on());
}
