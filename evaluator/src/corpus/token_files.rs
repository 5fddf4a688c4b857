//! Token files: little-endian ids as u16, u32 or i64 without a header, or with that of llm.c. Which of them a file has is
//! read off its beginning; where that is not clear it is refused, never taken for the narrowest.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
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
                let format = Format::of(path)?;
                let train = (format.tokens as f64 * (1.0 - fraction)).round() as u64;
                Ok((format.map(path, 0, train)?, format.map(path, train, format.tokens - train)?))
            }
            Self::Two { train, validation } => {
                let whole = |path: &Path| {
                    let format = Format::of(path)?;
                    format.map(path, 0, format.tokens)
                };
                Ok((whole(train)?, whole(validation)?))
            }
        }
    }
}

/// How the ids of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Format {
    width: Width,
    /// Bytes before the first id: a whole number of ids.
    header_bytes: u64,
    tokens: u64,
}

/// llm.c's header: 256 numbers of 32 bits, the first three of them what it is, its version, and how many tokens follow.
const HEADER_BYTES: u64 = 1024;
/// What llm.c writes first, by the width of the ids.
const MAGIC: [(u32, Width); 2] = [(20_240_520, Width::U16), (20_240_801, Width::U32)];

/// Bytes that are looked at in a place of the file, and in how many places.
const LOOK_BYTES: usize = 1 << 13;
const PLACES: u64 = 16;

const REMEDY: &str = "write little-endian ids with numpy's astype(\"uint16\").tofile (uint32 for a vocabulary above \
                      65536), or give text and data.tokenizer";

impl Format {
    fn of(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len();
        let refuse = |problem: String| Err(Error::corpus(path, problem, REMEDY));
        if bytes == 0 {
            return refuse("it is empty".to_owned());
        }
        let mut head = [0_u8; 12];
        let read = file.read(&mut head).map_err(Error::io("read", path))?;
        if head[..read].starts_with(b"\x93NUMPY") {
            return refuse(
                "it is an array as numpy.save writes it, with a header of its own".to_owned(),
            );
        }
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if let Some(&(_, width)) = MAGIC.iter().find(|(magic, _)| read == 12 && *magic == number(0))
        {
            let (said, found) =
                (u64::from(number(8)), bytes.saturating_sub(HEADER_BYTES) / width.bytes());
            if said != found || bytes < HEADER_BYTES {
                return refuse(format!("its llm.c header says {said} tokens, {found} follow it"));
            }
            return Ok(Self { width, header_bytes: HEADER_BYTES, tokens: found });
        }
        let width = Self::look(&mut file, bytes).map_err(Error::io("read", path))?;
        if !bytes.is_multiple_of(width.bytes()) {
            let name = width.name();
            return refuse(format!("{bytes} bytes are not a whole number of {name} tokens"));
        }
        Ok(Self { width, header_bytes: 0, tokens: bytes / width.bytes() })
    }

    /// The width of the ids, from places spread over the file.
    fn look(file: &mut File, bytes: u64) -> std::io::Result<Width> {
        let mut halves = Vec::new();
        for place in 0..PLACES {
            // whole ids of every width
            file.seek(SeekFrom::Start(bytes / PLACES * place / 8 * 8))?;
            let mut look = Vec::new();
            file.take(LOOK_BYTES as u64).read_to_end(&mut look)?;
            let whole = look.chunks_exact(8);
            halves.extend(whole.flat_map(|eight| {
                [0, 2, 4, 6].map(|at| u16::from_le_bytes([eight[at], eight[at + 1]]))
            }));
        }
        Ok(width_of(&halves))
    }

    fn map(self, path: &Path, first: u64, len: u64) -> Result<Tokens> {
        Tokens::map(path, self.width, self.header_bytes / self.width.bytes() + first, len)
    }
}

/// The width that fits what is read as u16, four of them for each eight bytes of the file.
///
/// Of wider ids the upper halves are 0, or small where the lower ones go through their whole range; a file of u16 has
/// the same numbers at odd and at even places.
fn width_of(halves: &[u16]) -> Width {
    let largest =
        |place: usize, of: usize| halves.iter().skip(place).step_by(of).copied().max().unwrap_or(0);
    let (lower, upper) = (largest(0, 2), largest(1, 2));
    let wide = u32::from(lower) > 16 * (u32::from(upper) + 1);
    if wide && largest(2, 4) == 0 && largest(3, 4) == 0 {
        Width::I64
    } else if wide {
        Width::U32
    } else {
        Width::U16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(bytes: &[u8]) -> Width {
        let halves: Vec<u16> =
            bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
        width_of(&halves)
    }

    #[test]
    fn widths_are_told_apart() {
        // vocabularies of characters, of GPT-2, of Llama 3, of Gemma
        for vocab in [60_u64, 50_257, 128_000, 262_144] {
            let ids: Vec<u64> = (0..5000_u64).map(|i| i * i * 2_654_435_761 % vocab).collect();
            if vocab <= 1 << 16 {
                let u16s: Vec<u8> = ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect();
                assert_eq!(width(&u16s), Width::U16, "{vocab}");
            }
            let u32s: Vec<u8> = ids.iter().flat_map(|&id| (id as u32).to_le_bytes()).collect();
            assert_eq!(width(&u32s), Width::U32, "{vocab}");
            let i64s: Vec<u8> = ids.iter().flat_map(|&id| id.to_le_bytes()).collect();
            assert_eq!(width(&i64s), Width::I64, "{vocab}");
        }
    }
}
