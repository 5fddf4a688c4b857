//! Every file that the fuzzer kept, and every one that it found a fault with: by what must hold of each, and by the readers as
//! they are.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use evaluator::logits::{Question, answer};
use profiles::Weights;
use search::Architecture;
use serde_json::json;

use crate::fuzzed;
use crate::support::{Folder, open};

/// Shows a target all files of its corpus; how many there were.
fn replay(target: &str, check: impl Fn(&[u8], &Path)) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpora").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files: Vec<PathBuf> = files.map(|file| file.expect("a readable folder").path()).collect();
    for file in &files {
        check(&std::fs::read(file).expect("a readable file"), file);
    }
    files.len()
}

#[test]
fn whatever_the_token_file_it_is_taken_or_refused() {
    let folder = Folder::new();
    let count = replay("token_file", |bytes, file| {
        fuzzed::token_file(bytes);
        match open(folder.file("ids.bin", bytes)) {
            Ok(corpus) => {
                let (train, validation) = (corpus.train.len(), corpus.validation.len());
                if corpus.check(1, u32::MAX).is_ok() {
                    assert!(train > 1 && validation > 1, "{}", file.display());
                    assert_eq!(corpus.train.windows(&[0], 2).size(), [1, 2]);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
    assert!(count > 10);
}

/// One that a file of the corpus has all tensors of.
const STACK: &str = "d=4,vocab=256,tied | attn(h=1,kv=1,k=4)+ffn(4)";

#[test]
fn whatever_the_checkpoint_it_is_taken_or_refused() {
    let folder = Folder::new();
    let stack: Architecture = STACK.parse().expect("a stack");
    let taken = Cell::new(0);
    let count = replay("checkpoint", |bytes, file| {
        fuzzed::checkpoint(bytes);
        let path = folder.file("weights.safetensors", bytes);
        let question = |stack: Option<&Architecture>| -> Question {
            serde_json::from_value(json!({ "tokens": [[1, 2]], "stack": stack })).expect("one")
        };
        // What trains and what times agree, and neither takes memory for what is not in the file.
        let is_timed = Weights::load(&path, &stack).is_ok();
        let is_trained = answer(&path, &question(Some(&stack))).is_ok();
        assert_eq!(is_timed, is_trained, "{}", file.display());
        let _ = answer(&path, &question(None));
        taken.set(taken.get() + u32::from(is_timed));
    });
    assert!(count > 10 && taken.get() > 0);
}
