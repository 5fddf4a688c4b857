//! The engine against the definitions, the timings against each other, the worker through its real program.

mod engine;
mod gpu;
mod measure;
mod reference;
mod worker;
