//! Where the workers of a campaign compute, and whether some disturb others.

use std::collections::BTreeSet;

use search::subject::Subjects;
use search::wire::Hello;

use super::gpus::Gpus;
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
    let here = targets::here(&job.targets);
    let profilers =
        slots.iter_mut().filter(|slot| slot.role == Role::Profiler && slot.lease.is_none());
    for (child, slot) in profilers.enumerate() {
        let is_its = |target: &&targets::Target| targets::timed_by(target, &here) == Some(child);
        let target = job.targets.iter().zip(hellos).find(|(target, _)| is_its(target));
        slot.seat = target.map(|(target, hello)| gpus.seat_of_profiler(target.device(), hello));
    }
}

/// The devices of those who time, by their names, that some trainer is on, too.
pub(super) fn disturbed(slots: &[Slot]) -> BTreeSet<String> {
    let gpus = Gpus::here();
    let seats = |times: bool| {
        let counts = move |slot: &&Slot| {
            (slot.role == Role::Profiler) == times
                && matches!(slot.presence, Presence::Here | Presence::Away)
        };
        slots.iter().filter(counts).filter_map(|slot| slot.seat.as_ref())
    };
    let timed = seats(true).filter(|timed| seats(false).any(|seat| seat.is_shared(timed, &gpus)));
    timed.map(|timed| timed.device.clone()).collect()
}
