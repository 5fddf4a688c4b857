//! What every token mixer computes, and how to compute it fast.
//!
//! One folder per family. Each begins with its *definition*: plain f64 loops over one head or one sequence, with the
//! paper and the equation, against which every other form is tested. Beside it stand the CPU kernels in f32 and the
//! CUDA kernels. Around the families: facts about this device ([`device`]) and the primitives of an honest timing
//! ([`timing`]).
//!
//! This crate knows slices and pointers, not tensors, models or architectures: `operators` makes differentiable torch
//! operators of it, `profiles` an inference engine and a latency table.
//!
//! All arrays are row-major; shapes stand in the signatures as `[T, K]`: T positions, K key width, V value width,
//! C channels, d model width.
//!
//! ```
//! // A delta rule of one head stores a value under a key and reads it back: T = 2, K = 2, V = 1.
//! let (k, v, beta) = ([1.0, 0.0, 0.0, 1.0], [3.0, 5.0], [1.0, 1.0]);
//! let (q, g, scale) = ([1.0, 0.0, 1.0, 0.0], [0.0, 0.0], 1.0);
//! let mut state = [0.0; 2];
//! let o = kernels::delta_rule::definition(&q, &k, &v, &g, &beta, scale, &mut state);
//! assert_eq!((o, state), (vec![3.0, 3.0], [3.0, 5.0]));
//! ```

#![expect(
    unsafe_code,
    reason = "instructions, threads and devices; each block says why it is sound, or the head of its file does"
)]
#![expect(
    clippy::inline_always,
    reason = "kernel bodies must be inlined into the function that enables their instructions"
)]

pub mod activation;
pub mod adamw;
pub mod attention;
pub mod cpu;
pub mod cross_entropy;
pub mod cuda;
pub mod delta_rule;
pub mod device;
pub mod gated_conv;
pub mod kda;
pub mod linear;
pub mod linear_attention;
pub mod log_linear;
pub mod moe;
pub mod newton_schulz;
pub mod norm;
pub mod relu2;
pub mod rope;
pub mod short_conv;
pub mod swiglu;
pub mod timing;

/// Raised by every change that makes a kernel faster or slower.
const REVISION: u32 = 10;

/// The version of the kernels that run here, which stands beside every latency: timings of different versions are not
/// compared. It holds the instruction set, `kernels 0.1.0 r1 avx512`.
pub fn version() -> String {
    format!("kernels {} r{REVISION} {}", env!("CARGO_PKG_VERSION"), cpu::Level::best().name())
}
