//! Corpora: what is read, how it is split, and what is said about bad ones.

use std::collections::HashSet;
use std::path::Path;

use evaluator::corpus::{Tokens, split};
use evaluator::{Corpus, Error};
use search::config::DataConfig;

use crate::support::{Folder, data, open};

fn all(tokens: &Tokens) -> Vec<i64> {
    let n = tokens.len();
    tokens.windows(&[0], n).view([-1]).try_into().expect("a vector of int64")
}

fn text(tokens: &Tokens) -> String {
    all(tokens).into_iter().map(|id| char::from(u8::try_from(id).expect("bytes"))).collect()
}

fn message(result: evaluator::Result<Corpus>) -> String {
    result.expect_err("the corpus is bad").to_string()
}

#[test]
fn one_text_holds_out_its_tail() {
    let folder = Folder::new();
    let content: String = (0..1000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    let corpus = open(folder.file("a.txt", &content)).unwrap();
    assert_eq!(corpus.validation.len(), 100);
    assert_eq!(text(&corpus.train) + &text(&corpus.validation), content + "\n");
    assert!((corpus.bytes_per_token().unwrap() - 1.0).abs() < 1e-12);
}

#[test]
fn the_border_never_cuts_a_character() {
    for bytes in [63, 100, 101, 102] {
        let parts = split(Path::new("x"), vec!["é€".repeat(bytes)], 0.1).unwrap();
        assert_eq!(parts.train.concat() + &parts.validation.concat(), "é€".repeat(bytes) + "\n");
    }
}

#[test]
fn documents_are_held_out_whole_evenly_and_apart() {
    let documents: Vec<String> =
        (0..200).map(|i| format!("<{i}> {}", "word ".repeat(1 + i * 7 % 50))).collect();
    let total: usize = documents.iter().map(|document| document.len() + 1).sum();
    for fraction in [0.03, 0.1, 0.5] {
        let parts = split(Path::new("x"), documents.clone(), fraction).unwrap();
        let train: HashSet<&String> = parts.train.iter().collect();
        assert!(parts.validation.iter().all(|document| !train.contains(document)));
        assert_eq!(parts.train.len() + parts.validation.len(), 200);
        let held_out: usize = parts.validation.iter().map(String::len).sum();
        assert!(
            (held_out as f64 / total as f64 - fraction).abs() < 0.01,
            "{fraction}: {held_out} of {total}"
        );
        let first_half = parts
            .validation
            .iter()
            .filter(|d| documents[..100].iter().any(|x| d.starts_with(x)))
            .count();
        let share = first_half as f64 / parts.validation.len() as f64;
        assert!(
            (0.3..0.7).contains(&share),
            "{fraction}: {share} of the held-out documents in the first half"
        );
    }
}

#[test]
fn a_copy_of_a_document_never_stands_on_both_sides() {
    let mut documents: Vec<String> = (0..100).map(|i| format!("document number {i}")).collect();
    documents.extend((0..100).map(|i| format!("document number {i}\n")));
    let parts = split(Path::new("x"), documents, 0.2).unwrap();
    let train: HashSet<&String> = parts.train.iter().collect();
    assert_eq!(parts.train.len() + parts.validation.len(), 100);
    assert!(parts.validation.iter().all(|document| !train.contains(document)));
}

#[test]
fn a_folder_is_read_in_order_with_its_subfolders() {
    let folder = Folder::new();
    folder.file("b.txt", "second ");
    folder.file("a/z.TXT", "first ");
    folder.file("c/d/e.txt", "third, which is longer than the others");
    folder.file("a/notes.md", "never read");
    let corpus = open(folder.path()).unwrap();
    let whole = text(&corpus.train) + &text(&corpus.validation);
    assert_eq!(whole, "first \nsecond \nthird, which is longer than the others\n");
}

#[test]
fn json_lines_give_their_text() {
    let folder = Folder::new();
    let lines = "{\"text\": \"one\\ntwo\", \"id\": 7}\n\n{\"text\":\"three and more\"}\n";
    let corpus = open(folder.file("a.jsonl", lines)).unwrap();
    assert_eq!(text(&corpus.train) + &text(&corpus.validation), "one\ntwo\nthree and more\n");
    let broken = message(open(folder.file("b.jsonl", "{\"text\":\"a\"}\n{\"body\":\"b\"}\n")));
    assert!(broken.contains("line 2") && broken.contains("b.jsonl"), "{broken}");
}

fn u16_bytes(ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    ids.into_iter().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn token_files_keep_ids_above_half_the_range() {
    let folder = Folder::new();
    let ids: Vec<u16> = (0..1000).map(|i| (i * 65) as u16).chain([u16::MAX]).collect();
    let corpus = open(folder.file("a.bin", u16_bytes(ids.clone()))).unwrap();
    let mut found = all(&corpus.train);
    found.extend(all(&corpus.validation));
    assert!(found.iter().eq(ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>().iter()));
    assert_eq!(corpus.validation.len(), 100);
    assert_eq!(corpus.bytes_per_token(), None);
    assert!(corpus.describe().contains("bits_per_token"), "{}", corpus.describe());
    assert!(corpus.check(10, 65536).is_ok());
    let small = corpus.check(10, 65535).unwrap_err();
    assert!(small.is_infeasible() && small.to_string().contains("65536"), "{small}");
}

#[test]
fn a_folder_of_two_token_files_is_taken_as_split() {
    let folder = Folder::new();
    folder.file("train.bin", u16_bytes(0..50));
    let half = message(open(folder.path()));
    assert!(half.contains("no val.bin"), "{half}");
    folder.file("val.bin", u16_bytes(100..120));
    let corpus = open(folder.path()).unwrap();
    assert_eq!(all(&corpus.train), (0..50).collect::<Vec<_>>());
    assert_eq!(all(&corpus.validation), (100..120).collect::<Vec<_>>());
}

#[test]
fn bad_corpora_say_what_to_do() {
    let folder = Folder::new();
    let cases = [
        (folder.path().join("nowhere"), "no such file", "data.corpus"),
        (folder.file("empty.txt", ""), "empty", "point data.corpus at text"),
        (folder.file("nul.txt", b"text\0text"), "byte 4 is 0", ".bin"),
        (folder.file("latin.txt", b"caf\xe9 au lait"), "not UTF-8 at byte 3", ".bin"),
        (folder.file("empty.bin", ""), "empty", "uint16"),
        (folder.file("odd.bin", [1, 2, 3]), "3 bytes are not", "uint16"),
        (
            folder.file("no-text/readme.md", "x").parent().unwrap().to_owned(),
            "no .txt",
            "data.corpus",
        ),
        (
            folder.file("one.txt", "x").parent().unwrap().join("one.txt"),
            "leaves nothing",
            "longer corpus",
        ),
    ];
    for (path, problem, remedy) in cases {
        let error = open(&path).expect_err("the corpus is bad");
        assert!(error.is_infeasible(), "{error}");
        let message = error.to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            message.contains(problem) && message.contains(remedy) && message.contains(name),
            "{message}"
        );
    }
    for fraction in [0.0, 1.0, -0.1, f64::NAN] {
        let config =
            DataConfig { validation_fraction: fraction, ..data(folder.file("a.txt", "some text")) };
        assert!(
            matches!(Corpus::open(&config, None), Err(Error::ValidationFraction(_))),
            "{fraction}"
        );
    }
}

#[test]
fn a_corpus_shorter_than_a_sequence_is_refused() {
    let folder = Folder::new();
    let corpus = open(folder.file("a.txt", "x".repeat(99))).unwrap();
    assert!(corpus.check(9, 256).is_ok());
    let error = corpus.check(10, 256).unwrap_err();
    assert!(error.is_infeasible());
    let message = error.to_string();
    assert!(
        message.contains("validation part")
            && message.contains("10 tokens")
            && message.contains("need 11"),
        "{message}"
    );
    assert!(corpus.check(90, 256).unwrap_err().to_string().contains("training part"));
}

#[test]
fn marks_before_a_text_are_passed_over_and_lists_are_read() {
    let folder = Folder::new();
    let words = "\u{feff}{\"text\":\"one two three\"}\n{\"text\":\"four five six\"}\n";
    let list = "\u{feff}[{\"text\":\"one two three\"},\"four five six\"]";
    let expected = "one two three\nfour five six\n";
    for path in [
        folder.file("a.jsonl", words),
        folder.file("b.ndjson", words),
        folder.file("c.json", list),
        folder.file("d.txt", format!("\u{feff}{}", expected.trim_end())),
    ] {
        let corpus = open(&path).unwrap();
        assert_eq!(text(&corpus.train) + &text(&corpus.validation), expected, "{}", path.display());
    }
}

#[test]
fn what_is_no_text_is_named() {
    let folder = Folder::new();
    let cases: [(&str, &[u8], &str, &str); 6] = [
        ("a.parquet", b"PAR1\x15\x04", "Parquet", "read_parquet"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00", "gzip", "gunzip"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd\x00", "Zstandard", "zstd -d"),
        ("a.txt", b"\xff\xfea\x00b\x00", "UTF-16", "iconv"),
        ("a.json", b"{\"text\":\"one\"}\n{\"text\":\"two\"}\n", "not a list", ".jsonl"),
        ("b.json", b"[{\"body\":\"one\"}]", "not a list", "text"),
    ];
    for (name, content, problem, remedy) in cases {
        let message = message(open(folder.file(name, content)));
        assert!(message.contains(problem) && message.contains(remedy), "{name}: {message}");
    }
    for device in ["/dev/zero", "/dev/null"] {
        let message = message(open(device));
        assert!(message.contains("neither a file nor a folder"), "{message}");
    }
}

#[test]
fn copies_of_documents_are_counted() {
    let folder = Folder::new();
    let line = |i: usize| format!("{{\"text\":\"document {i} of some length\"}}\n");
    let lines: String = (0..100).chain(0..30).map(line).collect();
    let described = open(folder.file("a.jsonl", lines)).unwrap().describe();
    assert!(described.contains("30 copies of documents left out"), "{described}");
}

#[test]
fn wider_token_files_are_read_as_they_were_written() {
    let folder = Folder::new();
    let ids: Vec<i64> = (0..3000).map(|i| i * 7919 % 100_000).collect();
    let u32s: Vec<u8> = ids.iter().flat_map(|&id| (id as u32).to_le_bytes()).collect();
    let i64s: Vec<u8> = ids.iter().flat_map(|&id| id.to_le_bytes()).collect();
    let header = |magic: u32, version: u32, tokens: u32| {
        let mut header = vec![0_u8; 1024];
        for (at, number) in [magic, version, tokens].into_iter().enumerate() {
            header[4 * at..4 * at + 4].copy_from_slice(&number.to_le_bytes());
        }
        header
    };
    let llama = [header(20_240_801, 7, 3000), u32s.clone()].concat();
    for (name, content) in [("u32.bin", u32s), ("i64.bin", i64s), ("llama.bin", llama)] {
        let corpus = open(folder.file(name, content)).unwrap();
        let mut found = all(&corpus.train);
        found.extend(all(&corpus.validation));
        assert_eq!(found, ids, "{name}");
        let most = *ids.iter().max().unwrap() as u32;
        assert!(corpus.check(10, most).is_err() && corpus.check(10, most + 1).is_ok(), "{name}");
    }
    let gpt2 = [header(20_240_520, 1, 50), u16_bytes(0..50)].concat();
    let corpus = open(folder.file("gpt2.bin", gpt2)).unwrap();
    assert_eq!(all(&corpus.train), (0..45).collect::<Vec<_>>());
    let short = [header(20_240_520, 1, 51), u16_bytes(0..50)].concat();
    let said = message(open(folder.file("short.bin", short)));
    assert!(said.contains("says 51 tokens, 50 follow"), "{said}");
    let saved = message(open(folder.file("saved.bin", b"\x93NUMPY\x01\x00v\x00{'descr'")));
    assert!(saved.contains("numpy.save") && saved.contains("tofile"), "{saved}");
    let cut: Vec<u8> = (0..3000_u32).flat_map(|i| (i * 31).to_le_bytes()).chain([1, 0]).collect();
    let said = message(open(folder.file("cut.bin", cut)));
    assert!(said.contains("not a whole number of uint32"), "{said}");
}
