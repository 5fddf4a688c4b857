//! Stacks that people designed by hand, to be evaluated on the same terms as what the search proposes.
//!
//! All but the parameter-optimal one and the plain Mamba2 have an FFN after every mixer. The sources give most of them
//! for one size; here each is a rule for any number of layers, and exact at the size of its source. [`ReferenceShape`]
//! says how wide they are, [`EqualLatency`] finds the width at which one is as fast as another stack.

mod equal_latency;
mod shape;
mod stack;

pub use equal_latency::EqualLatency;
pub use shape::ReferenceShape;
pub use stack::{Reference, UnknownReference};
