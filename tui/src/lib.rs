//! The screens and the text forms of a campaign: functions of [`db::snapshot::Snapshot`] that the program
//! `deltafront` shows.
//!
//! This library has no state of its own and writes nothing but the terminal. The commands and the driver live in the
//! program, which calls [`plot`] and [`drawing`] for its reports and [`browse`] for its screens.

#![forbid(unsafe_code)]

pub mod agreement;
pub mod ansi;
pub mod browse;
pub mod drawing;
pub mod plot;
pub mod quantity;
pub mod retrieval;
pub mod theme;
