//! Everything deltafront decides, and nothing it does: architectures and their spaces, cost formulas, proposals,
//! Pareto mathematics, the campaign as a pure state machine, and the messages between the driver and its workers.
//!
//! This crate has no clock, no I/O and no global random state: the same seed and the same outcomes give the same next
//! proposals. `tui` drives it, `db` stores what it says, `operators` and `profiles` build what it describes.
//!
//! In reading order: [`architecture`] is the genome and its one text form; [`tensors`] and [`cost`] are what follows from
//! it by formula, [`latency`] what must be measured. [`space`] holds which architectures may be proposed and the moves
//! between them, [`references`] the stacks that people designed. [`proposals`] choose with the help of [`pareto`], and
//! [`campaign`] is one search from its first proposal to its end, of stacks or of any other [`subject`]. [`law`] is how the loss falls
//! with depth and width. [`abilities`] is what mixers
//! are known for, to be shown by training; [`studies`] are published findings of stacks. [`config`] is what the user writes, [`contents`] what the files hold that
//! it names, [`targets`] which stacks other software holds, [`wire`] what the workers hear and say, [`failure`] why they
//! come to nothing, [`device`] where they compute. [`metric`] names the values that all of them speak of.
//!
//! Asking and telling without memory; what is told here would come from training:
//! ```
//! use search::config::{CampaignFile, TEMPLATE};
//! use search::pareto::Objectives;
//! use search::proposals::{Outcome, Proposer, Trial};
//!
//! let file = CampaignFile::parse(TEMPLATE)?;
//! let space = file.space()?;
//! let mut proposer = Proposer::new(file.search.algorithm, file.seed, 2, Vec::new());
//! let mut trials = Vec::new();
//! for number in 1..=4 {
//!     let point = proposer.propose(&space, number, &trials)?.point;
//!     let parameters = search::tensors::parameters(&point) as f64;
//!     let outcome = Outcome::Known(Objectives::new([parameters])?);
//!     trials.push(Trial { number, point, outcome });
//! }
//! let last = &trials[3].point;
//! assert!(space.contains(last).is_ok());
//! assert_eq!(last.to_string().parse::<search::Architecture>()?, *last);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod abilities;
pub mod architecture;
pub mod campaign;
pub mod config;
pub mod contents;
pub mod cost;
pub mod device;
pub mod failure;
pub mod foreign;
pub mod initial;
pub mod latency;
pub mod law;
pub mod limits;
pub mod metric;
pub mod name;
pub mod objective;
pub mod parameters;
pub mod pareto;
pub mod proposals;
pub mod references;
pub mod regression;
pub mod retrieval;
pub mod space;
pub mod statistics;
pub mod studies;
pub mod subject;
pub mod surrogate;
pub mod targets;
pub mod tensors;
pub mod value;
pub mod wire;

pub use architecture::Architecture;
