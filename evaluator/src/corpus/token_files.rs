//! Token files: little-endian ids as u16, u32 or i64 without a header, or with that of llm.c.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};

use super::documents::has_extension;
use super::token_format::{Format, Unclear};
use super::tokens::Tokens;
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
                let format = format_of(path)?;
                let train = (format.tokens as f64 * (1.0 - fraction)).round() as u64;
                let held_out = format.tokens - train;
                Ok((map(path, format, 0, train)?, map(path, format, train, held_out)?))
            }
            Self::Two { train, validation } => {
                let whole = |path: &Path| {
                    let format = format_of(path)?;
                    map(path, format, 0, format.tokens)
                };
                Ok((whole(train)?, whole(validation)?))
            }
        }
    }
}

const REMEDY: &str = "write little-endian ids with numpy's astype(\"uint16\").tofile (uint32 for a vocabulary above \
                      65536), or give text and data.tokenizer";

fn format_of(path: &Path) -> Result<Format> {
    let read = || -> std::result::Result<Format, Unclear> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Format::of(&mut file, bytes)
    };
    read().map_err(|unclear| match unclear {
        Unclear::Io(error) => Error::io("read", path)(error),
        Unclear::Refused(problem) => Error::corpus(path, problem, REMEDY),
    })
}

/// `len` tokens of the file from `first` on.
fn map(path: &Path, format: Format, first: u64, len: u64) -> Result<Tokens> {
    Tokens::map(path, format.width, format.header_bytes / format.width.bytes() + first, len)
}
