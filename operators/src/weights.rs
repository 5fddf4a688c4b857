//! The variables of a model, made from the list of `search::tensors` and handed to the modules by name.
//!
//! What they begin with is [`search::initial`].

use std::collections::HashMap;

use search::architecture::Mixer;
use search::initial::values;
use search::tensors::TensorSpec;
use tch::{Kind, Tensor, nn};

use crate::OperatorError;

/// A trainable tensor of a model.
#[derive(Debug)]
pub struct Variable {
    /// Its name, shape and role.
    pub spec: TensorSpec,
    /// The tensor itself, shared with the model and the variable store.
    pub tensor: Tensor,
}

/// Tensors not yet taken by a module, below a name prefix.
pub(crate) struct Weights<'a> {
    all: &'a mut HashMap<String, Tensor>,
    prefix: String,
}

impl<'a> Weights<'a> {
    pub(crate) fn root(all: &'a mut HashMap<String, Tensor>) -> Self {
        Self { all, prefix: String::new() }
    }

    /// The tensors whose names go on with `part` and a dot.
    pub(crate) fn below(&mut self, part: &str) -> Weights<'_> {
        Weights { prefix: format!("{}{part}.", self.prefix), all: self.all }
    }

    pub(crate) fn take(&mut self, name: &str) -> Result<Tensor, OperatorError> {
        let full = format!("{}{name}", self.prefix);
        self.all.remove(&full).ok_or_else(|| OperatorError::Tensor {
            module: self.prefix.clone(),
            what: format!("expected a tensor `{full}`, got none"),
        })
    }

    /// Like [`Self::take`], for the tensors that only some shapes of a mixer have.
    pub(crate) fn take_if(
        &mut self,
        wanted: bool,
        name: &str,
    ) -> Result<Option<Tensor>, OperatorError> {
        wanted.then(|| self.take(name)).transpose()
    }
}

/// Holds the modules to using every tensor of the list.
pub(crate) fn all_taken(untaken: &HashMap<String, Tensor>) -> Result<(), OperatorError> {
    match untaken.keys().next() {
        None => Ok(()),
        Some(name) => {
            let what = format!("expected every tensor to be used, `{name}` is not");
            Err(OperatorError::Tensor { module: "the model".to_owned(), what })
        }
    }
}

/// Creates the variable of `spec` below `path`; `mixer` is that of its layer.
pub(crate) fn create(
    path: &nn::Path,
    spec: &TensorSpec,
    mixer: Option<&Mixer>,
    seed: u64,
) -> Result<Tensor, OperatorError> {
    let values = values(spec, mixer, seed);
    let shape: Vec<i64> = spec.shape.iter().map(|n| n.cast_signed()).collect();
    let mut parts: Vec<&str> = spec.name.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let path = parts.into_iter().fold(path.clone(), |path, part| path / part);
    let initial = Tensor::f_from_slice(&values)?.f_reshape(&shape)?.f_to_kind(Kind::Float)?;
    Ok(path.f_var_copy(last, &initial)?)
}
