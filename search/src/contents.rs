//! What the files hold that results depend on: an identity of their contents, whatever they are called and wherever they lie.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The identity of what one or several files hold, in their order: 64 hexadecimal digits (BLAKE3 of the BLAKE3 of each).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Contents(String);

/// Digits that tell two contents apart for people.
const SHORT: usize = 8;

impl Contents {
    /// Of files that are read one after the other.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn of<R: Read>(
        files: impl IntoIterator<Item = std::io::Result<R>>,
    ) -> std::io::Result<Self> {
        let mut all = blake3::Hasher::new();
        // So many bytes at once that all lanes of the processor have work.
        let mut piece = vec![0; 1 << 20];
        for file in files {
            let (mut file, mut one) = (file?, blake3::Hasher::new());
            loop {
                match file.read(&mut piece) {
                    Ok(0) => break,
                    Ok(read) => drop(one.update(&piece[..read])),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            all.update(one.finalize().as_bytes());
        }
        Ok(Self(all.finalize().to_hex().to_string()))
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it for people.
    pub fn short(&self) -> &str {
        self.0.get(..SHORT).unwrap_or(&self.0)
    }
}

impl From<String> for Contents {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Of all files in the folder of a corpus and its subfolders, by their paths in it, those that make it up, in the order
/// in which they are read: token files that are split already, or every text.
pub fn corpus_files(found: Vec<PathBuf>) -> Vec<PathBuf> {
    let split = ["train.bin", "val.bin"].map(PathBuf::from);
    if split.iter().all(|file| found.contains(file)) {
        return split.into();
    }
    let is_text = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(Path::new("txt")))
    };
    let mut texts: Vec<PathBuf> = found.into_iter().filter(is_text).collect();
    texts.sort();
    texts
}
