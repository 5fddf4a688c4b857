//! Which worker has which GPU: the profiler one to itself, the trainers the others.

use search::device::Platform;

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
    use super::{is_shared, plan};

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
