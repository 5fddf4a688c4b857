//! The integration tests of `search`, in one binary.

mod edges;
mod space;
mod strategies;
mod tensors;
