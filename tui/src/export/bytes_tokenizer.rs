//! A tokenizer.json whose ids are bytes, and the file beside it.

use serde_json::{Map, Value, json};

/// Every character falls back to its bytes, as none is in the vocabulary.
pub(super) fn json() -> Value {
    let vocab: Map<String, Value> =
        (0..256).map(|byte| (format!("<0x{byte:02X}>"), byte.into())).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {
            "type": "Sequence",
            "decoders": [{ "type": "ByteFallback" }, { "type": "Fuse" }],
        },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": [],
        },
    })
}

/// Batches are filled with byte 0, before their text.
pub(super) fn config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<0x00>",
        "padding_side": "left",
        "clean_up_tokenization_spaces": false,
    })
}

/// Of a tokenizer.json of the user's: batches are filled with a token that it has for that, or its first special one.
pub(super) fn config_of(tokenizer: &str) -> Value {
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "padding_side": "left",
        "clean_up_tokenization_spaces": false,
    });
    let tokenizer: Value = serde_json::from_str(tokenizer).unwrap_or_default();
    let specials: Vec<&str> = tokenizer["added_tokens"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|token| token["special"] == true)
        .filter_map(|token| token["content"].as_str())
        .collect();
    let padding = specials.iter().find(|token| token.to_ascii_lowercase().contains("pad"));
    if let Some(token) = padding.or(specials.first()) {
        config["pad_token"] = (*token).into();
    }
    config
}
