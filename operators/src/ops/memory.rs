//! The memory of f32 tensors on the CPU as slices, for the kernels.

use tch::{Device, Kind, Tensor};

fn check(tensor: &Tensor) -> usize {
    assert!(single_on_cpu(tensor), "kernels take f32 on the CPU");
    assert!(tensor.is_contiguous(), "kernels take contiguous tensors");
    tensor.numel()
}

/// The elements, row-major.
pub(crate) fn read(tensor: &Tensor) -> &[f32] {
    let len = check(tensor);
    if len == 0 {
        return &[];
    }
    // SAFETY: a contiguous f32 tensor in the host's memory has `len` elements at its data pointer, which live as long
    // as the tensor; kernels write only to tensors that they made themselves and nobody else holds.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), len) }
}

/// The elements of a tensor that nobody else holds, row-major.
pub(crate) fn write(tensor: &mut Tensor) -> &mut [f32] {
    let len = check(tensor);
    if len == 0 {
        return &mut [];
    }
    // SAFETY: as for `read`; the operation that calls this has just made the tensor.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), len) }
}

/// Whether kernels take a tensor: f32 on the CPU.
pub(crate) fn single_on_cpu(tensor: &Tensor) -> bool {
    tensor.kind() == Kind::Float && tensor.device() == Device::Cpu
}

/// The elements of an int64 tensor, row-major.
pub(crate) fn read_integers(tensor: &Tensor) -> &[i64] {
    assert!(
        tensor.kind() == Kind::Int64 && tensor.device() == Device::Cpu && tensor.is_contiguous(),
        "kernels take contiguous int64 on the CPU"
    );
    let len = tensor.numel();
    if len == 0 {
        return &[];
    }
    // SAFETY: as for `read`.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), len) }
}
