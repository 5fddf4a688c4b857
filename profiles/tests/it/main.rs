//! The engine against the definitions, the timings against each other, the worker through its real program.

mod cuda_engines;
mod cuda_layers;
mod cuda_stream;
mod engine;
mod measure;
mod reference;
mod worker;
