//! Where something is computed: `cpu`, `cuda:0`, or on any GPU, `cuda`.
//!
//! The campaign file and the workers' `--device` name a [`Device`], which is parsed once. Timings are kept under a longer
//! name, that of the hardware, as the profiler found it: `cpu: AMD EPYC 7763`, `cuda: NVIDIA H100`. It begins with the
//! [`Platform`], so that a row of the latency table tells who made it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// What runs the kernels: a new one is a variant here, and the compiler names what must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// The processor.
    Cpu,
    /// NVIDIA's GPUs.
    Cuda,
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Cuda];

    /// The word that devices and names of hardware begin with.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// The platform of hardware or of a device by its name, `cuda: NVIDIA H100` or `cuda:1`; none for a name of another form.
    pub fn of(name: &str) -> Option<Self> {
        let word = name.split_once(':').map_or(name, |(word, _)| word);
        Self::ALL.into_iter().find(|platform| platform.word() == word)
    }

    /// The name of hardware of this platform under which timings are kept.
    pub fn hardware(self, name: &str) -> String {
        format!("{}: {name}", self.word())
    }
}

/// A device of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The processor, all of it.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its number among those that a program sees; where it has none, one that is free.
    Cuda(Option<u32>),
}

impl Device {
    /// What runs the kernels there.
    pub fn platform(self) -> Platform {
        match self {
            Self::Cpu => Platform::Cpu,
            Self::Cuda(_) => Platform::Cuda,
        }
    }

    /// The number of the NVIDIA GPU for a program that is given no other, if it is one.
    pub fn cuda(self) -> Option<u32> {
        match self {
            Self::Cpu => None,
            Self::Cuda(number) => Some(number.unwrap_or(0)),
        }
    }
}

/// A text that names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be \"cpu\", \"cuda\" or \"cuda:0\", got {0:?}")]
pub struct UnknownDevice(String);

impl FromStr for Device {
    type Err = UnknownDevice;

    /// `cpu`, `cuda`, or `cuda:` and a number.
    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        let number = text.strip_prefix("cuda:").map(str::parse);
        match number {
            Some(Ok(number)) => Ok(Self::Cuda(Some(number))),
            None if text == "cuda" => Ok(Self::Cuda(None)),
            None if text == "cpu" => Ok(Self::Cpu),
            _ => Err(UnknownDevice(text.to_owned())),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.platform().word();
        match self {
            Self::Cpu | Self::Cuda(None) => f.write_str(word),
            Self::Cuda(Some(number)) => write!(f, "{word}:{number}"),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = UnknownDevice;

    fn try_from(text: String) -> Result<Self, UnknownDevice> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl JsonSchema for Device {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Device".into()
    }

    /// A text.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::{Device, Platform};

    #[test]
    fn a_device_is_its_text() {
        for (text, device) in [
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(None)),
            ("cuda:0", Device::Cuda(Some(0))),
            ("cuda:12", Device::Cuda(Some(12))),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
            let json = serde_json::to_string(&device).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Device>(&json).unwrap(), device);
        }
        for wrong in ["", "gpu", "CPU", "cpu:0", "cuda0", "cuda:", "cuda:-1", "cuda:4294967296"] {
            let error = wrong.parse::<Device>().unwrap_err().to_string();
            assert_eq!(error, format!("must be \"cpu\", \"cuda\" or \"cuda:0\", got {wrong:?}"));
            assert!(serde_json::from_value::<Device>(wrong.into()).is_err());
        }
        assert!(serde_json::from_str::<Device>("0").is_err());
    }

    #[test]
    fn hardware_names_its_platform() {
        for platform in Platform::ALL {
            assert_eq!(Platform::of(&platform.hardware("one: of many")), Some(platform));
        }
        for platform in Platform::ALL {
            assert_eq!(Platform::of(platform.word()), Some(platform));
        }
        for other in ["simulated", "rocm: one", ""] {
            assert_eq!(Platform::of(other), None);
        }
    }
}
