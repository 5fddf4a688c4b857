//! What every token mixer does.

use std::fmt::Debug;

use tch::Tensor;

use super::state::MixerState;
use crate::retrieval::{Asked, Retrieval};

/// A built token mixer. It reads the normed hidden state and returns what is added to the residual stream.
pub trait Mixer: Debug + Send {
    /// All positions in parallel: x `[B, T, d]` → `[B, T, d]`. With a state, x follows what the state has seen, and
    /// the state is moved past x; without one, x is the beginning.
    fn forward(&self, x: &Tensor, state: Option<&mut MixerState>) -> Tensor;

    /// One position: x `[B, d]` → `[B, d]`.
    fn step(&self, x: &Tensor, state: &mut MixerState) -> Tensor;

    /// The state before the first position.
    fn state(&self, batch: i64) -> MixerState;

    /// What its memory gives when it is asked about x `[B, T, d]`: a diagnosis, not a part of the model. None: its memory
    /// is not read by keys.
    fn retrieval(&self, x: &Tensor, asked: Asked) -> Option<Retrieval>;
}
