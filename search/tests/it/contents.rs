//! What files hold.

use std::path::PathBuf;

use search::contents::{Contents, corpus_files};

fn of(files: &[&[u8]]) -> Contents {
    Contents::of(files.iter().map(|bytes| Ok(*bytes))).expect("bytes can be read")
}

#[test]
fn every_byte_and_every_border_counts() {
    let long = vec![7; (1 << 20) + 1];
    let mut other = long.clone();
    other[1 << 20] = 8;
    let all: [&[&[u8]]; 8] =
        [&[], &[b""], &[b"ab"], &[b"a", b"b"], &[b"b", b"a"], &[b"ab", b""], &[&long], &[&other]];
    for (i, a) in all.iter().enumerate() {
        for (j, b) in all.iter().enumerate() {
            assert_eq!(of(a) == of(b), i == j, "{i} {j}");
        }
    }
    // Stored in databases; by Python's blake3: h(h(b"ab").digest() + h(b"c").digest()).
    let text = "71a0deeccc169db45b0c4815d91f57a6";
    assert_eq!(of(&[b"ab", b"c"]).as_str().len(), 64);
    assert_eq!(&of(&[b"ab", b"c"]).as_str()[..32], text);
    let broken = [Ok(&b"a"[..]), Err(std::io::Error::other("torn"))];
    assert!(Contents::of(broken).is_err());
}

#[test]
fn a_folder_is_its_texts_or_its_split_token_files() {
    let found = |names: &[&str]| corpus_files(names.iter().map(PathBuf::from).collect());
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(
        found(&["b.txt", "a/z.TXT", "notes.md", "a.txt"]),
        paths(&["a/z.TXT", "a.txt", "b.txt"])
    );
    assert_eq!(found(&["val.bin", "b.txt", "train.bin"]), paths(&["train.bin", "val.bin"]));
    assert_eq!(found(&["sub/val.bin", "train.bin", "b.txt"]), paths(&["b.txt"]));
    assert!(found(&[]).is_empty());
}
