//! One token through a whole model in one launch: the kernel `decode_step`, which runs a program of phases.
//!
//! What a program says is `profiles`' business: it knows architectures. Here stand what a [`Phase`] can be, how a block is
//! laid out ([`Layout`]), how matrices lie in memory ([`Storage`]), and the kernel (`phase.cuh` and what follows it).

mod layout;
pub(super) mod phase;
mod storage;

pub use layout::{Layout, defines};
pub use phase::{
    BLOCK_POSITIONS, Control, DecodeArgs, Experts, GENES, Input, Kind, MOMENTS, Output, PARTIALS,
    Phase, SCRATCH_BYTES, STATE_ROWS, TILE_HEADS, UNIT_CHUNKS,
};
pub use storage::{CHUNK_COLUMNS, Storage};
