//! The guide to the worker protocol, held against the types: its schemas are theirs, its examples are messages, and each message
//! has one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use search::wire::{PROTOCOL, Reply, Request, reply_schema, request_schema};
use serde_json::Value;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn schemas() -> [(&'static str, Value); 2] {
    let value = |schema: schemars::Schema| serde_json::to_value(schema).expect("JSON");
    [("request", value(request_schema())), ("reply", value(reply_schema()))]
}

/// The words of `type` that a schema knows.
fn types(schema: &Value) -> BTreeSet<String> {
    let variants = schema["oneOf"].as_array().expect("a variant for each message");
    let word = |variant: &Value| variant["properties"]["type"]["const"].as_str().map(str::to_owned);
    variants.iter().map(|variant| word(variant).expect("a word")).collect()
}

#[test]
fn published_schemas_are_those_of_the_types() {
    for (name, schema) in schemas() {
        let file = docs().join(format!("protocol/{name}.schema.json"));
        let got = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
        if std::env::var_os("UPDATE_FROZEN").is_some() {
            std::fs::create_dir_all(docs().join("protocol")).expect("the folder can be made");
            std::fs::write(&file, &got).expect("the folder can be written");
        }
        let published = std::fs::read_to_string(&file).expect("it is in the repository");
        assert!(
            published == got,
            "docs/protocol/{name}.schema.json is not what the types say: UPDATE_FROZEN=1 writes it anew; is PROTOCOL still {PROTOCOL}?"
        );
    }
}

#[test]
fn examples_of_the_guide_are_messages_and_each_message_has_one() {
    let guide = std::fs::read_to_string(docs().join("protocol.md")).expect("the guide is there");
    let [(_, requests), (_, replies)] = schemas();
    let mut shown: BTreeSet<String> = BTreeSet::new();
    let mut is_json = false;
    for line in guide.lines() {
        if line.starts_with("```") {
            is_json = line == "```json";
        } else if is_json {
            let read: Value = serde_json::from_str(line).expect(line);
            let word = read["type"].as_str().expect(line);
            let as_reply = Reply::parse(line).map(|_| ());
            if let (Err(request), Err(reply)) = (Request::parse(line).map(|_| ()), as_reply) {
                panic!("{line}\nas a request: {request}\nas a reply: {reply}");
            }
            shown.insert(word.to_owned());
        }
    }
    let known: BTreeSet<String> = types(&requests).union(&types(&replies)).cloned().collect();
    assert_eq!(shown, known);
    assert!(guide.contains(&format!("protocol {PROTOCOL}")), "the guide names the version");
}
