//! What a model begins with: the value of every tensor, from a seed, its name and its role, and from nothing else: not
//! from the order of construction, not from a generator of torch's.
//!
//! [`values`] are those that the definition of a layer names; [`factor`] is what the training rule makes of them
//! (`docs/studies/training-rule.md`). `operators` builds models so, and an export writes them.

use crate::architecture::{Architecture, Mixer, Role, Temperature, TensorSpec};

/// Standard deviation of every matrix before the training rule scales it.
pub const STD: f64 = 0.02;
/// Range of Δt at the start, log-uniform, and its floor.
const DT_RANGE: (f64, f64) = (1e-3, 0.1);
const DT_FLOOR: f64 = 1e-4;
/// The least A of a head: ln 0 must not be drawn.
const A_FLOOR: f64 = 1.0 / 64.0;

/// Size of the matrices that write to the residual stream, over that of other matrices and the root of the branches.
const WRITER: f64 = 0.25;

/// The values of a tensor, row by row; `mixer` is that of its layer.
pub fn values(spec: &TensorSpec, mixer: Option<&Mixer>, seed: u64) -> Vec<f32> {
    let count = spec.elements() as usize;
    let mut random = Random::new(seed, &spec.name);
    match spec.role {
        Role::Embedding
        | Role::MetaTokens
        | Role::Head
        | Role::Reader
        | Role::Writer
        | Role::Inner => (0..count).map(|_| (STD * random.normal()) as f32).collect(),
        // torch's Conv1d: uniform within ±1/√fan_in; those with a bias have 4 taps
        Role::ConvWeight | Role::ConvBias => {
            let taps = spec.shape.get(1).map_or(4.0, |taps| *taps as f64);
            let most = taps.sqrt().recip();
            (0..count).map(|_| random.uniform(-most, most) as f32).collect()
        }
        Role::NormWeight | Role::SkipD | Role::LevelScale | Role::PhaseScale => vec![1.0; count],
        Role::Bias => vec![0.0; count],
        Role::Temperature => {
            Temperature::Learnt.values(count as u32).into_iter().map(|x| x as f32).collect()
        }
        Role::ALog => {
            let own = match mixer {
                Some(Mixer::Parallel(of)) => Some(of.side().into()),
                own => own.copied(),
            };
            let lowest =
                if matches!(own, Some(Mixer::Mamba2(_) | Mixer::Kda(_))) { 1.0 } else { 0.0 };
            (0..count).map(|_| random.uniform(lowest, 16.0).max(A_FLOOR).ln() as f32).collect()
        }
        Role::DtBias => (0..count)
            .map(|_| {
                let dt = random.uniform(DT_RANGE.0.ln(), DT_RANGE.1.ln()).exp().max(DT_FLOOR);
                // the inverse of softplus
                (dt + (-(-dt).exp_m1()).ln()) as f32
            })
            .collect(),
    }
}

/// By how much the training rule multiplies the [`values`] of a tensor: matrices have the size of their fan-in (muP, arXiv
/// 2203.03466, table 8), those that write to the residual stream are small beside the embeddings, so that a stack begins as
/// a model of single tokens, and smaller the more sum up.
pub fn factor(spec: &TensorSpec, architecture: &Architecture) -> f64 {
    let inputs = spec.shape[spec.shape.len() - 1] as f64;
    let std = match spec.role {
        Role::Reader | Role::Inner => inputs.powf(-0.5),
        Role::Writer => WRITER * (inputs * architecture.branches()).powf(-0.5),
        Role::Embedding | Role::MetaTokens | Role::Head => {
            f64::from(architecture.d_model()).powf(-0.5)
        }
        Role::ConvWeight
        | Role::ConvBias
        | Role::NormWeight
        | Role::ALog
        | Role::DtBias
        | Role::SkipD
        | Role::LevelScale
        | Role::PhaseScale
        | Role::Bias
        | Role::Temperature => return 1.0,
    };
    std / STD
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
