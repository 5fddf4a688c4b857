//! The weights of a model by name: random, or from a checkpoint.

use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use search::Architecture;
use search::tensors::{Role, TensorSpec, tensors};

use crate::error::ProfileError;

/// In a checkpoint's metadata if its logits are divided by the norms of the head's rows.
const DIVIDED_LOGITS: &str = "logits_divided_by_head_norms";

/// Every tensor of one architecture, row-major f32.
#[derive(Debug, Clone)]
pub struct Weights {
    tensors: HashMap<String, Vec<f32>>,
    /// Whether logits are divided by the norms of the head's rows, as weights want that were trained with normalisation.
    pub(crate) divided_logits: bool,
}

impl Weights {
    /// Random weights of the size that training starts from. The same seed gives the same weights.
    pub fn random(architecture: &Architecture, seed: u64) -> Self {
        let mut random = SplitMix(seed);
        let tensors = tensors(architecture)
            .into_iter()
            .map(|spec| {
                let values =
                    (0..spec.elements()).map(|_| initial(spec.role, &mut random)).collect();
                (spec.name, values)
            })
            .collect();
        Self { tensors, divided_logits: false }
    }

    /// Reads an fp32 safetensors checkpoint that holds the tensors of `architecture`; others in it are ignored.
    ///
    /// # Errors
    /// When the file cannot be read, or a tensor is missing or of another shape or type.
    pub fn load(path: &Path, architecture: &Architecture) -> Result<Self, ProfileError> {
        let file = std::fs::read(path)
            .map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
        let wrong = |e: safetensors::SafeTensorError| ProfileError::Format {
            path: path.to_owned(),
            what: e.to_string(),
        };
        let (_, metadata) = SafeTensors::read_metadata(&file).map_err(wrong)?;
        let divided_logits = metadata
            .metadata()
            .as_ref()
            .is_some_and(|metadata| metadata.contains_key(DIVIDED_LOGITS));
        let file = SafeTensors::deserialize(&file).map_err(wrong)?;
        let tensors = tensors(architecture)
            .into_iter()
            .map(|spec| {
                let values = read(&file, &spec)?;
                Ok((spec.name, values))
            })
            .collect::<Result<_, ProfileError>>()?;
        Ok(Self { tensors, divided_logits })
    }

    /// A tensor by name.
    ///
    /// # Panics
    /// When the architecture that the weights were made for has no such tensor.
    pub fn get(&self, name: &str) -> &[f32] {
        self.tensors.get(name).unwrap_or_else(|| panic!("weights: there is no tensor {name}"))
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Several tensors one below the other.
    pub(crate) fn rows(&self, prefix: &str, names: &[&str]) -> Vec<f32> {
        names.iter().flat_map(|name| self.get(&format!("{prefix}{name}")).iter().copied()).collect()
    }
}

fn read(file: &SafeTensors<'_>, spec: &TensorSpec) -> Result<Vec<f32>, ProfileError> {
    let tensor = file
        .tensor(&spec.name)
        .map_err(|_| ProfileError::MissingTensor { name: spec.name.clone() })?;
    let shape: Vec<u64> = tensor.shape().iter().map(|n| *n as u64).collect();
    if shape != spec.shape || tensor.dtype() != Dtype::F32 {
        return Err(ProfileError::Tensor {
            name: spec.name.clone(),
            expected: format!("{:?} F32", spec.shape),
            got: format!("{shape:?} {:?}", tensor.dtype()),
        });
    }
    let (values, _) = tensor.data().as_chunks::<4>();
    Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// The value that training starts from (operators.md of the mixers' papers: N(0, 0.02) for matrices; A in [1, 16]; dt in
/// [0.001, 0.1]), drawn from a uniform distribution of the same variance.
fn initial(role: Role, random: &mut SplitMix) -> f32 {
    match role {
        Role::Embedding
        | Role::MetaTokens
        | Role::Head
        | Role::Reader
        | Role::Writer
        | Role::Inner => random.between(-0.02 * 3.0_f32.sqrt(), 0.02 * 3.0_f32.sqrt()),
        Role::ConvWeight | Role::ConvBias => random.between(-0.5, 0.5),
        Role::NormWeight | Role::SkipD | Role::LevelScale | Role::PhaseScale => 1.0,
        Role::Bias => 0.0,
        Role::Temperature => random.between(0.0, 1.0),
        Role::ALog => random.between(1.0, 16.0).ln(),
        Role::DtBias => {
            let dt = random.between(0.001_f32.ln(), 0.1_f32.ln()).exp();
            dt + (-(-dt).exp_m1()).ln()
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): fast, and good enough for weights that are only timed.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [low, high).
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.next() >> 40) as f32 / (1_u32 << 24) as f32;
        low + (high - low) * unit
    }
}
