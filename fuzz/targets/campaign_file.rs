//! See the function of this name, which the tests of `search` call with what is kept in `corpora`.
#![no_main]

#[path = "../../search/tests/it/fuzzed.rs"]
#[expect(dead_code, reason = "one target of several")]
mod fuzzed;
#[path = "../../search/tests/it/stacks.rs"]
#[expect(dead_code, reason = "what the tests want, too")]
mod stacks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzed::campaign_file(bytes));
