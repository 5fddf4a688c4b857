//! Whether the files of a corpus hold what the driver found in them when the campaign began.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use search::config::DataConfig;
use search::contents::Contents;

use super::{Corpus, documents};
use crate::error::{Error, Result};

impl Corpus {
    /// Checks what the files of a corpus hold against `expected`, by their keys in the campaign file. Asked after they
    /// were read: what was put in their place before or meanwhile is found.
    ///
    /// # Errors
    /// [`Error::Replaced`] names the first that holds something else.
    pub fn check_contents(
        config: &DataConfig,
        expected: &BTreeMap<String, Contents>,
    ) -> Result<()> {
        let files =
            [("data.corpus", Some(&config.corpus)), ("data.tokenizer", config.tokenizer.as_ref())];
        for (key, path) in files {
            let (Some(path), Some(expected)) = (path, expected.get(key)) else { continue };
            if contents(path)? != *expected {
                return Err(Error::Replaced { key, path: path.clone() });
            }
        }
        Ok(())
    }
}

fn contents(path: &Path) -> Result<Contents> {
    let files: Vec<PathBuf> =
        if path.is_dir() { documents::files(path)? } else { vec![path.to_owned()] };
    Contents::of(files.iter().map(File::open)).map_err(Error::io("read", path))
}
