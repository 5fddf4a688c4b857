//! Pull workers at the desk: they come, say what they are at, are away for a while, and are given up when their lease is
//! over.

use std::path::Path;
use std::time::Instant;

use db::{Change, Owner};
use search::campaign::{Event, Finish};
use search::subject::Subjects;
use search::wire::{Evaluation, Reply, Request};

use super::checkpoints;
use super::desk::Desk;
use super::gpus::{Gpus, is_shared};
use super::news::{News, Ready};
use super::pull::ToWorker;
use super::pull::listener::Arrival;
use super::slot::{Presence, Slot};
use super::spec::Role;

/// A beat is sent so many times in a lease.
const BEATS: u32 = 4;

impl<D: Subjects + Clone> Desk<'_, D> {
    /// Lets a worker in. It counts once it says that it can work.
    pub(super) fn admit(&mut self, arrival: Arrival) {
        let Some(hall) = &self.hall else { return };
        let (welcome, news) = (hall.welcome.clone(), hall.news.clone());
        let folder = self.checkpoints.clone();
        self.slots.push(Slot::join(self.slots.len(), arrival, welcome, folder, news));
    }

    /// Whether news of a slot are news; a pull worker that is heard keeps its lease.
    pub(super) fn renew(&mut self, index: usize) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return false };
        if let (Some(lease), Some(hall)) = (&mut slot.lease, &self.hall) {
            lease.until = Instant::now() + hall.lease;
        }
        slot.presence != Presence::Closed
    }

    /// A worker can work, for the first time or again.
    pub(super) async fn joined(
        &mut self,
        index: usize,
        ready: Ready,
    ) -> anyhow::Result<Option<Finish>> {
        let Ready { hello, shares, holds } = ready;
        let trains_on = self.introduction.trains_on(&hello, None);
        let timed = self.hall.as_ref().and_then(|hall| hall.timed.clone());
        let slot = &mut self.slots[index];
        let Some(lease) = &mut slot.lease else { return Ok(None) };
        lease.is_apart = !shares;
        let (worker, host) = (lease.worker.clone(), lease.host.clone());
        let is_here = host == Owner::current().host;
        // It was perhaps started where other GPUs are seen.
        let may_be = Gpus::here().may_be_timed();
        let disturbs = timed.is_some_and(|timed| is_here && is_shared(&trains_on, &timed, may_be));
        slot.disturbs = disturbs;
        let place = self.display.place();
        self.display.line(&format!("{place} {} on {host} ({trains_on}) joins", hello.worker));
        self.events.push(Change::Worker {
            role: Role::Trainer.word().to_owned(),
            worker: hello.worker,
            device: trains_on,
        });
        // Connections of the same worker before this one.
        let mut was_at = None;
        for (other, slot) in self.slots.iter_mut().enumerate() {
            let is_it = slot.lease.as_ref().is_some_and(|lease| lease.worker == worker);
            if is_it && other != index && slot.presence != Presence::Closed {
                was_at = was_at.or(slot.request.filter(|_| slot.presence != Presence::NotYet));
                slot.abandon();
            }
        }
        let holds_id = holds.as_ref().map(|evaluate| evaluate.id);
        // Before anything is given out: who is abandoned is given nothing.
        let mut finish = self.count().await?;
        if let (Some(id), None) = (was_at.filter(|id| Some(*id) != holds_id), &finish) {
            finish = self.lost(id).await?;
        }
        let mut presence = Presence::Here;
        if let (Some(evaluate), None) = (holds, &finish) {
            let id = evaluate.id;
            if !self.machine.waits_for(id) {
                let tokens = evaluate.tokens;
                finish = self.tell(Event::Adopted(evaluate)).await?;
                if let Some(row) = self.machine.candidate_of(id) {
                    let number = row.number;
                    self.trainings.insert(id, (number, Instant::now()));
                    let tokens = tui::quantity::scaled(tokens as f64);
                    let place = self.display.place();
                    self.display.line(&format!(
                        "{place} candidate {number}: {host} goes on with it, {tokens} tokens"
                    ));
                }
            }
            self.slots[index].request = Some(id);
            if !self.machine.waits_for(id) {
                presence = Presence::NotYet;
                self.slots[index].send(Request::Stop { id });
            }
        }
        self.slots[index].presence = presence;
        match finish {
            None => self.count().await,
            finish => Ok(finish),
        }
    }

    /// Tells the machine who is there.
    pub(super) async fn count(&mut self) -> anyhow::Result<Option<Finish>> {
        let counts = |slot: &&Slot| {
            slot.role != Role::Profiler && matches!(slot.presence, Presence::Here | Presence::Away)
        };
        let trainers = self.slots.iter().filter(counts).count() as u32;
        let is_needed = self.slots.iter().filter(counts).any(|slot| slot.disturbs);
        if is_needed != self.is_quiet {
            self.is_quiet = is_needed;
            if let Some(finish) = self.tell(Event::QuietTiming { is_needed }).await? {
                return Ok(Some(finish));
            }
        }
        self.tell(Event::Workers { trainers, profilers: self.profilers }).await
    }

    /// The connection to a worker is gone. Who was at something may come back.
    pub(super) async fn gone(&mut self, index: usize) -> anyhow::Result<Option<Finish>> {
        let slot = &mut self.slots[index];
        if slot.request.is_some() && slot.presence == Presence::Here {
            slot.presence = Presence::Away;
            return Ok(None);
        }
        slot.abandon();
        self.count().await
    }

    /// Gives up who was not heard of for too long, and gives a sign to the others.
    pub(super) async fn look_at_leases(&mut self) -> anyhow::Result<Option<Finish>> {
        let Some(hall) = &mut self.hall else { return Ok(None) };
        if hall.told_at.elapsed() >= hall.lease / BEATS {
            hall.told_at = Instant::now();
            self.slots.iter().for_each(|slot| slot.tell(ToWorker::Alive));
        }
        let now = Instant::now();
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let is_over = slot.lease.as_ref().is_some_and(|lease| lease.until < now);
            if !is_over || slot.presence == Presence::Closed {
                continue;
            }
            let at = slot.request.filter(|_| slot.presence != Presence::NotYet);
            let host = slot.lease.as_ref().map_or_else(String::new, |lease| lease.host.clone());
            slot.abandon();
            let place = self.display.place();
            self.display.line(&format!("{place} a worker on {host} is lost"));
            let mut finish = self.count().await?;
            if let (Some(id), None) = (at, &finish) {
                finish = self.lost(id).await?;
            }
            if finish.is_some() {
                return Ok(finish);
            }
        }
        Ok(None)
    }

    /// Whoever was at this request is not any more.
    async fn lost(&mut self, id: u64) -> anyhow::Result<Option<Finish>> {
        let number = self.trainings.remove(&id).map(|(number, _)| number);
        self.events.push(Change::Attempt {
            kind: "lost worker".to_owned(),
            number,
            failure: None,
            body: "its worker was not heard of for too long; somebody else is asked".to_owned(),
        });
        self.tell(Event::Lost { id }).await
    }

    /// An answer that nobody waits for: it is remembered, and changes nothing.
    pub(super) async fn late(
        &mut self,
        index: usize,
        news: &News,
    ) -> anyhow::Result<Option<Finish>> {
        let slot = &mut self.slots[index];
        let Some(id) = slot.request.take() else { return Ok(None) };
        slot.tell(ToWorker::Heard { id });
        if slot.presence == Presence::NotYet {
            slot.presence = Presence::Here;
        }
        let body = match news {
            News::Reply(Reply::Result(Evaluation { values, checkpoint, tokens, .. })) => {
                let is_known = |path: &Path| {
                    self.machine.candidates().any(|row| row.checkpoint.as_deref() == Some(path))
                };
                if let Some(path) = checkpoint.as_ref().filter(|path| !is_known(path)) {
                    checkpoints::remove(path, self.checkpoints.as_deref());
                }
                let values: Vec<String> =
                    values.iter().map(|(name, value)| format!("{name} {}", value.mean)).collect();
                format!("after {tokens} tokens: {}", values.join(", "))
            }
            News::Reply(Reply::Infeasible(refusal) | Reply::Failed(refusal))
            | News::Failed { refusal, .. } => refusal.reason.clone(),
            _ => String::new(),
        };
        let kind = "late result".to_owned();
        self.events.push(Change::Attempt { kind, number: None, failure: None, body });
        self.count().await
    }

    /// A pull worker cannot work as it is set up: that is no reason to stop the others.
    pub(super) async fn refuse(
        &mut self,
        index: usize,
        reason: &str,
    ) -> anyhow::Result<Option<Finish>> {
        let slot = &mut self.slots[index];
        let at = slot.request.filter(|_| slot.presence != Presence::NotYet);
        let host = slot.lease.as_ref().map_or_else(String::new, |lease| lease.host.clone());
        slot.abandon();
        let body = format!("a worker on {host} cannot work: {reason}");
        self.display.line(&body);
        self.events.push(Change::Event { kind: "worker refused".to_owned(), body });
        let mut finish = self.count().await?;
        if let (Some(id), None) = (at, &finish) {
            finish = self.lost(id).await?;
        }
        Ok(finish)
    }
}
