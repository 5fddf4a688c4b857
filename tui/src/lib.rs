//! The screens and the text forms of a campaign: functions of [`db::snapshot::Snapshot`] that the program
//! `deltafront` shows.
//!
//! This library has no state of its own and writes nothing but the terminal. The commands and the driver live in the
//! program, which calls [`plot`] and [`drawing`] for its reports and [`browse`] for its screens.
//!
//! ```
//! use tui::{drawing, quantity};
//!
//! let stack: search::Architecture = "d=64,vocab=256,tied | 2*gdn(h=1,k=16,v=32)+ffn(128)".parse()?;
//! let (context, width, colour) = (512, 60, false);
//! let drawn = drawing::to_text(&stack, context, width, colour);
//! assert!(drawn.contains("gdn") && drawn.lines().all(|line| line.chars().count() <= 60));
//! assert_eq!(quantity::title("decode_us"), "decode µs");
//! assert_eq!(quantity::scaled(1_240_000.0), "1.24 M");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod agreement;
pub mod ansi;
pub mod browse;
pub mod drawing;
pub mod left;
pub mod plot;
mod printable;
pub mod quantity;
pub mod retrieval;
pub mod theme;

pub use printable::printable;
