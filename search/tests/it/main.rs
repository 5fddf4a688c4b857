//! The integration tests of `search`, in one binary.

mod strategies;
mod tensors;
