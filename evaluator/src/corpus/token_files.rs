//! Token files as nanoGPT writes them: little-endian u16, no header.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use super::documents::has_extension;
use super::tokens::{Tokens, Width};
use crate::error::{Error, Result};

/// Which files hold the two parts.
#[derive(Debug)]
pub(super) enum TokenFiles {
    /// One file, whose tail is held out.
    One(PathBuf),
    /// A folder with `train.bin` and `val.bin`.
    Two { train: PathBuf, validation: PathBuf },
}

/// The token files at `path`, if it is that kind of corpus.
pub(super) fn find(path: &Path, metadata: &Metadata) -> Result<Option<TokenFiles>> {
    if metadata.is_file() {
        return Ok(has_extension(path, "bin").then(|| TokenFiles::One(path.to_owned())));
    }
    let (train, validation) = (path.join("train.bin"), path.join("val.bin"));
    match (train.is_file(), validation.is_file()) {
        (true, true) => Ok(Some(TokenFiles::Two { train, validation })),
        (false, false) => Ok(None),
        (has_train, _) => {
            let (here, missing) =
                if has_train { ("train.bin", "val.bin") } else { ("val.bin", "train.bin") };
            Err(Error::corpus(
                path,
                format!("the folder has {here} but no {missing}"),
                format!(
                    "add {missing}, or point data.corpus at the one file to have its tail held out"
                ),
            ))
        }
    }
}

impl TokenFiles {
    /// Training and validation tokens, mapped.
    pub(super) fn open(&self, fraction: f64) -> Result<(Tokens, Tokens)> {
        match self {
            Self::One(path) => {
                let n = count(path)?;
                let train = (n as f64 * (1.0 - fraction)).round() as u64;
                Ok((
                    Tokens::map(path, Width::U16, 0, train)?,
                    Tokens::map(path, Width::U16, train, n - train)?,
                ))
            }
            Self::Two { train, validation } => {
                let whole = |path: &Path| Tokens::map(path, Width::U16, 0, count(path)?);
                Ok((whole(train)?, whole(validation)?))
            }
        }
    }
}

fn count(path: &Path) -> Result<u64> {
    let bytes = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if bytes == 0 {
        return Err(Error::corpus(path, "it is empty", "write u16 token ids into it"));
    }
    if !bytes.is_multiple_of(Width::U16.bytes()) {
        return Err(Error::corpus(
            path,
            format!("{bytes} bytes are not a whole number of u16 tokens"),
            "write little-endian u16 ids without a header, as nanoGPT does; for larger vocabularies give text and a \
             tokenizer",
        ));
    }
    Ok(bytes / Width::U16.bytes())
}
