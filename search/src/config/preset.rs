//! Campaign files to begin with, each for another purpose.

/// What a new campaign file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Minutes on a laptop, every key with its meaning: to see how it works.
    Demo,
    /// An evening on a processor.
    Cpu,
    /// A night on one GPU.
    Gpu,
    /// A front that is meant to be built on.
    Serious,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Demo, Self::Cpu, Self::Gpu, Self::Serious];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Serious => "serious",
        }
    }

    /// What it is for, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Demo => "a demonstration: minutes on two cores, every key with its meaning",
            Self::Cpu => "an evening on a processor: two lengths of training, a budget of hours",
            Self::Gpu => {
                "a night on one GPU: bf16, widths that its kernels take, three lengths of training"
            }
            Self::Serious => {
                "a front to build on: text and recall, three lengths of training, seeds, a check against longer trainings"
            }
        }
    }

    /// The file.
    pub fn text(self) -> &'static str {
        match self {
            Self::Demo => include_str!("campaign.toml"),
            Self::Cpu => include_str!("presets/cpu.toml"),
            Self::Gpu => include_str!("presets/gpu.toml"),
            Self::Serious => include_str!("presets/serious.toml"),
        }
    }
}
