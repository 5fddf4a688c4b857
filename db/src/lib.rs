//! The SQLite store of campaigns: one file that holds every campaign, candidate, value, curve and latency.
//!
//! The driver (`deltafront run`) is the only writer: it takes a [`Run`] on its campaign and hands over [`Change`]s, one
//! transaction for each event, so that a `kill -9` loses at most the work that was running. Everybody else opens the
//! file read-only and reads [`snapshot::Snapshot`]s, live if they like: [`Store::revision`] is cheap.
//!
//! The store decides nothing: what a candidate is worth is `search`'s business. It refuses what must never be stored:
//! a value that is not finite, a second driver on one campaign, a file of a newer version.

#![forbid(unsafe_code)]

mod campaigns;
mod candidates;
mod changes;
mod error;
mod latencies;
mod log;
mod open;
mod process;
mod read;
mod row;
mod runs;
pub mod snapshot;

pub use campaigns::NewCampaign;
pub use changes::Change;
pub use error::DbError;
pub use log::{EventRow, RunRow, WorkerRow};
pub use open::{Access, SCHEMA_VERSION, Store};
pub use process::Owner;
pub use runs::{Run, RunEnd};
