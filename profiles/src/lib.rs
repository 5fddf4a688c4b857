//! How fast an architecture is on this device, found out by running it.
//!
//! Inference engines without libtorch, built from an architecture and its weights: [`Engine`] on the processor, those of
//! [`cuda`] on a GPU. Timings of their parts and of the whole ([`cpu`], [`cuda`]; a device is a [`backend`]), which the
//! latency table is made of; what this device is ([`facts`]); and the worker `deltafront-profile`, which the driver asks for
//! timings over the wire protocol ([`worker`]).
//!
//! This crate trains nothing and stores nothing. Kernels come from `kernels`; all `unsafe` code is there.

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
