//! How a block of `decode_step` is laid out on a machine, and its launch.

use super::Storage;
use super::phase::{DecodeArgs, PARTIALS, Phase, SCRATCH_BYTES, STREAM_BYTES, TILE_HEADS};
use crate::cuda::{Error, Extent, Launch, Source};

const OWN_ROWS_SMALL: u32 = 128; // of the residual stream that one block keeps
const OWN_ROWS_LARGE: u32 = 512; // on machines of few multiprocessors
const OWN_ROWS_FEW: u32 = 64; // where factors of 8-bit weights take the room, on machines of many
const MANY_BLOCKS: u32 = 64;

/// Warps, ring and own rows of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Blocks, one for each multiprocessor.
    pub blocks: u32,
    /// Warps that compute.
    pub warps: u32,
    /// Units of the ring.
    pub slots: u32,
    /// Rows of the residual stream that a block can keep.
    pub own_rows: u32,
    /// What the kernel knows of that few programs have ([`Phase::genes`]).
    pub genes: u32,
    /// What weights of matrices are kept as.
    pub storage: Storage,
}

impl Layout {
    /// The longest ring that fits.
    ///
    /// # Errors
    /// When not even the shortest does.
    pub fn of(extent: Extent, storage: Storage) -> Result<Self, Error> {
        let blocks = extent.multiprocessors;
        let warps = extent.warps - 1; // one more streams
        let own_rows = match storage {
            _ if blocks < 32 => OWN_ROWS_LARGE,
            Storage::Int8 | Storage::Fp8 if blocks >= MANY_BLOCKS => OWN_ROWS_FEW,
            Storage::Bf16 | Storage::Int8 | Storage::Fp8 => OWN_ROWS_SMALL,
        };
        // a slot of the ring belongs to one warp: see `phase.cuh`
        let ring =
            |turns: u32| Self { blocks, warps, slots: warps * turns, own_rows, genes: 0, storage };
        (1..=32)
            .rev()
            .map(ring)
            .find(|layout| layout.shared_bytes() <= extent.shared_bytes)
            .ok_or_else(|| Error::Shape {
                what: "shared memory of a block".to_owned(),
                expected: format!("{} bytes at least", ring(1).shared_bytes()),
                got: extent.shared_bytes.to_string(),
            })
    }

    /// The size of `Shared` in `phase.cuh`, which asserts it.
    pub fn shared_bytes(self) -> u32 {
        let Self { warps, slots, own_rows, .. } = self;
        let descriptions = 4 * size_of::<Phase>() as u32;
        let small =
            slots * 16 + descriptions + 128 + warps * TILE_HEADS * 8 + own_rows * 4 + PARTIALS * 4;
        let slot = STREAM_BYTES + self.storage.factor_bytes() as u32;
        (small.next_multiple_of(128) + SCRATCH_BYTES + slots * slot).next_multiple_of(128)
    }

    /// The constants that the step is compiled with.
    pub fn defines(self) -> Vec<(&'static str, u32)> {
        let Self { warps, slots, own_rows, genes, storage, .. } = self;
        let mut defines = vec![
            ("WARPS", warps),
            ("SLOTS", slots),
            ("OWN_ROWS", own_rows),
            ("SHARED_BYTES", self.shared_bytes()),
        ];
        if genes != 0 {
            defines.push(("GENES", genes));
        }
        if storage != Storage::Bf16 {
            defines.push(("WEIGHTS", storage.define()));
        }
        defines
    }

    /// One step by the program that `arguments` name, over the state that they name.
    pub fn launch(self, arguments: &DecodeArgs) -> Launch {
        Launch {
            source: Source::Decode,
            kernel: "decode_step",
            defines: self.defines(),
            grid: (self.blocks, 1),
            threads: (self.warps + 1) * 32,
            shared_bytes: self.shared_bytes(),
            together: true,
            boxes: Vec::new(),
            arguments: bytemuck::bytes_of(arguments).to_vec(),
        }
    }
}

/// The constants that the step is compiled with on a machine of `extent`, for weights in bf16.
///
/// # Errors
/// When no block fits.
pub fn defines(extent: Extent) -> Result<Vec<(&'static str, u32)>, Error> {
    Ok(Layout::of(extent, Storage::Bf16)?.defines())
}
