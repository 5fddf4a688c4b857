//! Which worker has which GPU: each profiler one to itself, the trainers the others; and who is in whose way.

use db::Owner;
use search::device::{Device, Platform};
use search::wire::Hello;

use super::spec::Introduction;

/// The GPUs that programs started from here see, each by what `CUDA_VISIBLE_DEVICES` calls it: its number on this machine, or
/// a name that NVIDIA's driver has for it.
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

    /// What a device is called, if it is a GPU.
    pub(crate) fn name(&self, device: Device) -> Option<String> {
        let number = device.cuda()?;
        Some(self.0.get(number as usize).cloned().unwrap_or_else(|| number.to_string()))
    }

    /// The device that a campaign of another machine means: its number if so many are seen here, else the first.
    pub(crate) fn nearest(&self, device: Device) -> Device {
        match device {
            Device::Cuda(Some(number)) if number as usize >= self.0.len().max(1) => {
                Device::Cuda(Some(0))
            }
            other => other,
        }
    }

    /// The GPU that each trainer is to see alone; none where the campaign names its GPU itself, or trains on none.
    ///
    /// Where others are there, nothing trains on those that are timed. Where all are, everybody shares them, and the campaign
    /// times while nothing trains.
    pub(crate) fn plan(
        &self,
        timed: &[Device],
        trained: Option<Device>,
        trainers: u32,
    ) -> Vec<Option<&str>> {
        let timed: Vec<String> = timed.iter().filter_map(|device| self.name(*device)).collect();
        let all = || self.0.iter().map(String::as_str);
        let mut free: Vec<&str> = all().filter(|name| !timed.iter().any(|of| of == name)).collect();
        if free.is_empty() {
            free = all().collect();
        }
        let is_planned = trained == Some(Device::Cuda(None)) && !free.is_empty();
        (0..trainers as usize)
            .map(|trainer| is_planned.then(|| free[trainer % free.len()]))
            .collect()
    }

    /// Where the trainers of this machine compute.
    pub(crate) fn seats(
        &self,
        introduction: &Introduction,
        timed: &[Device],
        trainers: &[Hello],
    ) -> Vec<Seat> {
        let (host, trained) = (Owner::current().host, introduction.device());
        let plan = self.plan(timed, trained, trainers.len() as u32);
        let seats = trainers.iter().zip(plan).map(|(trainer, planned)| Seat {
            host: host.clone(),
            device: introduction.trains_on(trainer, planned),
            gpu: planned.map(str::to_owned).or_else(|| self.name(trained?)),
        });
        seats.collect()
    }

    /// Where the profiler of this machine computes.
    pub(crate) fn seat_of_profiler(&self, timed: Device, profiler: &Hello) -> Seat {
        let (host, device) = (Owner::current().host, profiler.device.clone());
        Seat { host, device, gpu: self.name(timed) }
    }
}

/// Where a worker computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) host: String,
    /// Trainers are called `cpu: …` or `cuda:N`, profilers `cpu: …` or `cuda: …`.
    pub(crate) device: String,
    /// Which GPU of the machine, as [`Gpus::name`] has it.
    pub(crate) gpu: Option<String>,
}

impl Seat {
    /// Whether two workers have the same processor or GPU to themselves only by turns; GPUs that are called in different ways
    /// are the same where there is but one.
    pub(crate) fn is_shared(&self, other: &Self, gpus: &Gpus) -> bool {
        if self.host != other.host {
            return false;
        }
        let is_number = |gpu: &str| gpu.parse::<u32>().is_ok();
        match (Platform::of(&self.device), Platform::of(&other.device)) {
            (Some(Platform::Cuda), Some(Platform::Cuda)) => match (&self.gpu, &other.gpu) {
                (Some(one), Some(two)) if is_number(one) == is_number(two) => one == two,
                _ => gpus.0.len() < 2,
            },
            (Some(Platform::Cpu), Some(Platform::Cpu)) => true,
            _ => self.device == other.device,
        }
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
    use super::{Gpus, Seat};
    use search::device::Device::{self, Cpu, Cuda};

    #[test]
    fn seats_of_one_machine_share_a_device_or_not() {
        let seat = |host: &str, device: &str, gpu: Option<&str>| Seat {
            host: host.to_owned(),
            device: device.to_owned(),
            gpu: gpu.map(str::to_owned),
        };
        let (one, two) = (Gpus::numbered(1), Gpus::numbered(2));
        let timed = seat("a", "cuda: NVIDIA H200", Some("1"));
        assert!(seat("a", "cuda:1", Some("1")).is_shared(&timed, &two));
        assert!(!seat("a", "cuda:0", Some("0")).is_shared(&timed, &two));
        assert!(!seat("b", "cuda:1", Some("1")).is_shared(&timed, &two));
        assert!(!seat("a", "cpu: EPYC", None).is_shared(&timed, &two));
        assert!(seat("a", "cuda:0", Some("GPU-1a")).is_shared(&timed, &one));
        assert!(!seat("a", "cuda:0", Some("GPU-1a")).is_shared(&timed, &two));
        let timed = seat("a", "cpu: EPYC", None);
        assert!(seat("a", "cpu: EPYC", None).is_shared(&timed, &one));
        assert!(!seat("b", "cpu: EPYC", None).is_shared(&timed, &one));
        assert!(!seat("a", "cuda:0", Some("0")).is_shared(&timed, &one));
        assert!(seat("a", "abacus", None).is_shared(&seat("a", "abacus", None), &one));
    }

    #[test]
    fn the_profiler_has_its_gpu_to_itself_where_there_are_others() {
        let plan = |gpus: &Gpus, timed: &[Device], trained, trainers| {
            let planned = gpus.plan(timed, Some(trained), trainers);
            planned.iter().map(|gpu| gpu.unwrap_or("all").to_owned()).collect::<Vec<_>>().join(" ")
        };
        let (any, four) = (Cuda(None), Gpus::numbered(4));
        assert_eq!(plan(&four, &[Cuda(Some(1))], any, 5), "0 2 3 0 2");
        assert_eq!(plan(&four, &[any], any, 4), "1 2 3 1");
        assert_eq!(plan(&four, &[any, Cpu, Cuda(Some(2))], any, 4), "1 3 1 3");
        assert_eq!(plan(&Gpus::numbered(2), &[any], any, 2), "1 1");
        assert_eq!(plan(&Gpus::numbered(2), &[any, Cuda(Some(1))], any, 2), "0 1"); // by turns
        assert_eq!(plan(&Gpus::numbered(1), &[any], any, 2), "0 0");
        assert_eq!(plan(&four, &[Cpu], any, 5), "0 1 2 3 0"); // timed on the CPU: all train
        assert_eq!(plan(&four, &[any], Cuda(Some(2)), 2), "all all"); // as the campaign says
        assert_eq!(plan(&four, &[any], Cpu, 2), "all all");
        assert_eq!(plan(&Gpus::numbered(0), &[any], any, 1), "all");
    }

    #[test]
    fn gpus_are_those_that_the_environment_shows() {
        let shown = Gpus::chosen("3, GPU-0a1b");
        assert_eq!(shown.plan(&[Cuda(Some(0))], Some(Cuda(None)), 2), [Some("GPU-0a1b"); 2]);
        assert_eq!(shown.name(Cuda(None)).as_deref(), Some("3"));
        assert_eq!(shown.name(Cuda(Some(1))).as_deref(), Some("GPU-0a1b"));
        assert_eq!((shown.name(Cpu), Gpus::chosen("")), (None, Gpus::numbered(0)));
    }

    #[test]
    fn who_sees_some_gpus_only_takes_one_of_them() {
        let nearest = |gpus: &Gpus, number| gpus.nearest(Cuda(Some(number)));
        assert_eq!(nearest(&Gpus::chosen("2,5"), 1), Cuda(Some(1)));
        assert_eq!(nearest(&Gpus::chosen("5"), 1), Cuda(Some(0)));
        assert_eq!(
            (Gpus::chosen("5").nearest(Cuda(None)), Gpus::chosen("5").nearest(Cpu)),
            (Cuda(None), Cpu)
        );
    }
}
