//! What surrounds the recurrence of Mamba2: values times a factor of their head and position before it, a skip past it,
//! and the gradients of both.

use super::arguments::Arguments;
use super::chunked::Rows;
use super::{Error, Launch, Source, check_grid};

/// Positions that a thread walks over.
const LENGTH: usize = 32;

/// The launches of one shape: x is `[positions, H, P]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Values {
    /// B · T.
    pub positions: usize,
    /// H.
    pub heads: usize,
    /// P: 8, 16, 32, 64, 128 or 256.
    pub width: usize,
    /// Whether numbers are f32, else bf16; factors are always f32.
    pub wide: bool,
}

impl Values {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        let covered = self.width.is_power_of_two() && (8..=256).contains(&self.width);
        if covered && self.positions * self.heads > 0 {
            return check_grid("spans of positions", self.parts());
        }
        Err(Error::Shape {
            what: "the width of the values".to_owned(),
            expected: "8, 16, 32, 64, 128 or 256, and at least one position".to_owned(),
            got: format!("{} at {} positions", self.width, self.positions),
        })
    }

    /// Parts of the skip's gradient, `[parts, H]`: to be summed over the first.
    pub fn parts(&self) -> usize {
        self.positions.div_ceil(LENGTH)
    }

    /// The constants of the source.
    pub fn defines(&self) -> Vec<(&'static str, u32)> {
        vec![("WIDE", u32::from(self.wide)), ("P", self.width as u32), ("LENGTH", LENGTH as u32)]
    }

    fn launch(&self, kernel: &'static str, arguments: &mut Arguments) -> Launch {
        let heads = 256 / (self.width / 8); // of a block
        Launch {
            source: Source::Values,
            kernel,
            defines: self.defines(),
            grid: (self.heads.div_ceil(heads) as u32, self.parts() as u32),
            threads: 256,
            shared_bytes: 0,
            together: false,
            boxes: Vec::new(),
            arguments: arguments.counts(&[self.positions, self.heads]).finish(),
        }
    }

    /// v = a x; `factors` is f32 `[positions, H]`.
    pub fn scale(&self, x: Rows, factors: u64, v: u64) -> Launch {
        let mut arguments = Arguments::default();
        arguments.addresses(&[x.address, factors, v, x.stride as u64]);
        self.launch("values_scale", &mut arguments)
    }

    /// y += D x; `skip` is f32 `[H]`.
    pub fn skip(&self, x: Rows, skip: u64, y: u64) -> Launch {
        let mut arguments = Arguments::default();
        arguments.addresses(&[x.address, skip, y, x.stride as u64]);
        self.launch("values_skip", &mut arguments)
    }

    /// The gradients of x, of the factors and, in parts, of the skip; `factors` and `skip` 0 for 1 and 0, their
    /// gradients 0 where not wanted.
    pub fn backward(
        &self,
        (x, factors, skip): (Rows, u64, u64),
        (d_v, d_y): (u64, Rows),
        (d_x, d_factors, d_skip): (u64, u64, u64),
    ) -> Launch {
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[x.address, factors, skip, d_v, d_y.address, d_x, d_factors, d_skip])
            .addresses(&[x.stride as u64, d_y.stride as u64]);
        self.launch("values_backward", &mut arguments)
    }
}
