//! See the function of this name, which the tests of `evaluator` call with what is kept in `corpora`.
#![no_main]

#[path = "../../evaluator/tests/it/fuzzed.rs"]
#[expect(dead_code, reason = "one target of several")]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzed::checkpoint(bytes));
