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
    // One word in four is unknown: its bytes are not in the tokens.
    assert_eq!(corpus.bytes_per_token(), None);
    let described = corpus.describe();
    assert!(
        described.contains("bits_per_token") && described.contains("does not know"),
        "{described}"
    );

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
    assert_eq!(open(&bin).unwrap().bytes_per_token(), None);
    let config = DataConfig { tokenizer: Some(tokenizer.clone()), ..data(&bin) };
    // "ab cdef ab …": three bytes a word and a space between, but after the last.
    let bytes_per_token = Corpus::open(&config, None).unwrap().bytes_per_token().unwrap();
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

/// A tokenizer of GPT-2's alphabet of bytes and a few longer tokens; `more` are further fields of the file.
fn byte_level(folder: &Folder, name: &str, more: &serde_json::Value) -> PathBuf {
    let mut vocab: Vec<String> = Vec::new();
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut beyond = 256;
    for byte in 0..=255_u8 {
        let sign = if printable(byte) {
            char::from(byte)
        } else {
            beyond += 1;
            char::from_u32(beyond - 1).expect("GPT-2 shifts bytes to characters from 256 on")
        };
        vocab.push(sign.to_string());
    }
    vocab.extend(["th", "the", "Ġthe"].map(str::to_owned));
    let ids: serde_json::Map<String, serde_json::Value> =
        vocab.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    let mut json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{"id": 259, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "vocab": ids,
            "merges": [["t", "h"], ["th", "e"], ["Ġ", "the"]]},
    });
    for (key, value) in more.as_object().expect("fields") {
        json[key] = value.clone();
    }
    folder.file(name, json.to_string())
}

#[test]
fn settings_for_batches_do_not_touch_a_corpus() {
    let folder = Folder::new();
    let text = folder.file("a.txt", "the naïve theory of the thing\n".repeat(3000));
    let read = |tokenizer: PathBuf| {
        let config = DataConfig { tokenizer: Some(tokenizer), ..data(&text) };
        let corpus = Corpus::open(&config, Some(&folder.path().join("cache"))).unwrap();
        (first(&corpus, corpus.train.len()), corpus.validation.len(), corpus.bytes_per_token())
    };
    let plain = read(byte_level(&folder, "plain.json", &serde_json::json!({})));
    assert!(plain.2.unwrap() > 1.0);
    let truncation = |stride: u32| serde_json::json!({"truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": stride}});
    let padding = serde_json::json!({"padding": {"strategy": {"Fixed": 4096}, "direction": "Right",
        "pad_to_multiple_of": 512, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"}});
    for (name, more) in
        [("cut.json", truncation(0)), ("stride.json", truncation(9)), ("pad.json", padding)]
    {
        assert_eq!(read(byte_level(&folder, name, &more)), plain, "{name}");
    }
    let file = byte_level(&folder, "dropout.json", &serde_json::json!({}));
    let shaken = fs::read_to_string(&file).unwrap().replace("\"dropout\":null", "\"dropout\":0.5");
    assert!(shaken.contains("0.5"));
    assert_eq!(read(folder.file("dropout.json", shaken)), plain);
}

#[test]
fn bytes_of_token_files_are_those_of_the_text() {
    let folder = Folder::new();
    // " the": four bytes; "é" is two tokens of a byte; the special token stands for none
    let ids = |pattern: &[u16]| -> Vec<u8> {
        pattern.repeat(100).into_iter().flat_map(u16::to_le_bytes).collect()
    };
    let bin = folder.file("a.bin", ids(&[258, 0xC3, 0xA9, 259]));
    let decoder = serde_json::json!({"decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
        "use_regex": true}});
    for (name, more) in [("without.json", serde_json::json!({})), ("with.json", decoder)] {
        let tokenizer = byte_level(&folder, name, &more);
        let config = DataConfig { tokenizer: Some(tokenizer), ..data(&bin) };
        let bytes_per_token = Corpus::open(&config, None).unwrap().bytes_per_token().unwrap();
        assert!((bytes_per_token - 6.0 / 4.0).abs() < 1e-9, "{name}: {bytes_per_token}");
    }
    let words = word_level(&folder, &words(&["ab", "cdef"]));
    let unknown = folder.file("unknown.bin", ids(&[1, 0, 2, 1]));
    let config = DataConfig { tokenizer: Some(words.clone()), ..data(&unknown) };
    let corpus = Corpus::open(&config, None).unwrap();
    assert_eq!(corpus.bytes_per_token(), None);
    assert!(corpus.describe().contains("did not know"), "{}", corpus.describe());

    // pieces of words that only a decoder would join
    let json =
        fs::read_to_string(&words).unwrap().replace("\"WordLevel\"", "\"WordPiece\"").replace(
            "\"unk_token\"",
            "\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,\"unk_token\"",
        );
    let pieces = folder.file("pieces.json", json.replace("cdef", "##cdef"));
    let bin = folder.file("pieces.bin", ids(&[1, 2]));
    let config = DataConfig { tokenizer: Some(pieces), ..data(&bin) };
    let corpus = Corpus::open(&config, None).unwrap();
    assert_eq!(corpus.bytes_per_token(), None);
    assert!(corpus.describe().contains("does not give the text back"), "{}", corpus.describe());
}

#[test]
fn narrow_ids_are_not_those_of_a_wide_tokenizer() {
    let folder = Folder::new();
    let many: Vec<String> = (0..70_000).map(|i| format!("w{i}")).collect();
    let tokenizer = word_level(&folder, &many);
    let ids: Vec<u8> = (0..1000_u16).flat_map(|i| (i.wrapping_mul(7919)).to_le_bytes()).collect();
    let config = DataConfig { tokenizer: Some(tokenizer), ..data(folder.file("a.bin", ids)) };
    let message = Corpus::open(&config, None).unwrap_err().to_string();
    assert!(message.contains("uint16") && message.contains("70001"), "{message}");
}
