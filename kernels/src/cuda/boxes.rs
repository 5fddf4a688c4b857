//! Tensors as the copy engine of compute capability 9.0 reads and writes boxes of them.

use cudarc::driver::sys;

use super::Error;

/// A bf16 tensor `[B, H, T, K]` whose axes may lie apart, gone through in boxes of 64 columns and some rows of one head.
/// In shared memory a row of a box has 128 bytes, of which pieces of 16 are swapped as `hopper.cuh` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boxes {
    /// Address of the first element, a multiple of 16.
    pub address: u64,
    /// K, T, H, B.
    pub extents: [usize; 4],
    /// From a row, a head, a sequence to the next, in bytes: multiples of 16.
    pub strides_bytes: [usize; 3],
    /// Rows of a box, 256 at most.
    pub rows: usize,
}

impl Boxes {
    /// Bytes of the argument that tells a kernel of them.
    pub const BYTES: usize = 128;

    /// The argument for the emulator, `TensorMap` in `hopper.hpp`.
    pub(super) fn plain(&self) -> [u8; Self::BYTES] {
        let numbers = std::iter::once(self.address)
            .chain(self.extents.iter().chain(&self.strides_bytes).map(|n| *n as u64))
            .chain(std::iter::once(self.rows as u64));
        let mut bytes = [0; Self::BYTES];
        for (to, number) in bytes.chunks_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    /// The argument for a GPU, as its driver writes it.
    pub(super) fn encoded(&self) -> Result<[u8; Self::BYTES], Error> {
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let extents = self.extents.map(|n| n as u64);
        let strides = self.strides_bytes.map(|n| n as u64);
        let (sides, steps) = ([64, self.rows as u32, 1, 1], [1; 4]);
        // SAFETY: every pointer is to values that live through the call, as many as the four axes want; the driver reads
        // nothing at the tensor's address.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                4,
                self.address as *mut std::ffi::c_void,
                extents.as_ptr(),
                strides.as_ptr(),
                sides.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(|error| Error::Refused {
            operation: format!("describing {self:?}"),
            reason: error.to_string(),
        })?;
        let mut bytes = [0; Self::BYTES];
        for (to, word) in bytes.chunks_mut(8).zip(map.opaque) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(bytes)
    }
}
