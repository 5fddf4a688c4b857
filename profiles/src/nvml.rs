//! NVIDIA's management library, loaded at run time where a driver brings it.

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::Clock;
use serde::Serialize;

/// The GPUs of this machine, or why they are not known.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Nvidia {
    /// The driver answered.
    Driver {
        /// Its version.
        version: String,
        /// The CUDA version it brings, `13.0`.
        cuda: Option<String>,
        /// Its GPUs.
        gpus: Vec<Gpu>,
    },
    /// No answer, and why.
    Unavailable {
        /// One sentence.
        reason: String,
    },
}

/// One GPU. What the driver does not tell is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gpu {
    /// Its index, as in `cuda:0`.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Compute capability, `9.0`.
    pub compute_capability: Option<String>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Memory that is free.
    pub memory_free_bytes: Option<u64>,
    /// The clock of its processors now.
    pub sm_clock_mhz: Option<u32>,
    /// The highest clock of its processors.
    pub sm_clock_max_mhz: Option<u32>,
    /// The clock of its memory now.
    pub memory_clock_mhz: Option<u32>,
    /// Power drawn now.
    pub power_mw: Option<u32>,
    /// Why clocks are lower than they could be, as NVML names the reasons.
    pub throttle_reasons: Option<String>,
}

/// Asks the driver.
pub(crate) fn read() -> Nvidia {
    ask().unwrap_or_else(|error| Nvidia::Unavailable {
        reason: format!("NVML: {error}; an NVIDIA driver brings libnvidia-ml.so.1"),
    })
}

fn ask() -> Result<Nvidia, nvml_wrapper::error::NvmlError> {
    let nvml = Nvml::init()?;
    let cuda = nvml.sys_cuda_driver_version().ok();
    let gpus = (0..nvml.device_count()?)
        .map(|index| {
            let device = nvml.device_by_index(index)?;
            let memory = device.memory_info().ok();
            Ok(Gpu {
                index,
                name: device.name()?,
                compute_capability: device
                    .cuda_compute_capability()
                    .ok()
                    .map(|c| format!("{}.{}", c.major, c.minor)),
                memory_bytes: memory.as_ref().map(|m| m.total),
                memory_free_bytes: memory.as_ref().map(|m| m.free),
                sm_clock_mhz: device.clock_info(Clock::SM).ok(),
                sm_clock_max_mhz: device.max_clock_info(Clock::SM).ok(),
                memory_clock_mhz: device.clock_info(Clock::Memory).ok(),
                power_mw: device.power_usage().ok(),
                throttle_reasons: device.current_throttle_reasons().ok().map(|r| format!("{r:?}")),
            })
        })
        .collect::<Result<_, nvml_wrapper::error::NvmlError>>()?;
    Ok(Nvidia::Driver {
        version: nvml.sys_driver_version()?,
        // 13000 is 13.0, 12080 is 12.8
        cuda: cuda.map(|v| format!("{}.{}", v / 1000, v % 1000 / 10)),
        gpus,
    })
}
