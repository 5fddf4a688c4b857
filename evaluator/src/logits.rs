//! The logits of a model whose weights lie in a file: what an export is checked against.

use std::path::Path;

use operators::Model;
use search::Architecture;
use search::foreign::in_our_modelling_file;
use search::tensors::tensors;
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::checkpoint::Held;
use crate::error::{Error, Result};

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Sequences of one length.
    tokens: Vec<Vec<i64>>,
    /// Tokens to add to each sequence, always the likeliest.
    #[serde(default)]
    greedy: usize,
    /// The stack; none: the one that the file names.
    #[serde(default)]
    stack: Option<Architecture>,
    /// Whether logits are divided by the norms of the head's rows; none: as the file says.
    #[serde(default)]
    divided: Option<bool>,
}

/// What is answered.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// After each token, `[B, T, vocab]`.
    logits: Vec<Vec<Vec<f32>>>,
    /// The tokens that were added, `[B, greedy]`, one at a time through the state.
    greedy: Vec<Vec<i64>>,
}

/// Answers by the model whose weights, under our names or those of an export for transformers, are in `weights`.
///
/// # Errors
/// When the file lacks a tensor or does not say of which stack it is, or the tokens are no sequences of one length.
pub fn answer(weights: &Path, question: &Question) -> Result<Answer> {
    let error = |problem: String| Error::Checkpoint { path: weights.to_owned(), problem };
    let Loaded { model, stack, .. } = load(weights, question.stack.as_ref(), question.divided)?;
    let length = question.tokens.first().map_or(0, Vec::len);
    let vocab = i64::from(stack.vocab());
    let is_token = |token: &i64| (0..vocab).contains(token);
    if length == 0
        || question.tokens.iter().any(|row| row.len() != length || !row.iter().all(is_token))
    {
        return Err(error(format!("asked for sequences of one length of tokens below {vocab}")));
    }
    let batch = question.tokens.len() as i64;
    let tokens = Tensor::from_slice(&question.tokens.concat()).view([batch, length as i64]);
    tch::no_grad(|| {
        let logits = model.forward(&tokens);
        let mut state = model.state(batch);
        let mut last = model.extend(&tokens, &mut state).select(1, length as i64 - 1);
        let mut added = vec![Vec::with_capacity(question.greedy); question.tokens.len()];
        for _ in 0..question.greedy {
            let next = last.argmax(-1, false); // [B]
            let ids: Vec<i64> = Vec::try_from(&next)?;
            added.iter_mut().zip(ids).for_each(|(row, id)| row.push(id));
            last = model.step(&next, &mut state);
        }
        Ok(Answer { logits: Vec::try_from(&logits)?, greedy: added })
    })
}

/// A model whose weights come from a file.
pub(crate) struct Loaded {
    pub(crate) model: Model,
    pub(crate) stack: Architecture,
    /// Owns its variables.
    _store: VarStore,
}

/// The model whose weights, under our names or those of an export for transformers, are in `weights`: of `stack`, else of the one
/// that the file names; its logits are `divided` by the norms of the head's rows, else as the file says.
pub(crate) fn load(
    weights: &Path,
    stack: Option<&Architecture>,
    divided: Option<bool>,
) -> Result<Loaded> {
    let error = |problem: String| Error::Checkpoint { path: weights.to_owned(), problem };
    let bytes =
        std::fs::read(weights).map_err(|source| error(format!("it cannot be read ({source})")))?;
    let held = Held::read(&bytes).map_err(error)?;
    let stack = match (stack, held.origin()) {
        (Some(stack), _) => stack.clone(),
        (None, Some(origin)) => {
            origin.architecture.parse().map_err(|e| error(format!("its stack: {e}")))?
        }
        (None, None) => return Err(error("it does not say of which stack it is".to_owned())),
    };
    let values_of = |name: &str, shape: &[u64]| {
        let theirs = in_our_modelling_file(name);
        held.values(if held.has(name) { name } else { &theirs }, shape)
    };
    // Before memory is taken for a model: a stack that a few bytes name may be larger than any machine.
    for spec in tensors(&stack) {
        values_of(&spec.name, &spec.shape).map_err(error)?;
    }
    let store = VarStore::new(Device::Cpu);
    let mut model = Model::new(&store.root(), &stack, 0)?;
    for variable in model.variables() {
        let spec = &variable.spec;
        let size: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
        let values = values_of(&spec.name, &spec.shape).map_err(error)?;
        let values = Tensor::f_from_data_size(values, &size, Kind::Float)?;
        tch::no_grad(|| variable.tensor.shallow_clone().f_copy_(&values))?;
    }
    model.divide_by_head_norms(divided.unwrap_or(held.has_divided_logits()));
    Ok(Loaded { model, stack, _store: store })
}
