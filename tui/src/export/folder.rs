//! What a model is exported from: the stack, its weights, what its ids stand for, how it is trained.

use std::path::PathBuf;

use search::config::TrainingConfig;

use super::stack_file::StackFile;
use super::weights::{Element, Weights};

/// What the ids of a model stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// Bytes.
    Bytes,
    /// What a tokenizer.json says.
    File(PathBuf),
    /// Symbols of generated tasks, or too few for bytes: nothing that text becomes.
    Symbols,
}

/// What is written.
pub(crate) struct Folder {
    /// What is known of the stack.
    pub(crate) file: StackFile,
    pub(crate) weights: Weights,
    pub(crate) element: Element,
    pub(crate) tokens: Tokens,
    /// How it is trained.
    pub(crate) training: TrainingConfig,
    /// Of initialisation and data order.
    pub(crate) seed: u64,
    /// Part of the text that is held out.
    pub(crate) validation_fraction: f64,
}
