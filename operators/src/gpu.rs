//! The CUDA kernels of `kernels::cuda` as differentiable operations on torch's tensors, on torch's stream.
//!
//! One program serves machines with and without a GPU: libtorch's CUDA library is loaded when [`device`] first asks for
//! it. Operations say by `suits_*` which tensors they take; all others are computed by torch operators.

mod chunked;
mod gated_conv;
mod kda;
mod norm;
mod rope;
mod short_conv;
mod swiglu;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, OnceLock, PoisonError};

use kernels::cuda::chunked::Rows;
use kernels::cuda::gpu::Gpu;
use kernels::cuda::{Error, Extent, Launch, torch_library};
use tch::{Device, Kind, Tensor};

use crate::libtorch;

pub use crate::libtorch::Recorded;
pub(crate) use gated_conv::{gated_conv, suits_gated_conv};
pub(crate) use kda::{log_decays, suits_log_decays};
pub(crate) use norm::{l2_norm, rms_norm, suits_norm};
pub(crate) use rope::{rotate, suits_rope};
pub(crate) use short_conv::{conv_silu, suits_conv};
pub(crate) use swiglu::{suits_swiglu, swiglu};

/// Torch's device for GPU number `ordinal`, made ready for torch and for the kernels.
///
/// # Errors
/// When something that training on it needs is missing; the message says what, and what to do.
pub fn device(ordinal: usize) -> Result<Device, Error> {
    torch_library::load()?;
    // The first question to libtorch about CUDA: after its library is there.
    let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if ordinal >= count {
        return Err(Error::Shape {
            what: "the number of the GPU".to_owned(),
            expected: format!("below {count}, the GPUs that libtorch finds"),
            got: ordinal.to_string(),
        });
    }
    with(ordinal, |_| ())?;
    Ok(Device::Cuda(ordinal))
}

/// Records what `work` starts on `device` instead of starting it, and gives back what it returns: tensors that hold their
/// values after each replay. All that it starts must have been started before, so that nothing is left to compile.
///
/// # Errors
/// When `device` is no GPU, or `work` does what cannot be recorded, such as waiting for the GPU; nothing has been computed
/// then.
pub fn record<T>(device: Device, work: impl FnOnce() -> T) -> Result<(Recorded, T), String> {
    let Device::Cuda(ordinal) = device else { return Err("only a GPU records".to_owned()) };
    let mut result = None;
    let recorded = libtorch::record(ordinal, || result = Some(work()))?;
    Ok((recorded, result.expect("what was recorded came to its end")))
}

/// Gives the memory of a GPU back that libtorch keeps for tensors to come: models of many sizes, one after the other, would
/// take what other processes need. Does nothing on a CPU.
///
/// # Errors
/// CUDA's words when it refuses.
pub fn release(device: Device) -> Result<(), String> {
    match device {
        Device::Cuda(_) => libtorch::release(),
        _ => Ok(()),
    }
}

/// The GPUs that launches went to, by number.
fn open() -> &'static Mutex<HashMap<usize, Gpu>> {
    static OPEN: OnceLock<Mutex<HashMap<usize, Gpu>>> = OnceLock::new();
    OPEN.get_or_init(Mutex::default)
}

fn with<T>(ordinal: usize, work: impl FnOnce(&mut Gpu) -> T) -> Result<T, Error> {
    let mut open = open().lock().unwrap_or_else(PoisonError::into_inner);
    let gpu = match open.entry(ordinal) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Gpu::on_stream(ordinal, 0)?),
    };
    gpu.bind()?;
    gpu.follow(libtorch::stream(ordinal)); // what torch's operators of this thread go to
    Ok(work(gpu))
}

/// What a tensor's GPU offers.
fn extent(tensor: &Tensor) -> Option<Extent> {
    let Device::Cuda(ordinal) = tensor.device() else { return None };
    extent_of(ordinal)
}

/// What a GPU offers; none where it cannot be opened.
pub(crate) fn extent_of(ordinal: usize) -> Option<Extent> {
    use kernels::cuda::Machine as _;
    with(ordinal, |gpu| gpu.extent()).ok()
}

/// Starts `launches` on the GPU of `tensor`.
///
/// # Panics
/// When the driver refuses; inside an operation that becomes torch's error.
fn launch(tensor: &Tensor, launches: &[Launch]) {
    use kernels::cuda::Machine as _;
    let Device::Cuda(ordinal) = tensor.device() else {
        panic!("GPU kernels take tensors on a GPU")
    };
    let started = with(ordinal, |gpu| launches.iter().try_for_each(|launch| gpu.launch(launch)));
    if let Err(error) = started.and_then(|started| started) {
        panic!("{error}");
    }
}

/// Whether kernels take numbers of this kind at this place.
fn on_gpu(tensor: &Tensor) -> bool {
    matches!(tensor.device(), Device::Cuda(_))
        && matches!(tensor.kind(), Kind::BFloat16 | Kind::Float)
}

/// Where a tensor's first element lies.
fn address(tensor: &Tensor) -> u64 {
    tensor.data_ptr() as u64
}

/// The first dimensions of `[…, W]` or `[…, H, W]` as rows that are equally far apart: their number and the distance in
/// elements; the last `inner` dimensions are without gaps.
fn row_stride(tensor: &Tensor, inner: usize) -> Option<(usize, usize)> {
    let (size, stride) = (tensor.size(), tensor.stride());
    let outer = size.len().checked_sub(inner)?;
    let mut width = 1;
    for i in (outer..size.len()).rev() {
        if size[i] != 1 && stride[i] != width {
            return None;
        }
        width *= size[i];
    }
    let count: i64 = size[..outer].iter().product();
    // from the innermost dimension that has more than one index
    let mut row = None;
    let mut expected = 0;
    for i in (0..outer).rev().filter(|i| size[*i] != 1) {
        match row {
            None => row = Some(stride[i]),
            Some(_) if stride[i] == expected => {}
            Some(_) => return None,
        }
        expected = stride[i] * size[i];
    }
    let row = row.unwrap_or(width);
    let aligned = (tensor.data_ptr() as usize).is_multiple_of(16);
    let bytes = tensor.kind().elt_size_in_bytes() as i64;
    (row >= width && row * bytes % 16 == 0 && aligned).then_some((count as usize, row as usize))
}

/// The same numbers so that kernels can read them as rows whose last `inner` dimensions are without gaps.
fn in_rows(tensor: &Tensor, inner: usize) -> Tensor {
    if row_stride(tensor, inner).is_some() { tensor.shallow_clone() } else { tensor.contiguous() }
}

/// The rows of what [`in_rows`] made.
fn rows(tensor: &Tensor, inner: usize) -> Rows {
    let (_, stride) = row_stride(tensor, inner).expect("`in_rows` made the rows");
    Rows { address: address(tensor), stride }
}
