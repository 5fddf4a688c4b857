//! The integration tests of `search`, in one binary.

mod architecture;
mod campaign;
mod config;
mod cost;
mod edges;
mod findings;
mod frozen;
mod law;
mod objectives;
mod parameters;
mod pareto;
mod proposals;
mod references;
mod simulation;
mod space;
mod stacks;
mod statistics;
mod strategies;
mod surrogate;
mod tensors;
mod wire;
