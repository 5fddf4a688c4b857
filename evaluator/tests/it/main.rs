//! Proxies from text to values: corpora good and bad, the training, checkpoints, and the worker over its pipes.

mod agreement;
mod checkpoints;
mod corpora;
mod data;
mod fuzzed;
mod optimizer;
mod rule;
mod support;
mod tasks;
mod tokenizers;
mod training;
mod worker;
