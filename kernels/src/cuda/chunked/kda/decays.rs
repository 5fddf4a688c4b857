//! The logarithms of the decays, forward and backward: what stands between their projection and the rule in training.

use crate::cuda::arguments::Arguments;
use crate::cuda::chunked::Rows;
use crate::cuda::{Error, Launch, Source, check_grid};

/// Positions that a thread walks over.
const LENGTH: usize = 32;
/// Threads of a block, of eight channels each.
const THREADS: usize = 128;

/// The launches of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDecays {
    /// B · T.
    pub positions: usize,
    /// H.
    pub heads: usize,
    /// K, a multiple of 8.
    pub key_width: usize,
    /// Whether x is f32, else bf16; g, b and A are always f32.
    pub wide: bool,
}

impl LogDecays {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        if self.key_width.is_multiple_of(8) && self.positions * self.channels() > 0 {
            return check_grid("spans of 32 positions", self.parts());
        }
        Err(Error::Shape {
            what: "the key width".to_owned(),
            expected: "a multiple of 8, and at least one position".to_owned(),
            got: format!("{} at {} positions", self.key_width, self.positions),
        })
    }

    fn channels(&self) -> usize {
        self.heads * self.key_width
    }

    /// Parts of the gradients of b and A, `[parts, H·K]` each: to be summed over the first, those of A over a head's channels
    /// as well.
    pub fn parts(&self) -> usize {
        self.positions.div_ceil(LENGTH)
    }

    /// The constants of the source.
    pub fn defines(&self) -> Vec<(&'static str, u32)> {
        let (wide, width) = (u32::from(self.wide), self.key_width as u32);
        vec![("KDA_DECAYS", 1), ("WIDE", wide), ("KW", width), ("LENGTH", LENGTH as u32)]
    }

    fn launch(&self, kernel: &'static str, arguments: &mut Arguments) -> Launch {
        let blocks = self.channels().div_ceil(8 * THREADS);
        Launch {
            source: Source::Chunked,
            kernel,
            defines: self.defines(),
            grid: (blocks as u32, self.parts() as u32),
            threads: THREADS as u32,
            shared_bytes: 0,
            together: false,
            boxes: Vec::new(),
            arguments: arguments.counts(&[self.positions, self.channels()]).finish(),
        }
    }

    /// g = −e^A softplus(x + b), f32 `[positions, H·K]`; `bias` is f32 `[H·K]`, `a_log` f32 `[H]`.
    pub fn forward(&self, x: Rows, (bias, a_log): (u64, u64), g: u64) -> Launch {
        let mut arguments = Arguments::default();
        arguments.addresses(&[x.address, bias, a_log, g, x.stride as u64]);
        self.launch("kda_decays", &mut arguments)
    }

    /// The gradients of x, in rows without gaps, and in parts those of b and A.
    pub fn backward(
        &self,
        (x, bias, a_log): (Rows, u64, u64),
        d_g: Rows,
        (d_x, d_bias, d_a): (u64, u64, u64),
    ) -> Launch {
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[x.address, bias, a_log, d_g.address, d_x, d_bias, d_a])
            .addresses(&[x.stride as u64, d_g.stride as u64]);
        self.launch("kda_decays_backward", &mut arguments)
    }
}
