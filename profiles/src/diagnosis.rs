//! What stands between this machine and its GPU, and what to do about it.

use search::device::Device;
use serde::Serialize;

use crate::cuda::nvml::Nvidia;

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it is as it must be.
    pub good: bool,
    /// What was found.
    pub what: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What [`diagnose`] goes by.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Driver and GPUs.
    pub nvidia: Nvidia,
    /// NVRTC's version, or why there is none.
    pub nvrtc: Result<(i32, i32), String>,
    /// cuBLASLt's version, or why there is none.
    pub cublaslt: Result<usize, String>,
    /// Where libtorch's CUDA library lies, if it was found.
    pub torch_cuda: Option<String>,
}

/// The first CUDA whose compiled kernels we make.
const CUDA: (u32, u32) = (13, 0);

/// One finding for each GPU, and for each thing that GPUs need.
pub fn diagnose(seen: &Seen) -> Vec<Finding> {
    let good = |what: String| Finding { good: true, what, remedy: None };
    let bad =
        |what: String, remedy: &str| Finding { good: false, what, remedy: Some(remedy.to_owned()) };
    let (version, cuda, gpus) = match &seen.nvidia {
        Nvidia::Unavailable { reason } => {
            return vec![bad(
                format!("no NVIDIA GPU: {reason}"),
                "nothing to do without one: everything works on the CPU; with one, install NVIDIA's driver 580 or newer",
            )];
        }
        Nvidia::Driver { gpus, .. } if gpus.is_empty() => {
            return vec![bad(
                "NVIDIA's driver is here, and no GPU".to_owned(),
                "see whether `nvidia-smi` lists one; in a container, start it with `--gpus all`",
            )];
        }
        Nvidia::Driver { version, cuda, gpus } => (version, cuda.as_deref(), gpus),
    };
    let mut findings = Vec::new();
    for gpu in gpus {
        let memory =
            gpu.memory_bytes.map_or(String::new(), |n| format!(", {} GB", n / 1_000_000_000));
        let capability = gpu.compute_capability.as_deref().unwrap_or("unknown");
        let device = Device::Cuda(Some(gpu.index));
        let what = format!("{device} {}{memory}, compute capability {capability}", gpu.name);
        let major = capability.split('.').next().and_then(|major| major.parse::<u32>().ok());
        findings.push(if major.is_some_and(|major| major < 8) {
            bad(
                what,
                "the kernels need 8.0 or newer (A100, RTX 30 series): time and train on the CPU here",
            )
        } else {
            good(what)
        });
    }
    let known = cuda.and_then(pair);
    findings.push(match known {
        Some(known) if known < CUDA => bad(
            format!("driver {version}, which knows CUDA {}.{}", known.0, known.1),
            "install driver 580 or newer: the kernels are compiled by CUDA 13",
        ),
        _ => good(format!("driver {version}, CUDA {}", cuda.unwrap_or("unknown"))),
    });
    findings.push(match &seen.nvrtc {
        Ok((major, minor)) => good(format!("NVRTC {major}.{minor}, which compiles the kernels")),
        Err(reason) => bad(
            format!("no NVRTC, which compiles the kernels: {reason}"),
            "`python3 tools/setup.py nvrtc`, or DELTAFRONT_NVRTC=FOLDER; latencies of a GPU need it",
        ),
    });
    findings.push(match &seen.cublaslt {
        Ok(version) => good(format!(
            "cuBLASLt {}.{}.{}, which multiplies matrices in prefill and batches",
            version / 10_000,
            version % 10_000 / 100,
            version % 100
        )),
        Err(reason) => bad(
            format!("no cuBLASLt, which multiplies matrices in prefill and batches: {reason}"),
            "`pip install nvidia-cublas==13.*` where `python3` finds it (PyTorch for CUDA 13 brings it), or \
             DELTAFRONT_NVRTC=FOLDER; decode at batch 1 does without",
        ),
    });
    findings.push(match &seen.torch_cuda {
        Some(path) => good(format!("libtorch's CUDA library, {path}")),
        None => bad(
            "no libtorch_cuda.so: trainings run on the CPU".to_owned(),
            "to train on the GPU, `pip install torch==2.11.0` where `python3` finds it",
        ),
    });
    findings
}

fn pair(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Where libtorch's CUDA library lies: below `LIBTORCH`, or in the torch of `python3`.
pub(crate) fn torch_cuda() -> Option<String> {
    const ASK: &str = "import importlib.util as u,os;s=u.find_spec('torch');\
                       print(os.path.join(os.path.dirname(s.origin),'lib') if s else '')";
    let python = || {
        let output = std::process::Command::new("python3").args(["-c", ASK]).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let from_variable = std::env::var("LIBTORCH").ok().map(|root| format!("{root}/lib"));
    [from_variable, python()]
        .into_iter()
        .flatten()
        .map(|folder| format!("{folder}/libtorch_cuda.so"))
        .find(|path| std::path::Path::new(path).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::nvml::Gpu;

    fn seen(capability: &str, cuda: &str) -> Seen {
        let gpu = Gpu {
            index: 0,
            name: "a GPU".to_owned(),
            compute_capability: Some(capability.to_owned()),
            memory_bytes: Some(80_000_000_000),
            memory_free_bytes: None,
            sm_clock_mhz: None,
            sm_clock_max_mhz: None,
            memory_clock_mhz: None,
            power_mw: None,
            throttle_reasons: None,
        };
        Seen {
            nvidia: Nvidia::Driver {
                version: "580.1".to_owned(),
                cuda: Some(cuda.to_owned()),
                gpus: vec![gpu],
            },
            nvrtc: Ok((13, 0)),
            cublaslt: Ok(130_001),
            torch_cuda: Some("/somewhere/libtorch_cuda.so".to_owned()),
        }
    }

    fn wrong(seen: &Seen) -> Vec<String> {
        diagnose(seen)
            .into_iter()
            .filter(|finding| !finding.good)
            .map(|finding| format!("{} -> {}", finding.what, finding.remedy.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn each_thing_that_is_missing_is_named_with_its_remedy() {
        assert!(wrong(&seen("9.0", "13.0")).is_empty());
        let cases = [
            (
                Seen {
                    nvidia: Nvidia::Unavailable { reason: "no driver".to_owned() },
                    ..seen("9.0", "13.0")
                },
                "install NVIDIA's driver",
            ),
            (
                Seen {
                    nvidia: Nvidia::Driver {
                        version: "580.1".to_owned(),
                        cuda: None,
                        gpus: Vec::new(),
                    },
                    ..seen("9.0", "13.0")
                },
                "nvidia-smi",
            ),
            (seen("7.5", "13.0"), "8.0 or newer"),
            (seen("9.0", "12.8"), "driver 580 or newer"),
            (Seen { nvrtc: Err("not found".to_owned()), ..seen("9.0", "13.0") }, "setup.py nvrtc"),
            (
                Seen { cublaslt: Err("not found".to_owned()), ..seen("9.0", "13.0") },
                "pip install nvidia-cublas",
            ),
            (Seen { torch_cuda: None, ..seen("9.0", "13.0") }, "pip install torch"),
        ];
        for (seen, remedy) in cases {
            let wrong = wrong(&seen);
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(wrong[0].contains(remedy), "{wrong:?} lacks {remedy}");
        }
    }
}
