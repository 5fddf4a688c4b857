//! The real program with workers that only pretend.

mod black_box;
mod check_worker;
mod cluster;
mod compare;
mod exports;
mod harness;
mod input;
mod install;
mod interrupt;
mod kill;
mod latency_command;
mod law;
mod many;
mod output;
mod page;
mod peers;
mod profile;
mod pull;
mod report;
mod returned;
mod setup;
mod slurm;
mod terminal;
mod trainers;
mod trouble;
mod whole;
