//! Which worker has which GPU: the profiler one to itself, the trainers the others; and who is in whose way.

use search::device::Platform;

/// Where a worker computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) host: String,
    /// Trainers are called `cpu: …` or `cuda:N`, profilers `cpu: …` or `cuda: …`.
    pub(crate) device: String,
    /// Which GPU of the machine, as [`physical`] has it.
    pub(crate) gpu: Option<String>,
}

impl Seat {
    /// Whether two workers have the same processor or GPU to themselves only by turns.
    pub(crate) fn is_shared(&self, other: &Self, gpus: u32) -> bool {
        if self.host != other.host {
            return false;
        }
        let are_gpus = |platform| platform == Some(Platform::Cuda);
        let both = are_gpus(Platform::of(&self.device)) && are_gpus(Platform::of(&other.device));
        match (&self.gpu, &other.gpu) {
            (Some(one), Some(two)) if both && is_number(one) == is_number(two) => one == two,
            _ => is_shared(&self.device, &other.device, gpus),
        }
    }
}

fn is_number(gpu: &str) -> bool {
    gpu.parse::<u32>().is_ok()
}

/// The number of a GPU for a process that sees some only (`CUDA_VISIBLE_DEVICES`): the campaign's if there is such a one, else
/// the first.
pub(crate) fn visible(number: u32, seen: Option<&str>) -> u32 {
    let count = seen.map_or(usize::MAX, |seen| seen.split(',').count());
    if (number as usize) < count { number } else { 0 }
}

/// Which GPU of the machine that is: its number, or a name that NVIDIA's driver has for it.
pub(crate) fn physical(number: u32, seen: Option<&str>) -> Option<String> {
    match seen {
        None => Some(number.to_string()),
        Some(seen) => seen.split(',').nth(number as usize).map(|gpu| gpu.trim().to_owned()),
    }
}

/// The GPU of each trainer, none where it may see all of them.
///
/// `gpus` are there, the profiler times on number `timed`. With one GPU everybody shares it, and the campaign times while
/// nothing trains.
pub(crate) fn plan(gpus: u32, timed: Option<u32>, trainers: u32) -> Vec<Option<u32>> {
    let others: Vec<u32> = (0..gpus).filter(|number| Some(*number) != timed).collect();
    let shares = timed.is_some() && gpus > 1;
    (0..trainers as usize)
        .map(|trainer| if shares { Some(others[trainer % others.len()]) } else { None })
        .collect()
}

/// Whether a training on one device spoils a timing on the other: both are the CPU, or one and the same GPU. Trainers are
/// called `cpu: …` or `cuda:N`, profilers `cpu: …` or `cuda: …`; with several GPUs [`plan`] keeps them apart.
pub(crate) fn is_shared(trainer: &str, profiler: &str, gpus: u32) -> bool {
    match (Platform::of(trainer), Platform::of(profiler)) {
        (Some(Platform::Cuda), Some(Platform::Cuda)) => gpus < 2,
        (Some(Platform::Cpu), Some(Platform::Cpu)) => true,
        _ => trainer == profiler,
    }
}

/// The GPUs of this machine, by the files of NVIDIA's driver.
pub(crate) fn count() -> u32 {
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
    use super::{Seat, is_shared, physical, plan, visible};

    #[test]
    fn seats_of_one_machine_share_a_gpu_or_not() {
        let seat = |host: &str, device: &str, gpu: Option<&str>| Seat {
            host: host.to_owned(),
            device: device.to_owned(),
            gpu: gpu.map(str::to_owned),
        };
        let timed = seat("a", "cuda: NVIDIA H200", Some("1"));
        assert!(seat("a", "cuda:0", Some("1")).is_shared(&timed, 2));
        assert!(!seat("a", "cuda:0", Some("0")).is_shared(&timed, 2));
        assert!(!seat("b", "cuda:0", Some("1")).is_shared(&timed, 2));
        assert!(!seat("a", "cpu: EPYC", None).is_shared(&timed, 2));
        assert!(seat("a", "cuda:0", Some("GPU-1a")).is_shared(&timed, 1));
        let timed = seat("a", "cpu: EPYC", None);
        assert!(seat("a", "cpu: EPYC", None).is_shared(&timed, 0));
        assert!(!seat("b", "cpu: EPYC", None).is_shared(&timed, 0));
    }

    #[test]
    fn who_sees_some_gpus_only_takes_one_of_them() {
        assert_eq!((visible(3, None), physical(3, None)), (3, Some("3".to_owned())));
        assert_eq!((visible(1, Some("2,5")), physical(1, Some("2,5"))), (1, Some("5".to_owned())));
        assert_eq!((visible(1, Some("5")), physical(0, Some("5"))), (0, Some("5".to_owned())));
        assert_eq!(physical(0, Some("")), Some(String::new()));
    }

    #[test]
    fn a_training_spoils_timings_on_its_own_device() {
        assert!(is_shared("cpu: EPYC", "cpu: EPYC", 0));
        assert!(is_shared("cuda:0", "cuda: NVIDIA H100", 1));
        assert!(!is_shared("cuda:0", "cuda: NVIDIA H100", 2));
        assert!(!is_shared("cpu: EPYC", "cuda: NVIDIA H100", 1));
        assert!(!is_shared("cuda:0", "cpu: EPYC", 1));
        assert!(is_shared("abacus", "abacus", 0));
    }

    #[test]
    fn the_profiler_has_its_gpu_to_itself_where_there_are_others() {
        assert_eq!(plan(4, Some(1), 5), [Some(0), Some(2), Some(3), Some(0), Some(2)]);
        assert_eq!(plan(2, Some(0), 2), [Some(1), Some(1)]);
        assert_eq!(plan(1, Some(0), 2), [None, None]);
        assert_eq!(plan(0, None, 1), [None]);
        assert_eq!(plan(4, None, 2), [None, None]); // timed on the CPU
    }
}
