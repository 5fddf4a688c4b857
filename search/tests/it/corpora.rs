//! Every input that the fuzzer kept, and every one that it found a fault with.

use std::path::Path;

use crate::fuzzed;

/// Shows a target all files of its corpus; how many there were.
fn replay(target: &str, check: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpora").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files = files.map(|file| file.expect("a readable folder").path());
    files.map(|file| check(&std::fs::read(&file).expect("a readable file"))).count()
}

#[test]
fn whatever_the_campaign_file_it_is_taken_or_refused() {
    assert!(replay("campaign_file", fuzzed::campaign_file) > 10);
}

#[test]
fn whatever_the_text_of_a_stack_it_is_taken_or_refused() {
    assert!(replay("text_form", fuzzed::text_form) > 10);
}

#[test]
fn whatever_the_line_it_is_taken_or_refused() {
    assert!(replay("wire", fuzzed::wire) > 10);
}

#[test]
fn whatever_workers_say_a_campaign_keeps_rows_that_make_sense() {
    assert!(replay("replies", fuzzed::replies) > 10);
}
