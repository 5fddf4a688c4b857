//! Where the workers of a campaign compute, and whether some disturb others.

use search::subject::Subjects;
use search::wire::Hello;

use super::gpus::Gpus;
use super::job::Job;
use super::resume::full_name;
use super::slot::{Presence, Slot};
use super::spec::Role;

/// Says who the workers of this machine are, and where they compute.
pub(super) fn seat<D: Subjects>(
    job: &Job<D>,
    slots: &mut [Slot],
    trainers: &[Hello],
    profiler: &Hello,
) {
    let (gpus, timed) = (Gpus::here(), job.latency.device);
    let seats = gpus.seats(&job.trainer.introduction, timed, trainers);
    for ((slot, seat), trainer) in slots.iter_mut().zip(seats).zip(trainers) {
        slot.seat = Some(seat);
        slot.who = Some(full_name(trainer));
    }
    if let Some(slot) =
        slots.iter_mut().find(|slot| slot.role == Role::Profiler && slot.lease.is_none())
    {
        slot.seat = Some(gpus.seat_of_profiler(timed, profiler));
    }
}

/// Whether some trainer is on the device of somebody who times.
pub(super) fn is_disturbed(slots: &[Slot]) -> bool {
    let gpus = Gpus::here();
    let seats = |times: bool| {
        let counts = move |slot: &&Slot| {
            (slot.role == Role::Profiler) == times
                && matches!(slot.presence, Presence::Here | Presence::Away)
        };
        slots.iter().filter(counts).filter_map(|slot| slot.seat.as_ref())
    };
    seats(true).any(|timed| seats(false).any(|seat| seat.is_shared(timed, &gpus)))
}
