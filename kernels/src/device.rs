//! What this machine is: processor, instruction sets, caches, memory. Read from the system, never guessed: what it does
//! not tell is absent.

use std::fs;
use std::path::Path;

use crate::cpu::Level;

/// Facts about the CPU and its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// The model's name, or the architecture where the system does not tell.
    pub name: String,
    /// The architecture that this program was compiled for.
    pub architecture: &'static str,
    /// The instruction set that the kernels choose.
    pub level: Level,
    /// Those of [`NOTED_FEATURES`] that the processor has.
    pub features: Vec<String>,
    /// Threads that may run at once, as far as this process may use them.
    pub cores: usize,
    /// The caches of the first core, smallest first.
    pub caches: Vec<Cache>,
    /// Memory of the machine, bytes.
    pub memory_bytes: Option<u64>,
    /// Memory that is free or can be freed, bytes.
    pub memory_available_bytes: Option<u64>,
}

/// One cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// 1, 2, 3.
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// Its size.
    pub bytes: u64,
    /// The cores that share it, as the system writes lists: `0-3`.
    pub shared_by: String,
}

/// The features, as Linux writes them, that kernels use or could use.
pub const NOTED_FEATURES: [&str; 13] = [
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
];

impl Cpu {
    /// Asks the system.
    pub fn read() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let flags = field(&info, "flags").or_else(|| field(&info, "Features")).unwrap_or_default();
        let architecture = std::env::consts::ARCH;
        let kib = |key| {
            field(&memory, key)?.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|k| k * 1024)
        };
        Self {
            name: field(&info, "model name").unwrap_or(architecture).to_owned(),
            architecture,
            level: Level::best(),
            features: NOTED_FEATURES
                .iter()
                .filter(|noted| flags.split_whitespace().any(|flag| flag == **noted))
                .map(ToString::to_string)
                .collect(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            caches: caches(Path::new("/sys/devices/system/cpu/cpu0/cache")),
            memory_bytes: kib("MemTotal"),
            memory_available_bytes: kib("MemAvailable"),
        }
    }

    /// Bytes of the largest cache, if the system tells.
    pub fn last_level_cache_bytes(&self) -> Option<u64> {
        self.caches.iter().map(|cache| cache.bytes).max()
    }
}

/// The value of the first line `key : value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.split_once(':').filter(|(name, _)| name.trim() == key))
        .map(|(_, value)| value.trim())
}

fn caches(folder: &Path) -> Vec<Cache> {
    let mut caches: Vec<Cache> = (0..16)
        .map(|index| folder.join(format!("index{index}")))
        .take_while(|folder| folder.is_dir())
        .filter_map(|folder| {
            let read = |name: &str| {
                fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned())
            };
            Some(Cache {
                level: read("level")?.parse().ok()?,
                kind: read("type")?,
                bytes: bytes(&read("size")?)?,
                shared_by: read("shared_cpu_list")?,
            })
        })
        .collect();
    caches.sort_by_key(|cache| (cache.level, cache.bytes));
    caches
}

/// `48K`, `1M` or plain bytes.
fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1024),
        None => match text.strip_suffix('M') {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    digits.parse::<u64>().ok().map(|n| n * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_sizes_are_read_as_linux_writes_them() {
        let text =
            "processor\t: 0\nmodel name\t: AMD EPYC: 9\nflags\t\t: avx2 fma\n\nmodel name : other";
        assert_eq!(field(text, "model name"), Some("AMD EPYC: 9"));
        assert_eq!(field(text, "model"), None);
        assert_eq!(
            [bytes("48K"), bytes("32M"), bytes("512"), bytes("big")],
            [Some(49152), Some(32 << 20), Some(512), None]
        );
    }

    #[test]
    fn this_machine_is_described() {
        let cpu = Cpu::read();
        assert!(cpu.cores >= 1 && !cpu.name.is_empty());
        assert!(caches(Path::new("/nonexistent")).is_empty(), "an absent folder is no cache");
    }
}
