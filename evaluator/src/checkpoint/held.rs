//! What the file of a checkpoint holds, before it is anybody's tensors: values by name, and which training it is of. Knows
//! neither torch nor paths: `fuzz` tries it on bytes that nobody thought of.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

/// The key of [`Origin`] in a file's metadata.
pub(crate) const ORIGIN: &str = "deltafront";

/// There in the metadata if the logits are to be divided by the norms of the head's rows, as those of weights trained
/// with normalisation are.
pub(crate) const DIVIDED_LOGITS: &str = "logits_divided_by_head_norms";

/// Which training a checkpoint is of. All of it must match for the training to go on from there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Canonical text of what was trained, at the scale it was trained at.
    pub architecture: String,
    /// Seed of initialisation and data order.
    pub seed: u64,
    /// The training settings that shape the curve, as JSON.
    pub settings: String,
    /// The training rule, `NUMBER` of `rule`; 0 before it was written down.
    #[serde(default)]
    pub rule: u32,
    /// Tokens in the training part of the corpus.
    pub corpus_tokens: u64,
    /// Optimiser steps done.
    pub step: u64,
}

/// A file that was read.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    file: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> Held<'a> {
    /// Of the whole file.
    ///
    /// # Errors
    /// When it is no safetensors: a sentence about the file.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|problem| damaged(&problem))?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|problem| damaged(&problem))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self { file, metadata })
    }

    /// Which training it is of, if it says so.
    pub(crate) fn origin(&self) -> Option<Origin> {
        serde_json::from_str(self.told(ORIGIN)?).ok()
    }

    /// Whether its logits are divided by the norms of the head's rows.
    pub(crate) fn has_divided_logits(&self) -> bool {
        self.told(DIVIDED_LOGITS).is_some()
    }

    /// What its metadata say by this key.
    pub(crate) fn told(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Whether it has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_ok()
    }

    /// The tensor of this name, fp32 values of this shape in little-endian order.
    ///
    /// # Errors
    /// When there is none, or it is of another type or shape: a sentence about the file.
    pub(crate) fn values(&self, name: &str, shape: &[u64]) -> Result<&'a [u8], String> {
        let view = self.file.tensor(name).map_err(|problem| damaged(&problem))?;
        let found: Vec<u64> = view.shape().iter().map(|&n| n as u64).collect();
        if view.dtype() != Dtype::F32 || found != shape {
            return Err(format!("{name} is {:?} {found:?}, expected F32 {shape:?}", view.dtype()));
        }
        Ok(view.data())
    }

    /// The fp32 numbers of a tensor of any shape.
    ///
    /// # Errors
    /// When there is none, or it is of another type.
    pub(crate) fn floats(&self, name: &str) -> Result<Vec<f32>, String> {
        let view = self.file.tensor(name).map_err(|problem| damaged(&problem))?;
        let shape: Vec<u64> = view.shape().iter().map(|&n| n as u64).collect();
        let (values, _) = self.values(name, &shape)?.as_chunks::<4>();
        Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

fn damaged(problem: &safetensors::SafeTensorError) -> String {
    format!("it is damaged ({problem})")
}
