//! The backend of each device.

use kernels::timing::Plan;
use search::device::Device;

use crate::backend::Backend;
use crate::error::ProfileError;
use crate::{cpu, cuda};

/// What times on `device`.
///
/// # Errors
/// When it cannot be used: the message says what is missing and what to do.
pub fn open(device: Device, plan: &Plan) -> Result<Box<dyn Backend>, ProfileError> {
    Ok(match device {
        Device::Cpu => Box::new(cpu::Profiler::new(*plan)),
        Device::Cuda(number) => Box::new(cuda::Profiler::open(number.unwrap_or(0), plan)?),
    })
}
