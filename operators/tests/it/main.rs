//! The modules against the f64 definitions of `kernels`, against the list of `search::tensors`, and against each other.

mod definition;
mod goldens;
mod gradients;
mod identities;
mod kernel;
mod kernel_operations;
mod linear;
mod log_linear;
mod model;
mod moe;
mod names;
mod retrieval;
mod support;
