//! Which worker has which GPU: the profiler one to itself, the trainers the others; and who is in whose way.

use search::device::{Device, Platform};

/// Where a worker computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) host: String,
    /// As [`is_shared`] has it.
    pub(crate) device: String,
    /// What `CUDA_VISIBLE_DEVICES` calls its GPU there.
    pub(crate) gpu: Option<String>,
}

impl Seat {
    /// Whether two workers have the same processor or GPU to themselves only by turns.
    pub(crate) fn is_shared(&self, other: &Self) -> bool {
        // One of which nobody knows which it is may be any; a number and a name may be the same.
        let is_same_gpu = match (&self.gpu, &other.gpu) {
            (Some(one), Some(two)) if is_number(one) == is_number(two) => one == two,
            _ => true,
        };
        self.host == other.host && is_shared(&self.device, &other.device, is_same_gpu)
    }
}

fn is_number(gpu: &str) -> bool {
    gpu.parse::<u32>().is_ok()
}

/// The GPUs that programs started from here see, each by what `CUDA_VISIBLE_DEVICES` calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpus(Vec<String>);

impl Gpus {
    /// By `CUDA_VISIBLE_DEVICES`, else all that have a file of NVIDIA's driver.
    pub(crate) fn here() -> Self {
        match std::env::var("CUDA_VISIBLE_DEVICES") {
            Ok(chosen) => Self::chosen(&chosen),
            Err(_) => Self::numbered(count()),
        }
    }

    fn chosen(variable: &str) -> Self {
        let names = variable.split(',').map(str::trim).filter(|name| !name.is_empty());
        Self(names.map(str::to_owned).collect())
    }

    fn numbered(count: u32) -> Self {
        Self((0..count).map(|number| number.to_string()).collect())
    }

    /// The GPU that each trainer is to see alone; none where the campaign names its GPU itself, or trains on none.
    ///
    /// Where several are there, nothing trains on the one that is timed. With one GPU everybody shares it, and the
    /// campaign times while nothing trains.
    pub(crate) fn plan(&self, timed: Device, trained: Device, trainers: u32) -> Vec<Option<&str>> {
        let timed = self.of(timed).filter(|_| self.0.len() > 1);
        let free: Vec<&str> =
            self.0.iter().map(String::as_str).filter(|name| Some(*name) != timed).collect();
        let is_planned = trained == Device::Cuda(None) && !free.is_empty();
        (0..trainers as usize)
            .map(|trainer| is_planned.then(|| free[trainer % free.len()]))
            .collect()
    }

    /// What a device is called, if it is one of them.
    pub(crate) fn of(&self, device: Device) -> Option<&str> {
        device.cuda().and_then(|number| self.0.get(number as usize)).map(String::as_str)
    }

    /// Whether a trainer that sees `gpu` alone, or none if it sees all, has the GPU that is timed.
    pub(crate) fn is_timed(&self, gpu: Option<&str>, timed: Device, trained: Device) -> bool {
        gpu.or_else(|| self.of(trained)) == self.of(timed)
    }

    /// A campaign's device as it is here: the GPU of its number if there is such a one, else the first.
    pub(crate) fn seen(&self, device: Device) -> Device {
        match device {
            Device::Cuda(Some(_)) if self.of(device).is_none() => Device::Cuda(None),
            device => device,
        }
    }
}

/// Whether a training on one device spoils a timing on the other: both are the CPU, or the same GPU, which `is_same_gpu`
/// says. Trainers are called `cpu: …` or `cuda:N`, profilers `cpu: …` or `cuda: …`.
pub(crate) fn is_shared(trainer: &str, profiler: &str, is_same_gpu: bool) -> bool {
    match (Platform::of(trainer), Platform::of(profiler)) {
        (Some(Platform::Cuda), Some(Platform::Cuda)) => is_same_gpu,
        (Some(Platform::Cpu), Some(Platform::Cpu)) => true,
        _ => trainer == profiler,
    }
}

/// The GPUs of this machine, by the files of NVIDIA's driver.
fn count() -> u32 {
    let is_gpu = |name: &str| {
        name.strip_prefix("nvidia").is_some_and(|number| number.parse::<u32>().is_ok())
    };
    std::fs::read_dir("/dev").map_or(0, |entries| {
        entries.flatten().filter(|entry| is_gpu(&entry.file_name().to_string_lossy())).count()
            as u32
    })
}

#[cfg(test)]
mod tests {
    use super::{Gpus, Seat, is_shared};
    use search::device::Device::{Cpu, Cuda};

    #[test]
    fn a_training_spoils_timings_on_its_own_device() {
        assert!(is_shared("cpu: EPYC", "cpu: EPYC", false));
        assert!(is_shared("cuda:0", "cuda: NVIDIA H100", true));
        assert!(is_shared("cuda", "cuda: NVIDIA H100", true));
        assert!(!is_shared("cuda:0", "cuda: NVIDIA H100", false));
        assert!(!is_shared("cpu: EPYC", "cuda: NVIDIA H100", true));
        assert!(!is_shared("cuda:0", "cpu: EPYC", true));
        assert!(is_shared("abacus", "abacus", false));
    }

    #[test]
    fn seats_of_one_machine_share_a_gpu_or_not() {
        let seat = |host: &str, device: &str, gpu: Option<&str>| Seat {
            host: host.to_owned(),
            device: device.to_owned(),
            gpu: gpu.map(str::to_owned),
        };
        let timed = seat("a", "cuda: NVIDIA H200", Some("1"));
        assert!(seat("a", "cuda:1", Some("1")).is_shared(&timed));
        assert!(!seat("a", "cuda:0", Some("0")).is_shared(&timed));
        assert!(!seat("b", "cuda:1", Some("1")).is_shared(&timed));
        assert!(!seat("a", "cpu: EPYC", None).is_shared(&timed));
        assert!(seat("a", "cuda:0", Some("GPU-1a")).is_shared(&timed));
        assert!(seat("a", "cuda", None).is_shared(&timed));
        let timed = seat("a", "cpu: EPYC", None);
        assert!(seat("a", "cpu: EPYC", None).is_shared(&timed));
        assert!(!seat("b", "cpu: EPYC", None).is_shared(&timed));
    }

    #[test]
    fn the_profiler_has_its_gpu_to_itself_where_there_are_others() {
        let plan = |gpus: &Gpus, timed, trained, trainers| {
            let planned = gpus.plan(timed, trained, trainers);
            planned.iter().map(|gpu| gpu.unwrap_or("all").to_owned()).collect::<Vec<_>>().join(" ")
        };
        let (any, four) = (Cuda(None), Gpus::numbered(4));
        assert_eq!(plan(&four, Cuda(Some(1)), any, 5), "0 2 3 0 2");
        assert_eq!(plan(&four, any, any, 4), "1 2 3 1");
        assert_eq!(plan(&Gpus::numbered(2), any, any, 2), "1 1");
        assert_eq!(plan(&Gpus::numbered(1), any, any, 2), "0 0");
        assert_eq!(plan(&four, Cpu, any, 5), "0 1 2 3 0"); // timed on the CPU: all train
        assert_eq!(plan(&four, any, Cuda(Some(2)), 2), "all all"); // as the campaign says
        assert_eq!(plan(&four, any, Cpu, 2), "all all");
        assert_eq!(plan(&Gpus::numbered(0), any, any, 1), "all");
    }

    #[test]
    fn gpus_are_those_that_the_environment_shows() {
        let shown = Gpus::chosen("3, GPU-0a1b");
        assert_eq!(shown.plan(Cuda(Some(0)), Cuda(None), 2), [Some("GPU-0a1b"); 2]);
        assert!(!shown.is_timed(Some("GPU-0a1b"), Cuda(None), Cuda(None)));
        assert!(shown.is_timed(None, Cuda(Some(1)), Cuda(Some(1))));
        assert!(!shown.is_timed(None, Cuda(Some(1)), Cuda(Some(0))));
        assert_eq!(shown.seen(Cuda(Some(1))), Cuda(Some(1)));
        assert_eq!(shown.seen(Cuda(Some(2))), Cuda(None));
        assert!(Gpus::chosen("3").is_timed(Some("3"), Cuda(None), Cuda(None)));
        assert_eq!(Gpus::chosen(""), Gpus::numbered(0));
    }
}
