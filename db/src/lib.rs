//! The SQLite store of campaigns.

pub mod snapshot;
