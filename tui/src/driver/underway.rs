//! A training that is under way.

use std::time::Instant;

use db::TrainedBy;

use super::slot::Slot;

/// A training under way, of which only the request's number comes back.
pub(super) struct Underway {
    /// The candidate.
    pub(super) number: u32,
    /// Tokens that are asked for, from the beginning; of a point of a black box 0.
    pub(super) tokens: u64,
    pub(super) seed: u64,
    pub(super) began: Instant,
}

impl Underway {
    /// By whom it is done, and where, once the worker in this slot is known.
    pub(super) fn by(&self, slot: &Slot) -> Option<TrainedBy> {
        let (seat, worker) = (slot.seat.clone()?, slot.who.clone()?);
        let Self { number, tokens, seed, .. } = *self;
        Some(TrainedBy { number, tokens, seed, worker, device: seat.device, host: seat.host })
    }
}
