//! Corpora read through a tokenizer.json.

use std::fs;
use std::path::PathBuf;

use evaluator::Corpus;
use search::config::DataConfig;

use crate::support::{Folder, data, open};

/// A word-level tokenizer of these words; the first id is of unknown words.
fn word_level(folder: &Folder, words: &[String]) -> PathBuf {
    let mut vocab = serde_json::Map::from_iter([("[UNK]".to_owned(), 0.into())]);
    vocab.extend(words.iter().enumerate().map(|(index, word)| (word.clone(), (index + 1).into())));
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    folder.file("tokenizer.json", json.to_string())
}

fn first(corpus: &Corpus, n: u64) -> Vec<i64> {
    corpus.train.windows(&[0], n).view([-1]).try_into().expect("a vector of int64")
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn text_becomes_tokens_once() {
    let folder = Folder::new();
    let tokenizer = word_level(&folder, &words(&["the", "cat", "sat"]));
    let config = DataConfig {
        tokenizer: Some(tokenizer.clone()),
        ..data(folder.file("a.txt", "the cat sat down ".repeat(100)))
    };
    let cache = folder.path().join("cache");
    let corpus = Corpus::open(&config, Some(&cache)).unwrap();
    assert_eq!(first(&corpus, 6), [1, 2, 3, 0, 1, 2]);
    let tokens = corpus.train.len() + corpus.validation.len();
    assert!((400..=402).contains(&tokens), "{tokens}");
    // Four words in 17 bytes; the border may cut a word.
    let bytes_per_token = corpus.bytes_per_token.unwrap();
    assert!((bytes_per_token - 17.0 / 4.0).abs() < 0.15, "{bytes_per_token}");

    // What the cache has is believed: it is not computed again.
    let mut files: Vec<PathBuf> =
        fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2);
    let longer = files.iter().max_by_key(|file| file.metadata().unwrap().len()).unwrap();
    let ids = fs::read(longer).unwrap();
    fs::write(longer, [&[9, 0], &ids[2..]].concat()).unwrap();
    let again = Corpus::open(&config, Some(&cache)).unwrap();
    assert_eq!(first(&again, 3), [9, 2, 3]);

    // Another tokenizer has tokens of its own.
    word_level(&folder, &words(&["cat", "the", "sat"]));
    let other = Corpus::open(&config, Some(&cache)).unwrap();
    assert_eq!(first(&other, 3), [2, 1, 3]);
    let without_cache = Corpus::open(&config, None).unwrap();
    assert_eq!(first(&without_cache, 3), [2, 1, 3]);
}

#[test]
fn pieces_lose_no_token() {
    let folder = Folder::new();
    let tokenizer = word_level(&folder, &words(&["x"]));
    // Longer than a piece, lines of odd lengths.
    let content: String = (0..30_000).map(|i| "x ".repeat(i % 13) + "\n").collect();
    let expected = content.matches('x').count() as u64;
    let config = DataConfig { tokenizer: Some(tokenizer), ..data(folder.file("a.txt", content)) };
    let corpus = Corpus::open(&config, None).unwrap();
    assert_eq!(corpus.train.len() + corpus.validation.len(), expected);
}

#[test]
fn ids_beyond_u16_stay_what_they_are() {
    let folder = Folder::new();
    let many: Vec<String> = (0..70_000).map(|i| format!("w{i}")).collect();
    let tokenizer = word_level(&folder, &many);
    let text = "w69999 w65535 w1 ".repeat(20);
    let config = DataConfig { tokenizer: Some(tokenizer), ..data(folder.file("a.txt", text)) };
    for cache in [None, Some(folder.path().join("cache"))] {
        let corpus = Corpus::open(&config, cache.as_deref()).unwrap();
        assert_eq!(first(&corpus, 3), [70_000, 65_536, 2]);
        assert!(corpus.check(5, 70_001).is_ok());
        let message = corpus.check(5, 70_000).unwrap_err().to_string();
        assert!(
            message.contains("vocabulary of 70001") && message.contains("vocab=70000"),
            "{message}"
        );
    }
}

#[test]
fn token_files_with_their_tokenizer_count_bytes() {
    let folder = Folder::new();
    let tokenizer = word_level(&folder, &words(&["ab", "cdef"]));
    let ids: Vec<u8> = [1_u16, 2].repeat(50).into_iter().flat_map(u16::to_le_bytes).collect();
    let bin = folder.file("a.bin", ids);
    assert_eq!(open(&bin).unwrap().bytes_per_token, None);
    let config = DataConfig { tokenizer: Some(tokenizer.clone()), ..data(&bin) };
    // "ab cdef ab …": three bytes a word and a space between, but after the last.
    let bytes_per_token = Corpus::open(&config, None).unwrap().bytes_per_token.unwrap();
    assert!((bytes_per_token - (10.0 * 4.0 - 1.0) / 10.0).abs() < 1e-9, "{bytes_per_token}");

    let foreign = folder.file("b.bin", 7_u16.to_le_bytes().repeat(100));
    let config = DataConfig { tokenizer: Some(tokenizer), ..data(foreign) };
    let message = Corpus::open(&config, None).unwrap_err().to_string();
    assert!(message.contains("no token 7"), "{message}");
}

#[test]
fn what_is_no_tokenizer_is_said_so() {
    let folder = Folder::new();
    let text = folder.file("a.txt", "some text");
    for (tokenizer, problem) in [
        (folder.path().join("nowhere.json"), "cannot be read"),
        (folder.file("bad.json", "{}"), "not understood"),
    ] {
        let config = DataConfig { tokenizer: Some(tokenizer), ..data(&text) };
        let error = Corpus::open(&config, None).unwrap_err();
        assert!(error.is_infeasible() && error.to_string().contains(problem), "{error}");
    }
}
