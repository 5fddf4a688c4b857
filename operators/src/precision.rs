//! In which numbers the products of a forward pass are made, and with them those of its backward pass.
//!
//! Tensors, sums, states and norms stay f32 in both: only the factors of products are rounded, where a kernel packs
//! them. Operations read [`current`] when they run forward and keep it for their backward pass.

use std::cell::Cell;

pub use kernels::cpu::Precision;

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// The precision of the products that this thread makes now: f32 outside [`with`].
pub fn current() -> Precision {
    CURRENT.get()
}

/// Runs `body` with products in `precision`.
pub fn with<T>(precision: Precision, body: impl FnOnce() -> T) -> T {
    struct Restore(Precision);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(precision));
    body()
}

/// The version of the kernels that make products here.
pub fn kernels() -> String {
    kernels::version()
}

/// bf16 where the processor has instructions for its products, which need not be faster.
pub fn fastest() -> Precision {
    Precision::fastest()
}

/// FLOPs per second of products in registers on libtorch's threads: the bound of every product in this precision.
pub fn peak_flops(precision: Precision) -> f64 {
    let threads = tch::get_num_threads().max(1) as usize;
    kernels::cpu::peak_flops(precision.into(), threads, &crate::libtorch::parallel)
}
