//! Rotary positions of whole sequences, forward and backward.

use super::arguments::Arguments;
use super::chunked::Rows;
use super::{Error, Launch, Source};

const THREADS: usize = 256;

/// The launch of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rope {
    /// B.
    pub batch: usize,
    /// T.
    pub tokens: usize,
    /// H.
    pub heads: usize,
    /// K, a multiple of 16.
    pub width: usize,
    /// Whether numbers are f32, else bf16.
    pub wide: bool,
}

impl Rope {
    /// # Errors
    /// When the kernel does not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        let &Self { batch, tokens, heads, width, .. } = self;
        if width.is_multiple_of(16) && batch * tokens * heads * width > 0 {
            return Ok(());
        }
        Err(Error::Shape {
            what: "rotary positions".to_owned(),
            expected: "heads as wide as a multiple of 16, and at least one".to_owned(),
            got: format!("{heads} of {width} at {} positions", batch * tokens),
        })
    }

    /// The constants of the source.
    pub fn defines(&self) -> Vec<(&'static str, u32)> {
        vec![("WIDE", u32::from(self.wide))]
    }

    /// y `[B, T, H, K]` without gaps: rows `[H, K]` turned by `rotations`, f32 `[T, K / 2, 2]` as
    /// [`super::attention::rotations`] has them, or turned back.
    pub fn turn(&self, x: Rows, rotations: u64, back: bool, y: u64) -> Launch {
        let &Self { batch, tokens, heads, width, .. } = self;
        let arguments = Arguments::default()
            .addresses(&[x.address, rotations, y, x.stride as u64])
            .counts(&[batch * tokens, tokens, heads, width])
            .factor(if back { -1.0 } else { 1.0 })
            .finish();
        Launch {
            source: Source::Rope,
            kernel: "rope_turn",
            defines: self.defines(),
            grid: ((batch * tokens * heads * width / 16).div_ceil(THREADS) as u32, 1),
            threads: THREADS as u32,
            shared_bytes: 0,
            together: false,
            boxes: Vec::new(),
            arguments,
        }
    }
}
