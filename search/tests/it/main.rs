//! The integration tests of `search`, in one binary.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read sources and corpora, and ask cargo"
)]

mod architecture;
mod campaign;
mod circles;
mod config;
mod contents;
mod corpora;
mod cost;
mod drift;
mod edges;
mod findings;
mod frozen;
mod fuzzed;
mod keys;
mod knowing;
mod law;
mod loads_in;
mod objectives;
mod parameters;
mod pareto;
mod prediction;
mod promotion;
mod proposals;
mod protocol;
mod references;
mod simulation;
mod space;
mod stacks;
mod statistics;
mod strategies;
mod studies;
mod surrogate;
mod targets;
mod tensors;
mod whole_models;
mod wire;
