//! Checkpoints: `NAME.safetensors` has the weights in fp32 under the names of [`search::tensors`] and nothing else, so
//! that any program that knows these names can use it; `NAME.optimizer.safetensors` beside it has what a resumed
//! training needs. Both say which training they are of. The optimiser's file is written first: where the weights are,
//! their state is too.

mod held;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use tch::{Kind, Tensor};

pub(crate) use held::Held;
pub use held::Origin;
use held::{DIVIDED_LOGITS, ORIGIN};

use crate::error::{Error, Result};
use crate::files;
use crate::optimizer::Optimizer;

/// What came of the tasks that were learnt beside the text, in the trunk's metadata: longer trainings report it again.
const TASKS: &str = "tasks";

/// The loss of every step, in the trunk.
const LOSSES: &str = "losses";

/// Where the trunk of these weights lies.
pub fn trunk_path(weights: &Path) -> PathBuf {
    weights.with_extension("trunk.safetensors")
}

/// Writes the weights; a reader never sees half of them.
pub(crate) fn save(
    path: &Path,
    origin: &Origin,
    divided_logits: bool,
    optimizer: &Optimizer,
) -> Result<()> {
    let divided = divided_logits.then(|| (DIVIDED_LOGITS, "true".to_owned()));
    write(path, origin, divided, &optimizer.weights())
}

/// Writes the trunk beside the weights at `path`.
pub(crate) fn save_trunk(
    path: &Path,
    origin: &Origin,
    optimizer: &Optimizer,
    losses: &[f32],
    tasks: Option<&str>,
) -> Result<()> {
    let mut state = optimizer.weights();
    state.extend(optimizer.moments());
    state.push((LOSSES.to_owned(), Tensor::from_slice(losses)));
    let tasks = tasks.map(|tasks| (TASKS, tasks.to_owned()));
    write(&trunk_path(path), origin, tasks, &state)
}

/// What a trunk has beside the optimiser's state.
#[derive(Debug)]
pub(crate) struct Trunk {
    pub(crate) step: u64,
    /// Of every step so far.
    pub(crate) losses: Vec<f32>,
    /// What came of the tasks, as it was saved.
    pub(crate) tasks: Option<String>,
}

/// Puts the trunk of the weights at `path` into `optimizer`, whose views the model computes with. Returns the rest of it.
pub(crate) fn load(path: &Path, origin: &Origin, optimizer: &mut Optimizer) -> Result<Trunk> {
    let mut targets = optimizer.weights();
    targets.extend(optimizer.moments());
    let mut extra = [(LOSSES, Vec::new())];
    let (step, tasks) = read(&trunk_path(path), origin, &targets, &mut extra)?;
    let [(_, losses)] = extra;
    optimizer.set_updates(step);
    Ok(Trunk { step, losses, tasks })
}

fn write(
    path: &Path,
    origin: &Origin,
    told: Option<(&str, String)>,
    tensors: &[(String, Tensor)],
) -> Result<()> {
    let error = |problem: String| Error::Checkpoint { path: path.to_owned(), problem };
    let data: Vec<(&str, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let shape = tensor.size().iter().map(|&n| n as usize).collect();
            (name.as_str(), shape, float_bytes(tensor))
        })
        .collect();
    let views = data
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|problem| error(problem.to_string()))?;
    let origin = serde_json::to_string(origin).map_err(|problem| error(problem.to_string()))?;
    let mut metadata = HashMap::from([(ORIGIN.to_owned(), origin)]);
    metadata.extend(told.map(|(key, value)| (key.to_owned(), value)));
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|problem| error(problem.to_string()))?;
    files::write_atomically(path, &bytes)
}

/// Copies a file's tensors into `targets` and `extra`, after checking that the file is of the same training.
/// Returns its step and what it tells of tasks.
fn read(
    path: &Path,
    origin: &Origin,
    targets: &[(String, Tensor)],
    extra: &mut [(&str, Vec<f32>)],
) -> Result<(u64, Option<String>)> {
    let error = |problem: String| Error::Checkpoint { path: path.to_owned(), problem };
    let bytes =
        std::fs::read(path).map_err(|source| error(format!("it cannot be read ({source})")))?;
    let held = Held::read(&bytes).map_err(error)?;
    let found =
        held.origin().ok_or_else(|| error("it does not say which training it is of".to_owned()))?;
    let expected = Origin { step: found.step, ..origin.clone() };
    if found != expected {
        return Err(error(format!(
            "it is of another training: expected {expected:?}, found {found:?}"
        )));
    }
    for (name, target) in targets {
        let size = target.size();
        let shape: Vec<u64> = size.iter().map(|&n| n as u64).collect();
        let values = held.values(name, &shape).map_err(error)?;
        let values = Tensor::f_from_data_size(values, &size, Kind::Float)?;
        target.shallow_clone().f_copy_(&values)?;
    }
    for (name, values) in extra {
        *values = held.floats(name).map_err(error)?;
    }
    Ok((found.step, held.told(TASKS).map(str::to_owned)))
}

fn float_bytes(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.numel() * 4];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}
