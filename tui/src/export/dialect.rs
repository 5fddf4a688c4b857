//! What a target that is a folder says of a stack.

use std::path::Path;

use anyhow::Context;
use search::Architecture;
use serde_json::{Value, json};

use super::bytes_tokenizer;
use super::folder::{Folder, Tokens};
use super::stack_file::TextForm;
use super::theirs::Theirs;

/// What models do with logits. Those of a stack that was trained with normalised weights are divided by the norms of the
/// head's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logits {
    /// They leave them as they are.
    Plain,
    /// They divide them where the config says so.
    AsTrained,
    /// They divide them.
    Divided,
}

/// How one piece of software describes stacks and names their tensors.
pub(crate) trait Dialect: Sync {
    /// `config.json` of a stack that it holds: of one without obstacles by the rules in `search::targets`.
    fn config(&self, folder: &Folder) -> Value;

    /// The tensors of such a stack, under its names.
    fn tensors(&self, stack: &Architecture) -> Vec<Theirs>;

    /// What its models do with logits.
    fn logits(&self) -> Logits {
        Logits::Plain
    }

    /// Further files, by name; one in a folder of its own as `folder/name`.
    fn files(&self, _: &Folder) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Fills `place` as `dialect` has it.
pub(crate) fn fill(dialect: &dyn Dialect, folder: &Folder, place: &Path) -> anyhow::Result<()> {
    let write = |name: &str, text: &str| {
        std::fs::write(place.join(name), text).with_context(|| format!("cannot write {name}"))
    };
    let pretty = |value: &serde_json::Value| -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(value)? + "\n")
    };
    write("config.json", &pretty(&dialect.config(folder))?)?;
    write("generation_config.json", &pretty(&json!({ "do_sample": false, "pad_token_id": 0 }))?)?;
    match &folder.tokens {
        Tokens::Bytes => {
            write("tokenizer.json", &pretty(&bytes_tokenizer::json())?)?;
            write("tokenizer_config.json", &pretty(&bytes_tokenizer::config())?)?;
        }
        Tokens::File(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("the tokenizer {} cannot be read", path.display()))?;
            write("tokenizer.json", &text)?;
            write("tokenizer_config.json", &pretty(&bytes_tokenizer::config_of(&text))?)?;
        }
        Tokens::Symbols => {}
    }
    write("stack.json", &folder.file.text(TextForm::Json)?)?;
    for (name, text) in dialect.files(folder) {
        if let Some((inner, _)) = name.rsplit_once('/') {
            std::fs::create_dir_all(place.join(inner))
                .with_context(|| format!("cannot write {inner}"))?;
        }
        write(&name, &text)?;
    }
    let tensors = dialect.tensors(folder.weights.stack());
    folder.weights.write(tensors, folder.element, &place.join("model.safetensors"))
}
