//! What this device is, as one JSON object: `deltafront-profile --facts`.

use kernels::device;
use search::device::Platform;
use serde::Serialize;

use crate::diagnosis::{Finding, Seen, diagnose};

pub use crate::cuda::nvml::{Gpu, Nvidia};

/// The device and what the kernels make of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// Version of the kernels, as it stands beside timings.
    pub kernels: String,
    /// The processor and its memory.
    pub cpu: Cpu,
    /// GPUs, or why there are none.
    pub nvidia: Nvidia,
    /// What stands between this machine and its GPUs.
    pub gpu_findings: Vec<Finding>,
}

/// The processor and its memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// The name in latency tables.
    pub device: String,
    /// The model's name.
    pub name: String,
    /// `x86_64`, `aarch64`, …
    pub architecture: &'static str,
    /// The instruction set that the kernels use.
    pub level: &'static str,
    /// Those features of the processor that matter here.
    pub features: Vec<String>,
    /// Threads that may run at once.
    pub cores: usize,
    /// The caches of the first core.
    pub caches: Vec<Cache>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Memory that is free or can be freed.
    pub memory_available_bytes: Option<u64>,
}

/// One cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// 1, 2, 3.
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// Its size.
    pub bytes: u64,
    /// The cores that share it.
    pub shared_by: String,
}

impl Facts {
    /// Asks the system and the driver.
    pub fn read() -> Self {
        let cpu = device::Cpu::read();
        let nvidia = crate::cuda::nvml::read();
        let seen = Seen {
            nvidia: nvidia.clone(),
            nvrtc: kernels::cuda::compiler::version().map_err(|error| error.to_string()),
            cublaslt: match nvidia {
                // half a gigabyte, loaded to be looked at: not where there is nothing to use it
                Nvidia::Driver { .. } => {
                    kernels::cuda::product::version().map_err(|error| error.to_string())
                }
                Nvidia::Unavailable { .. } => Err("not looked for".to_owned()),
            },
            torch_cuda: matches!(nvidia, Nvidia::Driver { .. })
                .then(crate::diagnosis::torch_cuda)
                .flatten(),
        };
        Self {
            kernels: kernels::version(),
            cpu: Cpu {
                device: Platform::Cpu.hardware(&cpu.name),
                name: cpu.name,
                architecture: cpu.architecture,
                level: cpu.level.name(),
                features: cpu.features,
                cores: cpu.cores,
                caches: cpu
                    .caches
                    .into_iter()
                    .map(|c| Cache {
                        level: c.level,
                        kind: c.kind,
                        bytes: c.bytes,
                        shared_by: c.shared_by,
                    })
                    .collect(),
                memory_bytes: cpu.memory_bytes,
                memory_available_bytes: cpu.memory_available_bytes,
            },
            nvidia,
            gpu_findings: diagnose(&seen),
        }
    }
}
