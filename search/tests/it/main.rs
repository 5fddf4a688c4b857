//! The integration tests of `search`, in one binary.

mod edges;
mod strategies;
mod tensors;
