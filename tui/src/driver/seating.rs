//! Where the workers of a campaign compute, and whether some disturb others.

use std::collections::{BTreeMap, BTreeSet};

use search::campaign::Quiet;
use search::device::Platform;
use search::subject::Subjects;
use search::wire::Hello;

use super::gpus::{Gpus, Seat};
use super::job::Job;
use super::resume::full_name;
use super::slot::{Presence, Slot};
use super::spec::Role;
use super::targets;

/// Says who the workers of this machine are, and where they compute. `hellos`: of who times each target.
pub(super) fn seat<D: Subjects>(
    job: &Job<D>,
    slots: &mut [Slot],
    trainers: &[Hello],
    hellos: &[Hello],
) {
    let (gpus, timed) = (Gpus::here(), job.timed_devices());
    let seats = gpus.seats(&job.trainer.introduction, &timed, trainers);
    for ((slot, seat), trainer) in slots.iter_mut().zip(seats).zip(trainers) {
        slot.seat = Some(seat);
        slot.who = Some(full_name(trainer));
    }
    let profilers =
        slots.iter_mut().filter(|slot| slot.role == Role::Profiler && slot.lease.is_none());
    for (slot, (target, hello)) in profilers.zip(targets::started(&job.targets, hellos)) {
        slot.seat = Some(gpus.seat_of_profiler(target.device(), hello));
    }
}

/// What must not disturb those who time: trainers on their devices, and on one machine each other, unless all of them are on
/// GPUs.
pub(super) fn quiet(slots: &[Slot]) -> Quiet {
    let gpus = Gpus::here();
    let seats = |times: bool| {
        let counts = move |slot: &&Slot| {
            (slot.role == Role::Profiler) == times
                && matches!(slot.presence, Presence::Here | Presence::Away)
        };
        slots.iter().filter(counts).filter_map(|slot| slot.seat.as_ref())
    };
    let timed = seats(true).filter(|timed| seats(false).any(|seat| seat.is_shared(timed, &gpus)));
    Quiet {
        from_training: timed.map(|timed| timed.device.clone()).collect(),
        by_turns: by_turns(seats(true)),
    }
}

/// The devices of each machine, one of which is timed at a time: those of several, unless all of them are GPUs.
pub(crate) fn by_turns<'s>(
    timed: impl IntoIterator<Item = &'s Seat>,
) -> BTreeSet<BTreeSet<String>> {
    let mut hosts: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for seat in timed {
        hosts.entry(&seat.host).or_default().insert(seat.device.clone());
    }
    let is_gpu = |device: &String| Platform::of(device) == Some(Platform::Cuda);
    hosts.into_values().filter(|of| of.len() > 1 && !of.iter().all(is_gpu)).collect()
}

/// Who trains and who times, in a sentence; none where nobody trains here.
pub(super) fn told(trainers: &[Hello], profilers: &[Hello], slots: &[Slot]) -> Option<String> {
    let trainer = trainers.first()?;
    let many =
        if trainers.len() > 1 { format!(", {} at once", trainers.len()) } else { String::new() };
    let seats = slots.iter().filter(|slot| slot.role != Role::Profiler);
    let devices: BTreeSet<&str> =
        seats.filter_map(|slot| Some(slot.seat.as_ref()?.device.as_str())).collect();
    let device = devices.into_iter().collect::<Vec<_>>().join(", ");
    let mut timing: Vec<String> = Vec::new();
    for Hello { worker, device, .. } in profilers {
        let one = format!("{worker} on {device}");
        if !timing.contains(&one) {
            timing.push(one);
        }
    }
    Some(match &timing[..] {
        [] => format!("evaluations by {}{many}", trainer.worker),
        all => format!(
            "training by {} on {device}{many}; timing by {}",
            trainer.worker,
            all.join(", ")
        ),
    })
}
