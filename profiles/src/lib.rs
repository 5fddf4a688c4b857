//! How fast an architecture is on this device, found out by running it.
//!
//! Inference engines without libtorch, built from an architecture and its weights: [`Engine`] on the processor, those of
//! [`cuda`] on a GPU. Timings of their parts and of the whole ([`cpu`], [`cuda`]; a device is a [`backend`]), which the
//! latency table is made of; what this device is ([`facts`]); and the worker `deltafront-profile`, which the driver asks for
//! timings over the wire protocol ([`worker`]).
//!
//! This crate trains nothing and stores nothing. Kernels come from `kernels`; all `unsafe` code is there.
//!
//! ```
//! use profiles::{Engine, Weights};
//!
//! let stack: search::Architecture = "d=32,vocab=256,tied | gdn(h=1,k=16,v=32)+ffn(64)".parse()?;
//! let (seed, threads, batch) = (0, 1, 1);
//! let engine = Engine::new(&stack, &Weights::random(&stack, seed), threads);
//! let mut state = engine.state(batch);
//! engine.prefill(&mut state, b"a prompt".map(u32::from).as_slice())?;
//! let logits = engine.decode(&mut state, &[u32::from(b'!')])?; // [batch, vocab]
//! assert_eq!((logits.len(), state.position()), (256, 9));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod backend;
pub mod composed;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod diagnosis;
pub mod engine;
mod error;
pub mod facts;
mod part;
mod weights;
pub mod worker;

pub use engine::{Engine, State};
pub use error::ProfileError;
pub use weights::Weights;
