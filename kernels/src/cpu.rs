//! What all CPU kernels share: the instruction set chosen at run time, vectors, matrix products, threads.
//!
//! A kernel is a struct of its inputs and outputs that implements [`Kernel`]: its body is written once, generic over
//! [`Simd`], and compiled for every [`Level`]. [`run`] takes the best level of this machine; tests take each of
//! [`Level::available`] through [`run_at`].

mod aligned;
pub(crate) mod chunk;
pub mod element;
pub mod gemm;
pub mod matrix;
pub(crate) mod packed;
mod peak;
pub mod pool;
mod portable;
mod simd;
mod subnormals;
pub mod transpose;
pub mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use aligned::Aligned;
pub use element::{Element, Rows};
pub use matrix::Matrix;
pub use packed::Arithmetic;
pub use peak::peak_flops;
pub use pool::Pool;
pub use simd::{PANEL, Simd};
pub use subnormals::Flushed;

/// An instruction set that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Whatever the compiler's target has.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F.
    Avx512,
}

static BEST: OnceLock<Level> = OnceLock::new();

impl Level {
    /// The levels that this machine can run, lowest first.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if x86::Avx2::detect().is_some() {
                levels.push(Self::Avx2);
            }
            if x86::Avx512::<false>::detect().is_some() {
                levels.push(Self::Avx512);
            }
        }
        levels
    }

    /// The highest level that this machine can run, asked once; lower where [`Self::limit`] said so before.
    pub fn best() -> Self {
        *BEST.get_or_init(|| {
            *Self::available().last().expect("every machine runs the portable level")
        })
    }

    /// Makes this process compute as a machine would that has no more than `most`, and says what is then best: what it was
    /// if something has asked before.
    pub fn limit(most: Self) -> Self {
        *BEST.get_or_init(|| {
            let levels = Self::available().into_iter().filter(|level| *level <= most);
            levels.max().unwrap_or(Self::Portable)
        })
    }

    /// The name that stands in facts and provenance.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// Work that is compiled once for every [`Level`].
pub trait Kernel {
    /// What it returns.
    type Output;

    /// The body. Implementations are `#[inline(always)]`, so that it is compiled with the instructions of `simd`; so are
    /// the functions it calls and the closures it passes: one that is not is compiled without those instructions, each
    /// vector operation in it becomes a call, and the kernel ten times slower.
    fn body<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel at the best level of this machine.
pub fn run<K: Kernel>(kernel: K) -> K::Output {
    run_at(Level::best(), kernel)
}

/// Runs a kernel at a given level, or at the portable one if this machine lacks it.
pub fn run_at<K: Kernel>(level: Level, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    match level {
        Level::Avx512 => {
            if let Some(simd) = x86::Avx512::<false>::detect() {
                // SAFETY: `detect` found the features that the callee is compiled with.
                return unsafe { x86::with_avx512(simd, kernel) };
            }
        }
        Level::Avx2 => {
            if let Some(simd) = x86::Avx2::detect() {
                // SAFETY: `detect` found the features that the callee is compiled with.
                return unsafe { x86::with_avx2(simd, kernel) };
            }
        }
        Level::Portable => {}
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = level;
    kernel.body(portable::Portable)
}

/// In which numbers the factors of a product are multiplied; sums are f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16.
    Bf16,
}

impl Precision {
    /// The one in which this machine multiplies fastest: bf16 where the processor has instructions for it.
    pub fn fastest() -> Self {
        if multiplies_bf16() { Self::Bf16 } else { Self::F32 }
    }
}

/// Whether the processor has instructions for products of bf16; without them they are made of those of f32.
pub fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        Level::best() == Level::Avx512 && x86::Avx512::<true>::detect().is_some()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// As [`run_at`], for a kernel that multiplies in `precision`: at [`Level::Avx512`] with the instructions for bf16 where
/// the machine has them.
pub fn run_in<K: Kernel>(level: Level, precision: Precision, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if (level, precision) == (Level::Avx512, Precision::Bf16)
        && let Some(simd) = x86::Avx512::<true>::detect()
    {
        // SAFETY: `detect` found the features that the callee is compiled with.
        return unsafe { x86::with_avx512_bf16(simd, kernel) };
    }
    let _ = precision;
    run_at(level, kernel)
}

/// Calls its second argument for every index below its first, on as many threads as it likes, and returns when all are
/// done. Lets a caller lend its own threads.
pub type Parallel<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// Calls for every index, one after the other.
pub fn serial(pieces: usize, piece: &(dyn Fn(usize) + Sync)) {
    (0..pieces).for_each(piece);
}

/// Calls `piece` for every index below `pieces`, each thread of `parallel` taking the next when it is free.
pub fn dynamic(parallel: Parallel, pieces: usize, piece: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    parallel(pieces, &|_| {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= pieces {
                return;
            }
            piece(i);
        }
    });
}
