//! The variables of a model, made from the list of `search::tensors` and handed to the modules by name.
//!
//! Initial values depend on the seed, the tensor's name and its role, and on nothing else: not on the order of
//! construction, not on torch's generator.

use std::collections::HashMap;

use search::architecture::Mixer;
use search::tensors::{Role, TensorSpec};
use tch::{Kind, Tensor, nn};

use crate::OperatorError;

/// Standard deviation of every matrix at the start, unless a training rule scales it.
pub const INITIAL_STD: f64 = 0.02;
/// Range of Δt at the start, log-uniform, and its floor.
const DT_RANGE: (f64, f64) = (1e-3, 0.1);
const DT_FLOOR: f64 = 1e-4;
/// The least A of a head: ln 0 must not be drawn.
const A_FLOOR: f64 = 1.0 / 64.0;

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
    let count = spec.elements() as usize;
    let mut random = Random::new(seed, &spec.name);
    let values: Vec<f32> = match spec.role {
        Role::Embedding
        | Role::MetaTokens
        | Role::Head
        | Role::Reader
        | Role::Writer
        | Role::Inner => (0..count).map(|_| (INITIAL_STD * random.normal()) as f32).collect(),
        // torch's Conv1d: uniform within ±1/√fan_in; those with a bias have 4 taps
        Role::ConvWeight | Role::ConvBias => {
            let taps = spec.shape.get(1).map_or(4.0, |taps| *taps as f64);
            let most = taps.sqrt().recip();
            (0..count).map(|_| random.uniform(-most, most) as f32).collect()
        }
        Role::NormWeight | Role::SkipD | Role::LevelScale => vec![1.0; count],
        Role::ALog => {
            let lowest =
                if matches!(mixer, Some(Mixer::Mamba2(_) | Mixer::Kda(_))) { 1.0 } else { 0.0 };
            (0..count).map(|_| random.uniform(lowest, 16.0).max(A_FLOOR).ln() as f32).collect()
        }
        Role::DtBias => (0..count)
            .map(|_| {
                let dt = random.uniform(DT_RANGE.0.ln(), DT_RANGE.1.ln()).exp().max(DT_FLOOR);
                // the inverse of softplus
                (dt + (-(-dt).exp_m1()).ln()) as f32
            })
            .collect(),
    };
    let shape: Vec<i64> = spec.shape.iter().map(|n| n.cast_signed()).collect();
    let mut parts: Vec<&str> = spec.name.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let path = parts.into_iter().fold(path.clone(), |path, part| path / part);
    let initial = Tensor::f_from_slice(&values)?.f_reshape(&shape)?.f_to_kind(Kind::Float)?;
    Ok(path.f_var_copy(last, &initial)?)
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), seeded by a seed and a name.
struct Random(u64);

impl Random {
    fn new(seed: u64, name: &str) -> Self {
        // FNV-1a, then one step of the generator so that near seeds part
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let mut random = Self(seed);
        Self(random.next() ^ hash)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}
