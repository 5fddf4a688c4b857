//! SGLang: the folder of `hf` with a plug-in that registers its modelling file as a model of SGLang, with attention and states in
//! SGLang's pools.

use search::Architecture;
use serde_json::{Value, json};

use super::dialect::{Dialect, Logits};
use super::folder::Folder;
use super::hf::{Hf, modelling_file};
use super::theirs::Theirs;

/// Stacks whose attention has one shape.
pub(crate) struct Sglang;

/// The package that SGLang imports; the modelling file lies in it.
const PACKAGE: &str = "deltafront_sglang";

const FILES: [(&str, &str); 7] = [
    ("README.md", include_str!("sglang/README.md")),
    ("configuration_deltafront.py", include_str!("sglang/configuration.py")),
    ("deltafront_sglang/__init__.py", include_str!("sglang/package/__init__.py")),
    ("deltafront_sglang/config.py", include_str!("sglang/package/config.py")),
    ("deltafront_sglang/remembered.py", include_str!("sglang/package/remembered.py")),
    ("deltafront_sglang/states.py", include_str!("sglang/package/states.py")),
    ("deltafront_sglang/model.py", include_str!("sglang/package/model.py")),
];

impl Dialect for Sglang {
    fn config(&self, folder: &Folder) -> Value {
        let mut config = Hf.config(folder);
        config["auto_map"] = json!({ "AutoConfig": "configuration_deltafront.ServedConfig" });
        config
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        Hf.tensors(stack)
    }

    fn logits(&self) -> Logits {
        Hf.logits()
    }

    fn files(&self, folder: &Folder) -> Vec<(String, String)> {
        let stack = folder.weights.stack();
        let named = |(name, text): (&str, &str)| {
            let text = text.replace("{text}", &stack.to_string());
            (name.to_owned(), text.replace("{id}", stack.id().as_str()))
        };
        let mut files: Vec<_> = FILES.into_iter().map(named).collect();
        files.push((format!("{PACKAGE}/modeling_deltafront.py"), modelling_file(stack)));
        files
    }
}
