//! How a file of token ids is written, read off its beginning and a few places; where that is not clear it is refused, never
//! taken for the narrowest. Knows neither torch nor paths: `fuzz` tries it on bytes that nobody thought of.

use std::io::{Read, Seek, SeekFrom};

/// The element type of a file of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    U16,
    U32,
    I64,
}

impl Width {
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
            Self::I64 => 8,
        }
    }

    /// As numpy names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::I64 => "int64",
        }
    }
}

/// Why the format of a file is not known.
#[derive(Debug)]
pub(crate) enum Unclear {
    /// It cannot be read.
    Io(std::io::Error),
    /// It is none of token ids: a sentence about the file.
    Refused(String),
}

impl From<std::io::Error> for Unclear {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// How the ids of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) width: Width,
    /// Bytes before the first id: a whole number of ids.
    pub(crate) header_bytes: u64,
    pub(crate) tokens: u64,
}

/// llm.c's header: 256 numbers of 32 bits, the first three of them what it is, its version, and how many tokens follow.
pub(crate) const HEADER_BYTES: u64 = 1024;
/// What llm.c writes first, by the width of the ids.
pub(crate) const MAGIC: [(u32, Width); 2] = [(20_240_520, Width::U16), (20_240_801, Width::U32)];

/// Bytes that are looked at in a place of the file, and in how many places.
const LOOK_BYTES: u64 = 1 << 13;
const PLACES: u64 = 16;

impl Format {
    /// Of a file of so many bytes.
    ///
    /// # Errors
    /// When it cannot be read, or holds no token ids in a form that is known.
    pub(crate) fn of(file: &mut (impl Read + Seek), bytes: u64) -> Result<Self, Unclear> {
        let refuse = |problem: String| Err(Unclear::Refused(problem));
        if bytes == 0 {
            return refuse("it is empty".to_owned());
        }
        let mut head = Vec::new();
        file.by_ref().take(12).read_to_end(&mut head)?;
        if head.starts_with(b"\x93NUMPY") {
            return refuse(
                "it is an array as numpy.save writes it, with a header of its own".to_owned(),
            );
        }
        let (numbers, _) = head.as_chunks::<4>();
        if let [magic, _, said] = numbers
            && let Some(&(_, width)) =
                MAGIC.iter().find(|(known, _)| *known == u32::from_le_bytes(*magic))
        {
            let (said, follow) =
                (u64::from(u32::from_le_bytes(*said)), bytes.saturating_sub(HEADER_BYTES));
            if bytes < HEADER_BYTES || said.saturating_mul(width.bytes()) != follow {
                return refuse(format!(
                    "its llm.c header says {said} tokens, {} follow it",
                    follow / width.bytes()
                ));
            }
            return Ok(Self { width, header_bytes: HEADER_BYTES, tokens: said });
        }
        let width = Self::look(file, bytes)?;
        if !bytes.is_multiple_of(width.bytes()) {
            let name = width.name();
            return refuse(format!("{bytes} bytes are not a whole number of {name} tokens"));
        }
        Ok(Self { width, header_bytes: 0, tokens: bytes / width.bytes() })
    }

    /// The width of the ids, from places spread over the file.
    fn look(file: &mut (impl Read + Seek), bytes: u64) -> std::io::Result<Width> {
        let mut halves = Vec::new();
        for place in 0..PLACES {
            // whole ids of every width
            file.seek(SeekFrom::Start(bytes / PLACES * place / 8 * 8))?;
            let mut look = Vec::new();
            file.by_ref().take(LOOK_BYTES).read_to_end(&mut look)?;
            let whole = look.chunks_exact(8);
            halves.extend(whole.flat_map(|eight| {
                [0, 2, 4, 6].map(|at| u16::from_le_bytes([eight[at], eight[at + 1]]))
            }));
        }
        Ok(width_of(&halves))
    }
}

/// The width that fits what is read as u16, four of them for each eight bytes of the file.
///
/// Of wider ids the upper halves are 0, or small where the lower ones go through their whole range; a file of u16 has
/// the same numbers at odd and at even places.
pub(crate) fn width_of(halves: &[u16]) -> Width {
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
