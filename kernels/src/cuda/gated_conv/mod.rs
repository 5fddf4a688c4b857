//! The gated short convolution: over whole sequences forward and backward, and one position of each sequence.

use super::arguments::Arguments;
use super::chunked::Rows;
use super::{Error, Launch, Source, check_grid};

/// Positions that a thread walks over.
const LENGTH: usize = 32;
const THREADS: usize = 128;

/// The launches of one shape. Rows hold B, C and x̃, `[3, C]`; `weight` is f32 `[C, k]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatedConv {
    /// B.
    pub batch: usize,
    /// T; of a step 1.
    pub tokens: usize,
    /// C, a multiple of 8.
    pub channels: usize,
    /// k, 2 to 8.
    pub taps: usize,
    /// Whether numbers are f32, else bf16; the weight and what is kept of u = B ⊙ x̃ are always f32.
    pub wide: bool,
}

impl GatedConv {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        let &Self { batch, tokens, channels, taps, .. } = self;
        if channels.is_multiple_of(8) && channels * batch * tokens > 0 && (2..=8).contains(&taps) {
            return check_grid("spans of positions", self.walks());
        }
        Err(Error::Shape {
            what: "the gated short convolution".to_owned(),
            expected: "a multiple of 8 channels, 2 to 8 taps, and at least one position".to_owned(),
            got: format!("{channels} channels, {taps} taps, {} positions", batch * tokens),
        })
    }

    fn walks(&self) -> usize {
        self.batch * self.tokens.div_ceil(LENGTH)
    }

    /// f32 values of the parts of the weight's gradient, `[walks, k, C]`: to be summed over the first.
    pub fn parts(&self) -> [usize; 3] {
        [self.walks(), self.taps, self.channels]
    }

    /// f32 values that a sequence leaves: u of the last k − 1 positions, that of position p in row p mod (k − 1).
    pub fn ring(&self) -> [usize; 2] {
        [self.taps - 1, self.channels]
    }

    /// The constants of the source.
    pub fn defines(&self) -> Vec<(&'static str, u32)> {
        let wide = u32::from(self.wide);
        vec![("WIDE", wide), ("LENGTH", LENGTH as u32), ("TAPS", self.taps as u32)]
    }

    fn launch(&self, kernel: &'static str, grid: (usize, usize), arguments: Vec<u8>) -> Launch {
        Launch {
            source: Source::GatedConv,
            kernel,
            defines: self.defines(),
            grid: (grid.0 as u32, grid.1 as u32),
            threads: THREADS as u32,
            shared_bytes: 0,
            together: false,
            boxes: Vec::new(),
            arguments,
        }
    }

    /// Blocks of a walk of all channels, four to a thread.
    fn grid(&self) -> (usize, usize) {
        (self.channels.div_ceil(4 * THREADS), self.walks())
    }

    /// y `[B, T, C]`, from nothing before. What is left of each sequence goes to `ring`, f32 `[B, k − 1, C]`; 0: not wanted.
    pub fn forward(&self, rows: Rows, weight: u64, y: u64, ring: u64) -> Launch {
        let arguments = Arguments::default()
            .addresses(&[rows.address, weight, y, ring, rows.stride as u64])
            .counts(&[self.tokens, self.channels])
            .finish();
        self.launch("gated_forward", self.grid(), arguments)
    }

    /// d_rows `[B, T, 3, C]`, and in parts the gradient of the weight ([`Self::parts`]).
    pub fn backward(&self, rows: Rows, weight: u64, d_y: Rows, d_rows: u64, parts: u64) -> Launch {
        let arguments = Arguments::default()
            .addresses(&[rows.address, weight, d_y.address, d_rows, parts])
            .addresses(&[rows.stride as u64, d_y.stride as u64])
            .counts(&[self.tokens, self.channels])
            .finish();
        self.launch("gated_backward", self.grid(), arguments)
    }

    /// y `[B, C]` of one position of each sequence; `positions` is u32 `[B]`, `ring` as [`Self::forward`] leaves it. It need
    /// not be initialised for position 0.
    pub fn step(&self, rows: Rows, weight: u64, ring: u64, positions: u64, y: u64) -> Launch {
        let arguments = Arguments::default()
            .addresses(&[rows.address, weight, ring, positions, y, rows.stride as u64])
            .counts(&[self.channels])
            .finish();
        self.launch("gated_step", (self.channels.div_ceil(THREADS), self.batch), arguments)
    }
}
