//! The integration tests of `search`, in one binary.

mod edges;
mod references;
mod space;
mod strategies;
mod tensors;
