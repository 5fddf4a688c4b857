//! NVIDIA's management library, loaded at run time where a driver brings it.

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
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

/// Looks at one GPU while it is timed. It never changes a setting.
#[derive(Debug)]
pub(crate) struct Watch {
    nvml: Option<Nvml>,
    uuid: String,
}

/// One look. What the driver does not tell is absent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    sm_clock_mhz: Option<u32>,
    sm_clock_max_mhz: Option<u32>,
    memory_clock_mhz: Option<u32>,
    power_mw: Option<u32>,
    temperature_c: Option<u32>,
    slowed_by: Option<ThrottleReasons>,
    /// Share of the GPU that other processes used since the reading before, 0 to 1.
    others: Option<f64>,
    /// When it was taken.
    at_us: u64,
}

impl Watch {
    pub(crate) fn open(uuid: &str) -> Self {
        Self { nvml: Nvml::init().ok(), uuid: uuid.to_owned() }
    }

    /// A look at what goes on now.
    pub(crate) fn read(&self) -> Reading {
        // a trainer that has just ended is none that disturbs what comes
        self.read_since(now_us().saturating_sub(200_000))
    }

    /// A look at what went on since an earlier one.
    pub(crate) fn read_after(&self, before: &Reading) -> Reading {
        self.read_since(before.at_us)
    }

    /// The counter of its energy since the driver was loaded, mJ.
    pub(crate) fn energy_mj(&self) -> Option<u64> {
        let device = self.nvml.as_ref()?.device_by_uuid(self.uuid.as_str()).ok()?;
        device.total_energy_consumption().ok()
    }

    fn read_since(&self, since_us: u64) -> Reading {
        let Some(device) =
            self.nvml.as_ref().and_then(|nvml| nvml.device_by_uuid(self.uuid.as_str()).ok())
        else {
            return Reading::default();
        };
        let others = device.process_utilization_stats(since_us).ok().map(|samples| {
            let others = samples.iter().filter(|sample| sample.pid != std::process::id());
            f64::from(others.map(|sample| sample.sm_util).max().unwrap_or(0)) / 100.0
        });
        Reading {
            sm_clock_mhz: device.clock_info(Clock::SM).ok(),
            sm_clock_max_mhz: device.max_clock_info(Clock::SM).ok(),
            memory_clock_mhz: device.clock_info(Clock::Memory).ok(),
            power_mw: device.power_usage().ok(),
            temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
            slowed_by: device.current_throttle_reasons().ok(),
            others,
            at_us: now_us(),
        }
    }
}

/// Microseconds since 1970, by which the driver marks its samples.
fn now_us() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_micros() as u64)
}

/// The part of the GPU that a timing between two readings lacked: what other processes used, or what the hardware held
/// back for heat or for its supply of power.
pub(crate) fn disturbance(before: &Reading, after: &Reading) -> f64 {
    [before, after].iter().map(|reading| reading.disturbance()).fold(0.0, f64::max)
}

impl Reading {
    fn disturbance(&self) -> f64 {
        let hardware = ThrottleReasons::HW_SLOWDOWN
            | ThrottleReasons::HW_THERMAL_SLOWDOWN
            | ThrottleReasons::SW_THERMAL_SLOWDOWN
            | ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN;
        let is_slowed = self.slowed_by.is_some_and(|reasons| reasons.intersects(hardware));
        let lost = match (self.sm_clock_mhz, self.sm_clock_max_mhz) {
            (Some(now), Some(most)) if is_slowed && most > 0 => {
                (1.0 - f64::from(now) / f64::from(most)).max(0.1)
            }
            _ if is_slowed => 0.1,
            _ => 0.0,
        };
        self.others.unwrap_or(0.0).max(lost)
    }
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words = Vec::new();
        if let (Some(now), Some(most)) = (self.sm_clock_mhz, self.sm_clock_max_mhz) {
            words.push(format!("processors at {now} of {most} MHz"));
        }
        words.extend(self.memory_clock_mhz.map(|mhz| format!("memory at {mhz} MHz")));
        words.extend(self.power_mw.map(|mw| format!("{:.0} W", f64::from(mw) / 1e3)));
        words.extend(self.temperature_c.map(|c| format!("{c} °C")));
        if let Some(reasons) = self.slowed_by.filter(|reasons| !reasons.is_empty()) {
            words.push(format!("slowed by {reasons:?}"));
        }
        match self.others {
            Some(others) => words.push(format!("other processes {:.0} %", 100.0 * others)),
            None => words.push("other processes unknown".to_owned()),
        }
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_and_other_processes_disturb_and_idling_does_not() {
        let quiet = Reading {
            sm_clock_mhz: Some(1000),
            sm_clock_max_mhz: Some(2000),
            slowed_by: Some(ThrottleReasons::GPU_IDLE | ThrottleReasons::SW_POWER_CAP),
            others: Some(0.0),
            ..Reading::default()
        };
        assert!(quiet.disturbance().abs() < 1e-12);
        let hot =
            Reading { slowed_by: Some(ThrottleReasons::HW_THERMAL_SLOWDOWN), ..quiet.clone() };
        assert!((hot.disturbance() - 0.5).abs() < 1e-12);
        let shared = Reading { others: Some(0.3), ..quiet };
        assert!((shared.disturbance() - 0.3).abs() < 1e-12);
        assert!(Reading::default().disturbance().abs() < 1e-12);
    }
}
