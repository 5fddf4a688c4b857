//! The engine against the definitions, the timings against each other, the worker through its real program.

mod engine;
mod measure;
mod reference;
mod worker;
