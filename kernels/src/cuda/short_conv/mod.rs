//! The short convolution with its SiLU, forward and backward, over whole sequences.

use super::arguments::Arguments;
use super::chunked::Rows;
use super::{Error, Launch, Source, check_grid};

/// Positions that a thread walks over.
const LENGTH: usize = 32;

/// The launches of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortConv {
    /// B.
    pub batch: usize,
    /// T.
    pub tokens: usize,
    /// C, a multiple of 8.
    pub channels: usize,
    /// Whether numbers are f32, else bf16; taps and bias are always f32.
    pub wide: bool,
}

impl ShortConv {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        if self.channels.is_multiple_of(8) && self.channels > 0 && self.batch * self.tokens > 0 {
            return check_grid("spans of positions", self.walks());
        }
        Err(Error::Shape {
            what: "the number of channels".to_owned(),
            expected: "a multiple of 8, and at least one position".to_owned(),
            got: format!("{} at {} positions", self.channels, self.batch * self.tokens),
        })
    }

    fn walks(&self) -> usize {
        self.batch * self.tokens.div_ceil(LENGTH)
    }

    /// f32 values of the parts of the gradients of taps and bias, `[walks, 5, C]`: to be summed over the first.
    pub fn parts(&self) -> [usize; 3] {
        [self.walks(), 5, self.channels]
    }

    /// The constants of the source.
    pub fn defines(&self) -> Vec<(&'static str, u32)> {
        vec![("WIDE", u32::from(self.wide)), ("LENGTH", LENGTH as u32)]
    }

    fn launch(&self, kernel: &'static str, arguments: Vec<u8>) -> Launch {
        Launch {
            source: Source::ShortConv,
            kernel,
            defines: self.defines(),
            grid: (self.channels.div_ceil(4 * 128) as u32, self.walks() as u32),
            threads: 128,
            shared_bytes: 0,
            together: false,
            boxes: Vec::new(),
            arguments,
        }
    }

    /// y `[B, T, C]` of x. `weight` is f32 `[C, 4]`, `bias` f32 `[C]` or 0.
    pub fn forward(&self, x: Rows, weight: u64, bias: u64, y: u64) -> Launch {
        self.forward_keeping(x, weight, bias, y, 0)
    }

    /// The same, and the last four inputs of each sequence go to `ring`, `[B, 4, C]`, that of position t to row t mod 4:
    /// what [`super::step::ConvStep`] goes on from. 0: not wanted.
    pub fn forward_keeping(&self, x: Rows, weight: u64, bias: u64, y: u64, ring: u64) -> Launch {
        let arguments = Arguments::default()
            .addresses(&[x.address, weight, bias, y, ring, x.stride as u64])
            .counts(&[self.tokens, self.channels])
            .finish();
        self.launch("conv_forward", arguments)
    }

    /// d_x `[B, T, C]`, and in parts the gradients of taps and bias ([`Self::parts`]).
    pub fn backward(
        &self,
        x: Rows,
        weight: u64,
        bias: u64,
        d_y: Rows,
        d_x: u64,
        d_weight: u64,
    ) -> Launch {
        let arguments = Arguments::default()
            .addresses(&[x.address, weight, bias, d_y.address, d_x, d_weight])
            .addresses(&[x.stride as u64, d_y.stride as u64])
            .counts(&[self.tokens, self.channels])
            .finish();
        self.launch("conv_backward", arguments)
    }
}
