//! The documents of a text corpus: a file is one, a folder has one in each .txt file, a .jsonl one in each line.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The documents, in a fixed order, none empty.
pub(super) fn read(path: &Path, metadata: &Metadata) -> Result<Vec<String>> {
    let documents = if metadata.is_dir() {
        let mut files = Vec::new();
        text_files(path, &mut files)?;
        files.sort();
        if files.is_empty() {
            return Err(Error::corpus(
                path,
                "the folder and its subfolders have no .txt file, and no train.bin and val.bin",
                "put the text into .txt files there, or point data.corpus at a file",
            ));
        }
        files.iter().map(|file| read_text(file)).collect::<Result<Vec<_>>>()?
    } else if has_extension(path, "jsonl") {
        json_lines(path, &read_text(path)?)?
    } else {
        vec![read_text(path)?]
    };
    let documents: Vec<String> = documents.into_iter().filter(|text| !text.is_empty()).collect();
    if documents.is_empty() {
        return Err(Error::corpus(path, "it is empty", "point data.corpus at text"));
    }
    Ok(documents)
}

pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Links to folders are not followed: they may lead in circles.
fn text_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("read", &path))?;
        if kind.is_dir() {
            text_files(&path, files)?;
        } else if has_extension(&path, "txt") {
            files.push(path);
        }
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let remedy = "give UTF-8 text, or token files that end in .bin";
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(Error::corpus(path, format!("it is binary: byte {at} is 0"), remedy));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::corpus(path, format!("it is not UTF-8 at byte {at}"), remedy)
    })
}

#[derive(Deserialize)]
struct Line {
    text: String,
}

fn json_lines(path: &Path, content: &str) -> Result<Vec<String>> {
    content
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            serde_json::from_str(line).map(|Line { text }| text).map_err(|error| {
                Error::corpus(
                    path,
                    format!("line {} is not an object with a text: {error}", index + 1),
                    "each line must be like {\"text\": \"…\"}",
                )
            })
        })
        .collect()
}
