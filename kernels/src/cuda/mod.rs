//! The same mixers on an NVIDIA GPU.
//!
//! Kernels are CUDA C++ in `.cu` files, one folder per subject beside the Rust that launches them. They are written in
//! a small vocabulary (`vocabulary.cuh`, `common.cuh`) with two readings: NVRTC compiles them at run time for the GPU
//! at hand ([`compiler`], cached), and g++ compiles them for the [`emulator`], which runs blocks and warps as fibers on
//! the host, so that every kernel is tested against its definition on machines without a GPU.
//!
//! Host code speaks to either through [`Machine`]: the packing of weights, the programs and the launches that the
//! emulator has tested are the ones that run on the [`gpu`]. Nothing here links CUDA: its libraries are loaded when they
//! are there, and [`Error`] says what is missing when not.

mod arguments;
pub mod attention;
mod boxes;
pub mod chunked;
pub mod compiler;
pub mod decode;
pub mod emulator;
pub mod experts;
pub mod gated_conv;
pub mod gpu;
pub mod norm;
pub mod phases;
pub mod product;
mod random;
pub mod rope;
pub mod rows;
pub mod short_conv;
pub mod step;
pub mod torch_library;
pub mod values;
pub mod weights;

use std::sync::LazyLock;

pub use boxes::Boxes;

/// What can go wrong on the way to a running kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A library of CUDA is not to be found.
    #[error("cuda: {library} was not found ({searched}); {remedy}")]
    Missing {
        /// Name of the library.
        library: &'static str,
        /// Where it was looked for.
        searched: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The driver or NVRTC refused.
    #[error("cuda: {operation} failed: {reason}")]
    Refused {
        /// What was asked.
        operation: String,
        /// Its answer.
        reason: String,
    },
    /// The source does not compile.
    #[error("cuda: {source_name} does not compile for {architecture}:\n{log}")]
    Compile {
        /// Name of the kernel source.
        source_name: &'static str,
        /// For example `sm_90`.
        architecture: String,
        /// The compiler's words.
        log: String,
    },
    /// The emulator stopped.
    #[error("emulator: {operation} failed: {log}")]
    Emulator {
        /// What was asked.
        operation: String,
        /// Last words of the process.
        log: String,
    },
    /// A shape that the kernels do not cover.
    #[error("cuda: {what} must be {expected}, got {got}")]
    Shape {
        /// Which quantity.
        what: String,
        /// What is possible.
        expected: String,
        /// What was given.
        got: String,
    },
    /// The GPU's memory does not hold it.
    #[error(
        "cuda: {wanted_bytes} bytes more were asked for, {free_bytes} of the GPU's {all_bytes} are free; take a smaller batch, \
         context or model, or end what else uses the GPU"
    )]
    Memory {
        /// What was asked for.
        wanted_bytes: usize,
        /// What no one uses.
        free_bytes: usize,
        /// What there is.
        all_bytes: usize,
    },
    /// A file or a process of the host.
    #[error("cuda: {operation}: {error}")]
    Host {
        /// What was done.
        operation: String,
        /// The system's answer.
        #[source]
        error: std::io::Error,
    },
}

/// Whether the blocks of all kernels have the shared memory that they need, in bytes.
fn check_shared<const N: usize>(blocks: [usize; N], limit: usize) -> Result<(), Error> {
    let needed = blocks.into_iter().max().unwrap_or(0);
    if needed <= limit {
        return Ok(());
    }
    Err(Error::Shape {
        what: "shared memory of a block".to_owned(),
        expected: format!("{needed} bytes at least"),
        got: limit.to_string(),
    })
}

/// Whether so many blocks fit the second dimension of a launch's grid, which CUDA gives 16 bits.
fn check_grid(what: &str, blocks: usize) -> Result<(), Error> {
    if blocks <= 65_535 {
        return Ok(());
    }
    Err(Error::Shape {
        what: what.to_owned(),
        expected: "at most 65535 at once".to_owned(),
        got: blocks.to_string(),
    })
}

/// The constants of several kernels, each once: for the emulator, which compiles all kernels of a source in one.
fn each_once<const N: usize>(parts: [Vec<(&'static str, u32)>; N]) -> Vec<(&'static str, u32)> {
    let mut all = Vec::new();
    for mut defines in parts {
        defines.retain(|define| !all.contains(define));
        all.extend(defines);
    }
    all
}

/// A kernel source: what is compiled as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// One token through a whole stack.
    Decode,
    /// Whole sequences of the recurrent mixers, forward and backward.
    Chunked,
    /// Softmax attention.
    Attention,
    /// Softmax attention of whole sequences by groups of four warps.
    WideAttention,
    /// Norms of rows.
    Norm,
    /// The short convolution.
    ShortConv,
    /// The gated short convolution.
    GatedConv,
    /// What surrounds the recurrence of Mamba2.
    Values,
    /// Rotary positions.
    Rope,
    /// Selective RoPE.
    Phases,
    /// What a layer does to rows between its products.
    Rows,
    /// One token of each sequence through the recurrent mixers.
    Step,
    /// Mixtures of experts.
    Experts,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Decode,
        Self::Chunked,
        Self::Attention,
        Self::WideAttention,
        Self::Norm,
        Self::ShortConv,
        Self::GatedConv,
        Self::Values,
        Self::Rope,
        Self::Phases,
        Self::Rows,
        Self::Step,
        Self::Experts,
    ];

    /// The folder or file below `kernels/src/cuda`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Chunked => "chunked",
            Self::Attention => "attention",
            Self::WideAttention => "attention/wide",
            Self::Norm => "norm",
            Self::ShortConv => "short_conv",
            Self::GatedConv => "gated_conv",
            Self::Values => "values",
            Self::Rope => "rope",
            Self::Phases => "phases",
            Self::Rows => "rows",
            Self::Step => "step",
            Self::Experts => "experts",
        }
    }

    /// Whether it is written in the words of compute capability 9.0 as well (`hopper.cuh`), and compiled for nothing else.
    pub fn for_hopper(self) -> bool {
        self == Self::WideAttention
    }

    /// Whether it is written in words for pairs of bf16 as well (`pairs.cuh`).
    pub(crate) fn has_pairs(self) -> bool {
        self == Self::Decode
    }

    /// The text, without the vocabulary.
    pub fn text(self) -> &'static str {
        match self {
            Self::Decode => &DECODE,
            Self::Chunked => concat!(
                include_str!("numbers.cuh"),
                "#line 1 \"chunked/tiles.cuh\"\n",
                include_str!("chunked/tiles.cuh"),
                "#line 1 \"chunked/operands.cuh\"\n",
                include_str!("chunked/operands.cuh"),
                "#line 1 \"chunked/solve.cuh\"\n",
                include_str!("chunked/solve.cuh"),
                "#line 1 \"chunked/prepare.cu\"\n",
                include_str!("chunked/prepare.cu"),
                "#line 1 \"chunked/kda_prepare.cu\"\n",
                include_str!("chunked/kda_prepare.cu"),
                "#line 1 \"chunked/kda_decays.cu\"\n",
                include_str!("chunked/kda_decays.cu"),
                "#line 1 \"chunked/forward.cu\"\n",
                include_str!("chunked/forward.cu"),
                "#line 1 \"levels.cuh\"\n",
                include_str!("levels.cuh"),
                "#line 1 \"chunked/log_linear.cu\"\n",
                include_str!("chunked/log_linear.cu"),
                "#line 1 \"chunked/backward.cu\"\n",
                include_str!("chunked/backward.cu"),
                "#line 1 \"chunked/gradients.cu\"\n",
                include_str!("chunked/gradients.cu"),
                "#line 1 \"chunked/kda_gradients.cu\"\n",
                include_str!("chunked/kda_gradients.cu"),
            ),
            Self::Attention => concat!(
                include_str!("chunked/tiles.cuh"),
                "#line 1 \"attention/softmax.cuh\"\n",
                include_str!("attention/softmax.cuh"),
                "#line 1 \"attention/whole_norm.cu\"\n",
                include_str!("attention/whole_norm.cu"),
                "#line 1 \"attention/rotate.cu\"\n",
                include_str!("attention/rotate.cu"),
                "#line 1 \"attention/prefill.cu\"\n",
                include_str!("attention/prefill.cu"),
                "#line 1 \"attention/step.cu\"\n",
                include_str!("attention/step.cu"),
            ),
            Self::WideAttention => concat!(
                include_str!("chunked/tiles.cuh"),
                "#line 1 \"attention/softmax.cuh\"\n",
                include_str!("attention/softmax.cuh"),
                "#line 1 \"attention/wide.cu\"\n",
                include_str!("attention/wide.cu"),
            ),
            Self::Norm => concat!(
                include_str!("numbers.cuh"),
                "#line 1 \"norm/norm.cu\"\n",
                include_str!("norm/norm.cu")
            ),
            Self::ShortConv => concat!(
                include_str!("numbers.cuh"),
                "#line 1 \"short_conv/short_conv.cu\"\n",
                include_str!("short_conv/short_conv.cu")
            ),
            Self::GatedConv => concat!(
                include_str!("numbers.cuh"),
                "#line 1 \"gated_conv/gated_conv.cu\"\n",
                include_str!("gated_conv/gated_conv.cu")
            ),
            Self::Values => concat!(
                include_str!("numbers.cuh"),
                "#line 1 \"values/values.cu\"\n",
                include_str!("values/values.cu")
            ),
            Self::Rope => concat!(
                include_str!("numbers.cuh"),
                "#line 1 \"rope/rope.cu\"\n",
                include_str!("rope/rope.cu")
            ),
            Self::Phases => concat!(
                include_str!("numbers.cuh"),
                "#line 1 \"phases/phases.cu\"\n",
                include_str!("phases/phases.cu")
            ),
            Self::Rows => concat!(
                include_str!("numbers.cuh"),
                "#line 1 \"rows/rows.cu\"\n",
                include_str!("rows/rows.cu")
            ),
            Self::Experts => concat!(
                include_str!("numbers.cuh"),
                "#line 1 \"chunked/tiles.cuh\"\n",
                include_str!("chunked/tiles.cuh"),
                "#line 1 \"experts/experts.cu\"\n",
                include_str!("experts/experts.cu")
            ),
            Self::Step => concat!(
                include_str!("numbers.cuh"),
                "#line 1 \"step/step.cu\"\n",
                include_str!("step/step.cu"),
                "#line 1 \"step/kda.cu\"\n",
                include_str!("step/kda.cu"),
                "#line 1 \"levels.cuh\"\n",
                include_str!("levels.cuh"),
                "#line 1 \"step/log_linear.cu\"\n",
                include_str!("step/log_linear.cu")
            ),
        }
    }
}

/// The text of [`Source::Decode`], which compiles only if the host sees its phases as the kernel does.
static DECODE: LazyLock<String> = LazyLock::new(|| {
    let kernel = concat!(
        "#line 1 \"levels.cuh\"\n",
        include_str!("levels.cuh"),
        "#line 1 \"decode/experts.cuh\"\n",
        include_str!("decode/experts.cuh"),
        "#line 1 \"decode/stream.cuh\"\n",
        include_str!("decode/stream.cuh"),
        "#line 1 \"decode/matrix.cuh\"\n",
        include_str!("decode/matrix.cuh"),
        "#line 1 \"decode/eight_bit.cuh\"\n",
        include_str!("decode/eight_bit.cuh"),
        "#line 1 \"decode/gemv.cuh\"\n",
        include_str!("decode/gemv.cuh"),
        "#line 1 \"decode/recurrent.cuh\"\n",
        include_str!("decode/recurrent.cuh"),
        "#line 1 \"decode/gated_conv.cuh\"\n",
        include_str!("decode/gated_conv.cuh"),
        "#line 1 \"decode/kda.cuh\"\n",
        include_str!("decode/kda.cuh"),
        "#line 1 \"decode/log_linear.cuh\"\n",
        include_str!("decode/log_linear.cuh"),
        "#line 1 \"decode/turns.cuh\"\n",
        include_str!("decode/turns.cuh"),
        "#line 1 \"decode/add.cuh\"\n",
        include_str!("decode/add.cuh"),
        "#line 1 \"decode/attend.cuh\"\n",
        include_str!("decode/attend.cuh"),
        "#line 1 \"decode/step.cuh\"\n",
        include_str!("decode/step.cuh"),
    );
    [include_str!("decode/phase.cuh"), &decode::phase::assertions(), kernel].concat()
});

/// Small functions over the vocabulary, before every source.
pub(crate) const COMMON: &str = include_str!("common.cuh");

/// One launch of a kernel.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Where the kernel stands.
    pub source: Source,
    /// Its name there.
    pub kernel: &'static str,
    /// Constants it is compiled with.
    pub defines: Vec<(&'static str, u32)>,
    /// Blocks in x and y.
    pub grid: (u32, u32),
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Whether blocks wait for each other, so that all must run at once.
    pub together: bool,
    /// Tensors that the copy engine goes through: they stand before the rest of the struct the kernel takes.
    pub boxes: Vec<Boxes>,
    /// The one struct the kernel takes.
    pub arguments: Vec<u8>,
}

/// What a machine offers to a kernel that fills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Multiprocessors: blocks that run at once when each takes a whole one.
    pub multiprocessors: u32,
    /// Most shared memory a block may have.
    pub shared_bytes: u32,
    /// Warps a block should have when it is alone on a multiprocessor, one of them for streaming.
    pub warps: u32,
    /// Whether it knows the words of compute capability 9.0: products of four warps at once, boxes of tensors.
    pub hopper: bool,
}

/// A GPU, or the emulator of one.
pub trait Machine {
    /// How much a launch that fills the machine can use.
    fn extent(&self) -> Extent;
    /// Takes memory, filled with NaNs; returns its address.
    fn allocate(&mut self, bytes: usize) -> Result<u64, Error>;
    /// Gives memory back.
    fn free(&mut self, address: u64) -> Result<(), Error>;
    /// Copies to the device.
    fn upload(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error>;
    /// Copies from the device, after all launches have ended.
    fn download(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error>;
    /// Fills memory with small random bf16 numbers, the same ones each time: weights to be timed.
    fn pretend(&mut self, address: u64, bytes: usize) -> Result<(), Error> {
        self.upload(address, &pretended_bytes(bytes))
    }
    /// Starts a kernel after those started before.
    fn launch(&mut self, launch: &Launch) -> Result<(), Error>;
    /// Starts a product of matrices after what was started before.
    fn product(&mut self, product: &product::Product) -> Result<(), Error> {
        product.on_host(self)
    }
}

/// bf16 numbers between −0.03 and 0.03.
fn pretended_bytes(bytes: usize) -> Vec<u8> {
    let values = weights::weight("pretended", bytes.div_ceil(2));
    let mut all: Vec<u8> = values.iter().flat_map(|x| bf16_bits(0.3 * x).to_ne_bytes()).collect();
    all.truncate(bytes);
    all
}

/// Memory holding `values`.
pub fn upload_new<T: bytemuck::NoUninit>(
    machine: &mut dyn Machine,
    values: &[T],
) -> Result<u64, Error> {
    let address = machine.allocate(std::mem::size_of_val(values))?;
    machine.upload(address, bytemuck::cast_slice(values))?;
    Ok(address)
}

/// `count` values at `address`.
pub fn download_vec<T: bytemuck::Pod>(
    machine: &mut dyn Machine,
    address: u64,
    count: usize,
) -> Result<Vec<T>, Error> {
    let mut values = vec![T::zeroed(); count];
    machine.download(address, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

/// bf16 of `x`, round to nearest even.
pub fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The number that bf16 `bits` stand for.
pub fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}
