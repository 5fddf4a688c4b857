//! A sequence of token ids in the narrowest type that holds them, from memory or mapped from a file.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::token_format::Width;
use crate::error::{Error, Result};

/// Token ids, in order.
#[derive(Debug)]
pub struct Tokens {
    /// `[n]`; `Uint8` for bytes, `Int16` for u16 (torch has no ops on unsigned ones), `Int` for larger vocabularies,
    /// `Int64` where a file has such.
    ids: Tensor,
}

/// Elements read at once where a whole file is gone through: 8 MB of u16.
const CHUNK: i64 = 1 << 22;

impl Tokens {
    /// One token for each byte.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self { ids: Tensor::from_slice(bytes) }
    }

    /// From ids of any size.
    pub(super) fn from_ids(ids: &[u32]) -> Self {
        let narrow: Option<Vec<i16>> =
            ids.iter().map(|&id| u16::try_from(id).ok().map(u16::cast_signed)).collect();
        let ids = match narrow {
            Some(narrow) => Tensor::from_slice(&narrow),
            None => {
                Tensor::from_slice(&ids.iter().map(|&id| id.cast_signed()).collect::<Vec<i32>>())
            }
        };
        Self { ids }
    }

    /// Maps a file of little-endian ids, `first..first + len` of them, into memory. Pages are read when used.
    pub(super) fn map(path: &Path, width: Width, first: u64, len: u64) -> Result<Self> {
        if len == 0 {
            return Ok(Self { ids: Tensor::zeros([0], (Kind::Int, Device::Cpu)) });
        }
        let name = path.to_str().ok_or_else(|| {
            Error::corpus(
                path,
                "its name is not UTF-8",
                "rename it: libtorch maps files by UTF-8 names only",
            )
        })?;
        let kind = match width {
            Width::U16 => Kind::Int16,
            Width::U32 => Kind::Int,
            Width::I64 => Kind::Int64,
        };
        let all = Tensor::f_from_file(name, false, (first + len) as i64, (kind, Device::Cpu))?;
        Ok(Self { ids: all.narrow(0, first as i64, len as i64) })
    }

    /// Number of tokens.
    pub fn len(&self) -> u64 {
        self.ids.size()[0] as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no id can be above 65535.
    pub(super) fn are_narrow(&self) -> bool {
        self.ids.kind() == Kind::Int16
    }

    /// The windows of `length` tokens that begin at `starts`: `[starts, length]`, `Int64`.
    pub fn windows(&self, starts: &[u64], length: u64) -> Tensor {
        let rows: Vec<Tensor> =
            starts.iter().map(|&start| self.ids.narrow(0, start as i64, length as i64)).collect();
        widen(&Tensor::stack(&rows, 0))
    }

    /// The tokens `start..start + length` as plain numbers.
    pub(super) fn ids(&self, start: u64, length: u64) -> Vec<u32> {
        let ids = widen(&self.ids.narrow(0, start as i64, length as i64));
        let mut wide = vec![0_i64; length as usize];
        ids.copy_data(&mut wide, length as usize);
        wide.into_iter().map(|id| id as u32).collect()
    }

    /// The smallest and the largest id; none if there are none. Negative ones are no ids.
    pub(super) fn range(&self) -> Option<(i64, i64)> {
        let n = self.ids.size()[0];
        (0..n)
            .step_by(CHUNK as usize)
            .map(|start| {
                let (least, most) =
                    widen(&self.ids.narrow(0, start, CHUNK.min(n - start))).aminmax(None, false);
                (least.int64_value(&[]), most.int64_value(&[]))
            })
            .reduce(|(a, b), (least, most)| (a.min(least), b.max(most)))
    }
}

/// To `Int64`; an `Int16` is the same bits as the u16 that was written.
fn widen(ids: &Tensor) -> Tensor {
    let wide = ids.to_kind(Kind::Int64);
    if ids.kind() == Kind::Int16 { wide.bitwise_and(0xFFFF) } else { wide }
}
