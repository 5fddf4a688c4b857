//! The kernels against their definitions, and the definitions against each other.

mod definitions;
mod random;
