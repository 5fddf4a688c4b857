//! The held-out part of a text corpus.

use std::collections::HashSet;
use std::path::Path;

use crate::error::{Error, Result};

/// Below this many held-out documents their choice would rule the result, so the tail of the text is held out instead.
const FEWEST_HELD_OUT: f64 = 4.0;

/// What stands between two documents.
const SEPARATOR: char = '\n';

/// The two parts; each document ends in a newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// To train on.
    pub train: Vec<String>,
    /// To validate on.
    pub validation: Vec<String>,
    /// How many documents were left out because an earlier one has the same text.
    pub copies: usize,
}

/// Holds out about `fraction` of the bytes: whole documents, spread evenly, or the tail if there are few of them.
///
/// # Errors
/// When one part would be empty.
pub fn split(path: &Path, documents: Vec<String>, fraction: f64) -> Result<Split> {
    let mut seen = HashSet::new();
    let given = documents.len();
    let mut documents: Vec<String> = documents
        .into_iter()
        .filter(|text| seen.insert(blake3::hash(text.trim().as_bytes())))
        .collect();
    let copies = given - documents.len();
    for document in &mut documents {
        if !document.ends_with(SEPARATOR) {
            document.push(SEPARATOR);
        }
    }
    let (train, validation) =
        if documents.len() as f64 * fraction.min(1.0 - fraction) >= FEWEST_HELD_OUT {
            whole_documents(documents, fraction)
        } else {
            tail(&documents.concat(), fraction)
        };
    if train.is_empty() || validation.is_empty() {
        return Err(Error::corpus(
            path,
            format!("a validation fraction of {fraction} leaves nothing on one side"),
            "use a longer corpus or another data.validation_fraction",
        ));
    }
    Ok(Split { train, validation, copies })
}

/// A document is held out when the held-out bytes have fallen behind their share: deterministic, and even over a
/// corpus that is sorted by date or author.
fn whole_documents(documents: Vec<String>, fraction: f64) -> (Vec<String>, Vec<String>) {
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    let (mut total, mut held_out) = (0.0, 0.0);
    for document in documents {
        let bytes = document.len() as f64;
        total += bytes;
        // Half a document early: otherwise the share is always reached from below.
        if held_out + bytes / 2.0 <= fraction * total {
            held_out += bytes;
            validation.push(document);
        } else {
            train.push(document);
        }
    }
    (train, validation)
}

fn tail(text: &str, fraction: f64) -> (Vec<String>, Vec<String>) {
    let mut cut = (text.len() as f64 * (1.0 - fraction)).round() as usize;
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    let part = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
    (part(&text[..cut]), part(&text[cut..]))
}
