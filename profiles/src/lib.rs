//! How fast an architecture is on this device, found out by running it.
//!
//! An inference engine without libtorch ([`Engine`], and on a GPU [`gpu`]) built from an architecture and its weights; timings of its parts and of the
//! whole ([`measure`]), which the latency table is made of; what this device is ([`facts`]); and the worker
//! `deltafront-profile`, which the driver asks for timings over the wire protocol ([`worker`]).
//!
//! This crate trains nothing and stores nothing. Kernels come from `kernels`; all `unsafe` code is there.

#![forbid(unsafe_code)]

pub mod composed;
pub mod diagnosis;
pub mod engine;
mod error;
pub mod facts;
pub mod gpu;
mod limits;
pub mod measure;
mod nvml;
mod weights;
pub mod worker;

pub use engine::{Engine, State};
pub use error::ProfileError;
pub use weights::Weights;
