//! What mixers remember between positions.

use tch::{Device, Kind, Tensor};

use super::phases::PhaseState;
use crate::ops::log_linear::Levels;

/// What a mixer remembers between positions.
#[derive(Debug)]
pub enum MixerState {
    /// Attention's keys (rotated) and values.
    Cache(Cache),
    /// The matrix of a linear mixer and the window of its convolution.
    Recurrent(Recurrent),
    /// The last inputs of a convolution that is the whole mixer, oldest first: `[B, k − 1, C]`, in f32 or f64.
    Window(Tensor),
    /// Those of two mixers that read the same input.
    Both(Box<[MixerState; 2]>),
}

/// Keys and values of the past, or of what a window still needs of it.
#[derive(Debug)]
pub struct Cache {
    /// `[B, H_kv, positions, K]`
    pub k: Tensor,
    /// `[B, H_kv, positions, K]`
    pub v: Tensor,
    /// Number of positions seen, those forgotten included.
    pub position: i64,
    /// Of attention with Selective RoPE.
    pub phases: Option<PhaseState>,
}

/// The state of a linear mixer, in f32 or f64.
#[derive(Debug)]
pub struct Recurrent {
    /// `[B, H, K, V]`; of a log-linear mixer one for each level, `[B, H, L, K, V]`
    pub memory: Tensor,
    /// Number of positions seen.
    pub position: i64,
    /// The last three inputs of the short convolution, oldest first: `[B, 3, C]`
    pub conv: Tensor,
    /// Of a mixer with Selective RoPE.
    pub phases: Option<PhaseState>,
}

impl MixerState {
    pub(super) fn cache(&mut self) -> &mut Cache {
        match self {
            Self::Cache(cache) => cache,
            _ => panic!("attention got the state of another mixer; use the layer's own state()"),
        }
    }

    pub(super) fn recurrent(&mut self) -> &mut Recurrent {
        match self {
            Self::Recurrent(state) => state,
            _ => panic!("a linear mixer got the state of another; use the layer's own state()"),
        }
    }

    pub(super) fn both(&mut self) -> &mut [MixerState; 2] {
        match self {
            Self::Both(states) => states,
            _ => {
                panic!("parallel heads got the state of another mixer; use the layer's own state()")
            }
        }
    }

    pub(super) fn window(&mut self) -> &mut Tensor {
        match self {
            Self::Window(inputs) => inputs,
            _ => {
                panic!("a convolution got the state of another mixer; use the layer's own state()")
            }
        }
    }
}

impl Cache {
    pub(super) fn new(batch: i64, heads: i64, width: i64, options: (Kind, Device)) -> Self {
        let empty = || Tensor::zeros([batch, heads, 0, width], options);
        Self { k: empty(), v: empty(), position: 0, phases: None }
    }
}

impl Recurrent {
    /// memory: B, H, K, V.
    pub(super) fn new(
        memory: [i64; 4],
        levels: Option<u32>,
        channels: i64,
        options: (Kind, Device),
    ) -> Self {
        let [b, h, k, v] = memory;
        let memory = match levels {
            Some(levels) => Tensor::zeros([b, h, levels.into(), k, v], options),
            None => Tensor::zeros([b, h, k, v], options),
        };
        Self { memory, position: 0, conv: Tensor::zeros([b, 3, channels], options), phases: None }
    }

    /// Runs a log-linear rule on the memory, which moves on.
    pub(super) fn through(&mut self, run: impl FnOnce(&mut Levels) -> Tensor) -> Tensor {
        let mut levels = Levels { memory: self.memory.shallow_clone(), position: self.position };
        let o = run(&mut levels);
        self.memory = levels.memory;
        o
    }
}
