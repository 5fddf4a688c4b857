//! The real program with workers that only pretend.

mod black_box;
mod compare;
mod harness;
mod input;
mod interrupt;
mod kill;
mod law;
mod many;
mod output;
mod profile;
mod report;
mod setup;
mod terminal;
mod trouble;
mod whole;
