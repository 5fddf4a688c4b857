//! The documents of a text corpus: a file is one, a folder has one in each .txt file, a .jsonl or .ndjson one in each
//! line, a .json one in each member of its list.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use search::contents::corpus_files;
use serde::Deserialize;

use crate::error::{Error, Result};

/// The documents, in a fixed order, none empty.
pub(super) fn read(path: &Path, metadata: &Metadata) -> Result<Vec<String>> {
    let documents = if metadata.is_dir() {
        let files = files(path)?;
        if files.is_empty() {
            return Err(Error::corpus(
                path,
                "the folder and its subfolders have no .txt file, and no train.bin and val.bin",
                "put the text into .txt files there, or point data.corpus at a file",
            ));
        }
        files.iter().map(|file| read_text(file)).collect::<Result<Vec<_>>>()?
    } else if has_extension(path, "jsonl") || has_extension(path, "ndjson") {
        json_lines(path, &read_text(path)?)?
    } else if has_extension(path, "json") {
        json_list(path, &read_text(path)?)?
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

/// The files of a folder that make up a corpus, in the order in which they are read.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    list(folder, &mut found)?;
    let inside = |path: PathBuf| path.strip_prefix(folder).map(Path::to_owned).unwrap_or(path);
    let chosen = corpus_files(found.into_iter().map(inside).collect());
    Ok(chosen.into_iter().map(|file| folder.join(file)).collect())
}

/// Links to folders are not followed: they may lead in circles.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("read", &path))?;
        if kind.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// What files of other kinds begin with, and what to do with them.
const OTHERS: [(&[u8], &str, &str); 8] = [
    (b"PAR1", "a Parquet file", PARQUET),
    (b"\x1f\x8b", "compressed by gzip", "decompress it first (gunzip -k)"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "decompress it first (zstd -d)"),
    (b"BZh", "compressed by bzip2", "decompress it first (bunzip2 -k)"),
    (b"\xfd7zXZ", "compressed by xz", "decompress it first (unxz -k)"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it first (unzip)"),
    (b"\xff\xfe", "UTF-16", UTF8),
    (b"\xfe\xff", "UTF-16", UTF8),
];
const PARQUET: &str = "write its text as JSON lines: python -c 'import pandas, sys; \
                       pandas.read_parquet(sys.argv[1])[[\"text\"]].to_json(sys.argv[2], orient=\"records\", lines=True)' \
                       IN.parquet OUT.jsonl";
const UTF8: &str = "convert it: iconv -f UTF-16 -t UTF-8";

/// The text of a file, without the mark that some editors put before it.
fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    if let Some((_, kind, remedy)) = OTHERS.iter().find(|(magic, ..)| bytes.starts_with(magic)) {
        return Err(Error::corpus(path, format!("it is {kind}"), *remedy));
    }
    let remedy = "give UTF-8 text, or token files that end in .bin";
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(Error::corpus(path, format!("it is binary: byte {at} is 0"), remedy));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::corpus(path, format!("it is not UTF-8 at byte {at}"), remedy)
    })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

const BYTE_ORDER_MARK: char = '\u{feff}';

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

/// A member of a list: a text, or an object with one.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text or an object with a field `text`")]
enum Member {
    Text(String),
    Line(Line),
}

fn json_list(path: &Path, content: &str) -> Result<Vec<String>> {
    let members: Vec<Member> = serde_json::from_str(content).map_err(|error| {
        Error::corpus(
            path,
            format!("it is not a list of texts: {error}"),
            "a .json file must be like [{\"text\": \"…\"}, …]; one object a line is a .jsonl file",
        )
    })?;
    let text = |member| match member {
        Member::Text(text) | Member::Line(Line { text }) => text,
    };
    Ok(members.into_iter().map(text).collect())
}
