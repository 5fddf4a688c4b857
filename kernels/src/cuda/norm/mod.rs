//! RMSNorm, its gated forms and the L2 norm of heads, forward and backward.

use super::arguments::Arguments;
use super::chunked::Rows;
use super::{Error, Launch, Source};

/// Blocks that walk over the rows in the backward pass, each with a part of the weight's gradient.
const BLOCKS: usize = 132 * 4;

/// Where a gate stands, and what of it multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// There is none.
    None,
    /// Its SiLU, as in Gated DeltaNet.
    AfterNorm,
    /// Its SiLU, as in Mamba2.
    BeforeNorm,
    /// Its σ, as in Kimi Delta Attention.
    SigmoidAfterNorm,
}

/// The launches of one shape: rows are `[outer, inner, width]`, where outer rows may lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// Outer rows.
    pub outer: usize,
    /// Inner rows, `width` apart.
    pub inner: usize,
    /// W, a multiple of 8, at most 8192.
    pub width: usize,
    /// Whether numbers are f32, else bf16; the weight is always f32.
    pub wide: bool,
    /// The gate.
    pub gate: Gate,
    /// Of the sum of squares: 1 / W for RMSNorm, 1 for the L2 norm.
    pub factor: f32,
    /// ε.
    pub epsilon: f32,
}

impl Norm {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        if self.width.is_multiple_of(8) && (8..=8192).contains(&self.width) && self.rows() > 0 {
            return Ok(());
        }
        Err(Error::Shape {
            what: "the width of a norm".to_owned(),
            expected: "a multiple of 8 up to 8192, and at least one row".to_owned(),
            got: format!("{} of {} rows", self.width, self.rows()),
        })
    }

    fn rows(&self) -> usize {
        self.outer * self.inner
    }

    /// Warps of a row.
    fn team(&self) -> usize {
        self.width.div_ceil(256)
    }

    /// Teams of a block.
    fn teams(&self) -> usize {
        (4 / self.team()).max(1)
    }

    /// Parts of the weight's gradient, `[parts, W]`: to be summed over the first.
    pub fn parts(&self) -> usize {
        self.blocks() * self.teams()
    }

    fn blocks(&self) -> usize {
        self.rows().div_ceil(self.teams()).min(BLOCKS)
    }

    /// The constants of the source.
    pub fn defines(&self) -> Vec<(&'static str, u32)> {
        let gate = match self.gate {
            Gate::None => 0,
            Gate::AfterNorm => 1,
            Gate::BeforeNorm => 2,
            Gate::SigmoidAfterNorm => 3,
        };
        vec![
            ("WIDE", u32::from(self.wide)),
            ("WIDTH", self.width as u32),
            ("TEAM", self.team() as u32),
            ("TEAMS", self.teams() as u32),
            ("GATE", gate),
        ]
    }

    /// Bytes of shared memory of a block.
    pub fn shared_bytes(&self) -> usize {
        4 * self.team() * self.teams()
    }

    fn launch(&self, kernel: &'static str, blocks: usize, arguments: Vec<u8>) -> Launch {
        let warps = self.team() * self.teams();
        Launch {
            source: Source::Norm,
            kernel,
            defines: self.defines(),
            grid: (blocks as u32, 1),
            threads: 32 * warps as u32,
            shared_bytes: self.shared_bytes() as u32,
            together: false,
            boxes: Vec::new(),
            arguments,
        }
    }

    fn last(&self, arguments: &mut Arguments) -> Vec<u8> {
        arguments
            .counts(&[self.rows(), self.inner])
            .factor(self.factor)
            .factor(self.epsilon)
            .finish()
    }

    /// y, rows without gaps, of x. `gate` is not read where there is none; `weight` is f32 `[W]`, 0 for ones.
    pub fn forward(&self, x: Rows, gate: Rows, weight: u64, y: u64) -> Launch {
        let mut arguments = Arguments::default();
        arguments.addresses(&[x.address, gate.address, weight, y]);
        arguments.addresses(&[x.stride as u64, gate.stride as u64]);
        let blocks = self.rows().div_ceil(self.teams()).min(16 * BLOCKS);
        self.launch("norm_forward", blocks, self.last(&mut arguments))
    }

    /// Adds x to `residual` in place and norms the sum as it is there; rows of both and of y without gaps, of x perhaps
    /// apart, all of one inner row. Gates are for [`Self::forward`].
    pub fn add(&self, x: Rows, residual: u64, weight: u64, y: u64) -> Launch {
        let arguments = Arguments::default()
            .addresses(&[x.address, residual, weight, y, x.stride as u64])
            .counts(&[self.rows()])
            .factor(self.factor)
            .factor(self.epsilon)
            .finish();
        let blocks = self.rows().div_ceil(self.teams()).min(16 * BLOCKS);
        self.launch("norm_add", blocks, arguments)
    }

    /// Adds the norm of x to `residual` in place, or where `weight` is 0 x as it is; rows of `residual` without gaps, of x
    /// perhaps apart, all of one inner row. Gates are for [`Self::forward`].
    pub fn onto(&self, x: Rows, weight: u64, residual: u64) -> Launch {
        let arguments = Arguments::default()
            .addresses(&[x.address, weight, residual, x.stride as u64])
            .counts(&[self.rows()])
            .factor(self.factor)
            .factor(self.epsilon)
            .finish();
        let blocks = self.rows().div_ceil(self.teams()).min(16 * BLOCKS);
        self.launch("norm_onto", blocks, arguments)
    }

    /// The gradients of x and of the gate, rows without gaps, and in parts that of the weight (0: not wanted).
    pub fn backward(
        &self,
        (x, gate, weight): (Rows, Rows, u64),
        d_y: u64,
        (d_x, d_gate, d_weight): (u64, u64, u64),
    ) -> Launch {
        let mut arguments = Arguments::default();
        arguments.addresses(&[x.address, gate.address, weight, d_y, d_x, d_gate, d_weight]);
        arguments.addresses(&[x.stride as u64, gate.stride as u64]);
        self.launch("norm_backward", self.blocks(), self.last(&mut arguments))
    }
}
