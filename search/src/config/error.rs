//! Errors that point at the line of the file: for syntax, for types and unknown keys, and for what the values mean.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a campaign file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {}{message}", if key.is_empty() { String::new() } else { format!("{key}: ") })]
pub struct ConfigError {
    /// What is wrong and what would be right.
    pub message: String,
    /// Path of the key, e.g. `space.mixers.swa.heads`; empty when the text is not TOML.
    pub key: String,
    /// The bytes of the text to point at.
    pub span: Range<usize>,
    /// Line of the start of `span`, from 1.
    pub line: usize,
    /// Column of the start of `span` in characters, from 1.
    pub column: usize,
}

/// A TOML text with the place of every key and value.
pub(super) struct Document<'a> {
    text: &'a str,
    root: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, ConfigError> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Self { text, root }),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                Err(located(text, String::new(), span, format!("not TOML: {}", error.message())))
            }
        }
    }

    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let mut path = Vec::new();
            // What is missing at the top level is blamed on the whole file, not on what it begins with.
            if span != self.root.span() && !span.is_empty() {
                path_to(self.root.get_ref(), &span, &mut path);
            }
            let (missing, message) = in_our_words(error.message());
            path.extend(missing);
            located(self.text, path.join("."), span, message)
        })
    }

    /// An error at a key; at the nearest table that is there, if the key is not.
    pub(super) fn error(&self, key: &str, message: String) -> ConfigError {
        let span = span_of(self.root.get_ref(), key).unwrap_or(0..0);
        located(self.text, key.to_owned(), span, message)
    }
}

fn located(text: &str, key: String, span: Range<usize>, message: String) -> ConfigError {
    let span = span.start.min(text.len())..span.end.min(text.len());
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    ConfigError { message, key, span, line, column }
}

/// The keys on the way to the innermost key or value that covers `span`.
fn path_to(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<String>) {
    // The span of a table is that of its header, so the values inside are looked at whatever it is.
    for (key, value) in table {
        let mut deeper = vec![key.get_ref().to_string()];
        let covered = covers(&key.span(), span) || covers(&value.span(), span);
        into_value(value.get_ref(), span, &mut deeper);
        if covered || deeper.len() > 1 {
            path.append(&mut deeper);
            return;
        }
    }
}

fn into_value(value: &DeValue<'_>, span: &Range<usize>, path: &mut Vec<String>) {
    match value {
        DeValue::Table(table) => path_to(table, span, path),
        DeValue::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                let mut deeper = vec![index.to_string()];
                into_value(element.get_ref(), span, &mut deeper);
                if covers(&element.span(), span) || deeper.len() > 1 {
                    path.append(&mut deeper);
                    return;
                }
            }
        }
        _ => {}
    }
}

fn covers(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    !outer.is_empty() && outer.start <= inner.start && inner.end <= outer.end
}

/// Where the value at a path of keys stands, or the innermost value on the way that is there.
fn span_of(root: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let (first, mut rest) = key.split_once('.').unwrap_or((key, ""));
    let mut place = root.get(first)?;
    while !rest.is_empty() {
        let (step, after) = rest.split_once('.').unwrap_or((rest, ""));
        let inner = match place.get_ref() {
            // The name of a value has a dot in it where it is that of a target.
            DeValue::Table(table) if table.contains_key(rest) => {
                return table.get(rest).map(Spanned::span);
            }
            DeValue::Table(table) => table.get(step),
            DeValue::Array(array) => step.parse().ok().and_then(|index: usize| array.get(index)),
            _ => None,
        };
        match inner {
            Some(inner) => (place, rest) = (inner, after),
            None => break,
        }
    }
    Some(place.span())
}

/// serde's messages for the readers of a campaign file; the name of a missing key, if that is the matter.
fn in_our_words(message: &str) -> (Option<String>, String) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("missing field") {
        let name = quoted.first().copied().unwrap_or_default();
        return (Some(name.to_owned()), "this key is needed and missing".to_owned());
    }
    if let (true, [unknown, known @ ..]) = (message.starts_with("unknown field"), quoted.as_slice())
    {
        let list = known.join(", ");
        return (
            None,
            format!(
                "{}`{unknown}` is not a key here; there are {list}",
                did_you_mean(unknown, known)
            ),
        );
    }
    if let (true, [unknown, known @ ..]) =
        (message.starts_with("unknown variant"), quoted.as_slice())
    {
        let list = known.join(", ");
        return (
            None,
            format!(
                "{}`{unknown}` is not a choice; there are {list}",
                did_you_mean(unknown, known)
            ),
        );
    }
    let mut message = message.to_owned();
    for (theirs, ours) in [
        ("expected u32", "expected a whole number, 0 to 4294967295"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected f64", "expected a number"),
        ("expected f32", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected a table"),
        ("expected path string", "expected a path as text"),
        ("floating point", "number"),
        ("integer", "number"),
        ("map,", "table,"),
        ("sequence,", "list,"),
    ] {
        message = message.replace(theirs, ours);
    }
    if let Some(at) = message.find("expected struct ") {
        message.replace_range(at.., "expected a table");
    }
    (None, message)
}

/// "did you mean `…`? " when one of `known` is near to `name`.
pub(super) fn did_you_mean(name: &str, known: &[&str]) -> String {
    known
        .iter()
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|&(edits, candidate)| 3 * edits <= name.len().max(candidate.len()))
        .min_by_key(|&(edits, _)| edits)
        .map_or_else(String::new, |(_, candidate)| format!("did you mean `{candidate}`? "))
}

/// Characters to insert, remove, replace or exchange with their neighbour between two names.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut fewest = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                fewest = fewest.min(rows[i - 2][j - 2] + 1);
            }
            row.push(fewest);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
