//! The campaign file beyond its syntax: errors with the line they are about, paths, and whether an earlier campaign
//! can go on with it.

use std::path::Path;

use anyhow::bail;
use search::config::{CampaignFile, ConfigError, DataConfig};

use super::contents::Inputs;

/// The data, if there is any, with absolute paths; they must lead somewhere.
pub(super) fn absolute(
    data: Option<&DataConfig>,
    folder: &Path,
    file: &Path,
    text: &str,
) -> anyhow::Result<Option<DataConfig>> {
    let Some(data) = data else { return Ok(None) };
    let found = |key: &str, path: &Path, what: &str| {
        let path = folder.join(path);
        if path.exists() {
            return Ok(path);
        }
        let is_key = |line: &str| {
            line.trim_start()
                .strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let message = format!("data.{key}: there is no {}; {what}", path.display());
        Err(match text.lines().position(is_key) {
            Some(index) => {
                let line = text.lines().nth(index).unwrap_or_default();
                let column = line.chars().take_while(|c| *c != '=').count() + 2;
                let width = line.chars().skip(column).take_while(|c| *c != '#').collect::<String>();
                let (column, width) = (column + 1, width.trim_end().chars().count().max(1));
                let message = format!("{}:{}:{column}: {message}", file.display(), index + 1);
                anyhow::anyhow!("{}", with_line(text, index + 1, column, width, &message))
            }
            None => anyhow::anyhow!("{}: {message}", file.display()),
        })
    };
    Ok(Some(DataConfig {
        corpus: found(
            "corpus",
            &data.corpus,
            "name a text file, a folder of .txt files, a .jsonl or a .bin file",
        )?,
        tokenizer: data
            .tokenizer
            .as_ref()
            .map(|path| {
                found("tokenizer", path, "name a Hugging Face tokenizer.json, or leave the key out")
            })
            .transpose()?,
        validation_fraction: data.validation_fraction,
    }))
}

/// An error of the campaign file with the line it is about.
pub(super) fn pointed(file: &Path, text: &str, error: &ConfigError) -> String {
    let key = if error.key.is_empty() { String::new() } else { format!("{}: ", error.key) };
    let width = text
        .get(error.span.clone())
        .map_or(1, |marked| marked.lines().next().map_or(1, |line| line.chars().count()))
        .max(1);
    let place = format!("{}:{}:{}", file.display(), error.line, error.column);
    let message = format!("{place}: {key}{}", error.message);
    with_line(text, error.line, error.column, width, &message)
}

/// A message, the line it is about, and a mark below what it is about.
fn with_line(text: &str, number: usize, column: usize, width: usize, message: &str) -> String {
    let line = text.lines().nth(number.saturating_sub(1)).unwrap_or_default();
    let margin = " ".repeat(number.to_string().len());
    // Tabs stay tabs, so that the mark stands below what it marks.
    let before: String = line
        .chars()
        .take(column.saturating_sub(1))
        .map(|c| if c == '\t' { c } else { ' ' })
        .collect();
    format!("{message}\n{margin} |\n{number} | {line}\n{margin} | {before}{}", "^".repeat(width))
}

/// Keys that may change in a campaign that has candidates: earlier results stay comparable with later ones.
const HARMLESS: [&str; 18] = [
    "search.algorithm",
    "search.evaluations",
    "search.hours",
    "search.start",
    "search.references",
    "search.stacks",
    "search.concurrency",
    "search.attempts",
    "search.give_up_after",
    "evaluator.timeout_seconds",
    "evaluator.hours",
    "evaluator.memory_gb",
    "search.promote",
    "trust",
    "latency.time_whole_models",
    "training.target_tokens",
    "storage",
    "notify",
];

/// Refuses a file that would mix results that cannot be compared, and files that it names which hold something else by now.
pub(super) fn comparable(
    stored: &str,
    file: &CampaignFile,
    path: &Path,
    inputs: &Inputs,
) -> anyhow::Result<()> {
    let stored = CampaignFile::parse(stored).map_err(|error| {
        anyhow::anyhow!("the campaign's own file, as it was stored, does not parse: {error}")
    })?;
    let mut changes = Vec::new();
    let (before, after) = (serde_json::to_value(stored)?, serde_json::to_value(file)?);
    differences("", &before, &after, &mut changes);
    changes.retain(|(key, _)| {
        !HARMLESS.iter().any(|harmless| key == harmless || key.starts_with(&format!("{harmless}.")))
    });
    let file_changed = !changes.is_empty();
    changes.extend(inputs.changes());
    if changes.is_empty() {
        return Ok(());
    }
    let path = path.display();
    let what = if file_changed {
        format!("{path} has changed")
    } else {
        format!("what {path} names has changed")
    };
    refuse_changes(&what, &file.name, &changes)
}

/// Refuses to go on with a campaign because of these changes: keys, and how they differ.
pub(super) fn refuse_changes(
    what: &str,
    name: &str,
    changes: &[(String, String)],
) -> anyhow::Result<()> {
    let list: Vec<String> =
        changes.iter().map(|(key, change)| format!("  {key}: {change}")).collect();
    bail!(
        "{what} since campaign `{name}` began, in what its results depend on:\n{}\n\
         give the changed campaign another `name`, or change these back to go on with this one",
        list.join("\n")
    );
}

/// The keys at which two values differ, and how.
fn differences(
    key: &str,
    before: &serde_json::Value,
    after: &serde_json::Value,
    found: &mut Vec<(String, String)>,
) {
    use serde_json::Value::{Null, Object};
    let nothing = serde_json::Map::new();
    let (old, new) = match (before, after) {
        (Object(old), Object(new)) => (old, new),
        (Object(old), Null) => (old, &nothing),
        (Null, Object(new)) => (&nothing, new),
        _ => {
            if before != after {
                let word = |value: &serde_json::Value| {
                    if value.is_null() { "nothing".to_owned() } else { value.to_string() }
                };
                found.push((key.to_owned(), format!("{} → {}", word(before), word(after))));
            }
            return;
        }
    };
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        differences(&key, old.get(name).unwrap_or(&Null), new.get(name).unwrap_or(&Null), found);
    }
}
