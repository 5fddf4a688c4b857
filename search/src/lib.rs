//! Everything deltafront decides, and nothing it does: architectures and their spaces, cost formulas, proposals,
//! Pareto mathematics, the campaign as a pure state machine, and the messages between the driver and its workers.
//!
//! This crate has no clock, no I/O and no global random state: the same seed and the same outcomes give the same next
//! proposals. `tui` drives it, `db` stores what it says, `operators` and `profiles` build what it describes.

pub mod architecture;
pub mod campaign;
pub mod config;
pub mod cost;
pub mod foreign;
pub mod latency;
pub mod pareto;
pub mod proposals;
pub mod references;
pub mod space;
pub mod tensors;
pub mod wire;

pub use architecture::Architecture;
