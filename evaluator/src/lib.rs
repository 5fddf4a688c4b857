//! Proxies: the data they are trained on, the training, the validation, the checkpoints, and the worker that does all
//! this for a campaign (`deltafront-train`, over [`search::wire`]).
//!
//! This crate builds no models (that is `operators`, which it calls) and decides nothing about a campaign (that is
//! `search`). `tui` starts its program as a child process; nothing else calls it.
//!
//! A reader's path: [`worker`] hears a request, [`evaluation`] is one request, [`training`] the loop inside it for
//! text, [`tasks`] for generated tasks.
//!
//! ```
//! // Which windows of a text make a training's batches follows from the seed alone.
//! let (seed, tokens, sequence_length) = (3, 10_000, 64);
//! let sampler = evaluator::sampler::Sampler::new(seed, tokens, sequence_length);
//! assert_eq!(sampler.windows(), 155);
//! assert!((0..155).all(|index| sampler.start(index) + sequence_length < tokens));
//! ```

#![forbid(unsafe_code)]

mod check;
pub mod checkpoint;
pub mod corpus;
mod error;
pub mod evaluation;
mod files;
pub mod learner;
pub mod logits;
mod loss;
pub mod optimizer;
mod pass;
pub mod precision;
mod retrieval;
pub mod rule;
pub mod sampler;
pub mod scale;
pub mod schedule;
pub mod score;
pub mod tasks;
pub mod training;
pub mod validation;
pub mod worker;

pub use corpus::Corpus;
pub use error::{Error, Result};
pub use training::Training;
