//! Architectures as trainable torch models: the mixers, the blocks, the model.
//!
//! [`Model::new`] builds what a [`search::Architecture`] describes, with exactly the tensors of
//! [`search::tensors::tensors`]. Each mixer has two forms that agree: a chunked one, parallel over time, for training
//! and prefill, and a recurrent one that takes one token and a state. The chunked one runs by the training kernels of the
//! `kernels` crate where they apply (f32 or bf16 on the CPU), else, as the recurrent one always, in torch operators; what
//! they compute is defined, in plain f64 loops, in `kernels`.
//!
//! This crate does not train (that is `evaluator`, its caller), reads no files, and is not the inference engine whose
//! latency is measured (that is `profiles`, which needs no libtorch).
//!
//! ```
//! use tch::{Device, Kind, Tensor, nn};
//!
//! let stack: search::Architecture = "d=32,vocab=256,tied | gdn(h=1,k=16,v=32)+ffn(64)".parse()?;
//! let variables = nn::VarStore::new(Device::Cpu);
//! let seed = 0;
//! let model = operators::Model::new(&variables.root(), &stack, seed)?;
//! let tokens = Tensor::zeros([2, 10], (Kind::Int64, Device::Cpu)); // [B, T]
//! assert_eq!(model.forward(&tokens).size(), [2, 10, 256]); // [B, T, vocab]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod block;
mod error;
pub mod ffn;
pub mod gpu;
#[expect(
    unsafe_code,
    reason = "the one file that crosses into libtorch by itself, and says of each block why it is sound"
)]
mod libtorch;
pub mod mixer;
mod model;
pub mod ops;
pub mod precision;
pub mod retrieval;
mod slow;
mod weights;

pub use error::OperatorError;
pub use mixer::MixerState;
pub use model::{Model, State};
pub use slow::{slow_ffn, slow_way};
pub use weights::Variable;
