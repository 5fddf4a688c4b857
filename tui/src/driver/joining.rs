//! Pull workers at the desk: they come, say what they are at, are away for a while, and are given up when their lease is
//! over.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use db::Change;
use search::campaign::{Event, Finish};
use search::subject::Subjects;
use search::wire::{Evaluation, Hello, Reply, Request};

use super::checkpoints;
use super::desk::Desk;
use super::gpus::{Gpus, Seat};
use super::hall::{BEATS, Settled};
use super::news::{News, Ready, id_of_request};
use super::precision::remembered;
use super::pull::ToWorker;
use super::pull::listener::Arrival;
use super::resume::full_name;
use super::seating::quiet;
use super::slot::{Presence, Slot};
use super::spec::Role;
use super::underway::Underway;

impl<D: Subjects + Clone> Desk<'_, D> {
    /// Lets a worker in. It counts once it says that it can work.
    pub(super) fn admit(&mut self, arrival: Arrival) {
        let Some(hall) = &self.hall else { return };
        self.slots.extend(hall.admit(self.slots.len(), arrival));
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
        let Ready { hello, shares, gpu, precision, holds } = ready;
        let slot = &mut self.slots[index];
        let role = slot.role;
        let Some(lease) = &mut slot.lease else { return Ok(None) };
        lease.is_apart = !shares;
        let (worker, host) = (lease.worker.clone(), lease.host.clone());
        let device = match role {
            Role::Profiler => hello.device.clone(),
            _ => self.introduction.trains_on(&hello, gpu.as_deref()),
        };
        let seat = Seat { host: host.clone(), device: device.clone(), gpu };
        match self.hall.as_mut().map(|hall| hall.settle(precision)) {
            Some(Settled::First(precision)) => self.events.extend(remembered(precision)),
            // It comes again, and is told then what the others train in.
            Some(Settled::Differs) => {
                self.abandon(index);
                return Ok(None);
            }
            Some(Settled::Agrees) | None => {}
        }
        if let Some(reason) = self.unfit(index, &hello) {
            let body = format!("a worker on {host} is turned away: {reason}");
            self.display.line(&body);
            self.slots[index].turn_away(reason);
            self.events.push(Change::Event { kind: "worker refused".to_owned(), body });
            return Ok(None);
        }
        self.slots[index].seat = Some(seat);
        self.slots[index].who = Some(full_name(&hello));
        tracing::info!(host, device, worker = hello.worker, role = role.word(), "worker joins");
        let place = self.display.place();
        self.display.line(&format!("{place} {} on {host} ({device}) joins", hello.worker));
        if role != Role::Profiler {
            self.display.join(index, format!("{} {host}", role.word()));
        }
        self.events.push(Change::Worker {
            role: self.slots[index].word(),
            worker: full_name(&hello),
            device,
        });
        // Connections of the same worker before this one.
        let mut was_at = None;
        for (other, slot) in self.slots.iter_mut().enumerate() {
            let is_it = slot.lease.as_ref().is_some_and(|lease| lease.worker == worker);
            if is_it && other != index && slot.presence != Presence::Closed {
                was_at = was_at.or(slot.request.filter(|_| slot.presence != Presence::NotYet));
                slot.abandon();
                self.display.leave(other);
            }
        }
        let holds_id = holds.as_ref().and_then(id_of_request);
        // Before anything is given out: who is abandoned is given nothing.
        let mut finish = self.count().await?;
        if let (Some(id), None) = (was_at.filter(|id| Some(*id) != holds_id), &finish) {
            finish = self.lost(id).await?;
        }
        // Who times does so once nobody else does on its device.
        let there = if role == Role::Profiler { Presence::Waits } else { Presence::Here };
        let mut presence = there;
        if let (Some(request), Some(id), None) = (holds, holds_id, &finish) {
            if !self.machine.waits_for(id)
                && let Request::Evaluate(evaluate) = request
            {
                let (tokens, seed) = (evaluate.tokens, evaluate.seed);
                finish = self.tell(Event::Adopted(evaluate)).await?;
                if let Some(row) = self.machine.candidate_of(id) {
                    let number = row.number;
                    let began = Instant::now();
                    self.trainings.insert(id, Underway { number, tokens, seed, began });
                    let tokens = tui::quantity::scaled(tokens as f64);
                    let place = self.display.place();
                    self.display.line(&format!(
                        "{place} candidate {number}: {host} goes on with it, {tokens} tokens"
                    ));
                }
            }
            self.slots[index].request = Some(id);
            presence = Presence::Here;
            if !self.machine.waits_for(id) {
                // A timing takes seconds.
                presence = Presence::NotYet;
                if role == Role::Trainer {
                    self.slots[index].send(Request::Stop { id });
                }
            }
        }
        self.slots[index].presence = presence;
        self.let_time();
        if self.slots[index].presence == Presence::Waits {
            let place = self.display.place();
            self.display.line(&format!("{place} {host} waits: somebody times on its device"));
        }
        match finish {
            None => self.count().await,
            finish => Ok(finish),
        }
    }

    /// Tells the machine who is there.
    pub(super) async fn count(&mut self) -> anyhow::Result<Option<Finish>> {
        self.let_time();
        let counts = |slot: &&Slot| matches!(slot.presence, Presence::Here | Presence::Away);
        let there = self.slots.iter().filter(counts);
        let (timing, training): (Vec<&Slot>, Vec<&Slot>) =
            there.partition(|slot| slot.role == Role::Profiler);
        let trainers = training.len() as u32;
        let mut profilers: BTreeMap<String, u32> = BTreeMap::new();
        for seat in timing.iter().filter_map(|slot| slot.seat.as_ref()) {
            *profilers.entry(seat.device.clone()).or_default() += 1;
        }
        let workers = Event::Workers { trainers, profilers };
        let now = quiet(&self.slots);
        if now == self.quiet {
            return self.tell(workers).await;
        }
        // Who comes must not train beside a timing, and nobody is given a training who is gone: what is to be quiet from now on
        // is so before the workers are counted, and what need not be any more afterwards.
        let both = self.quiet.and(&now);
        let before = (both != self.quiet).then(|| Event::QuietTiming(both.clone()));
        let after = (both != now).then(|| Event::QuietTiming(now.clone()));
        self.quiet = now;
        for event in before.into_iter().chain([workers]).chain(after) {
            if let Some(finish) = self.tell(event).await? {
                return Ok(Some(finish));
            }
        }
        Ok(None)
    }

    /// The connection to a worker is gone. Who was at something may come back.
    pub(super) async fn gone(&mut self, index: usize) -> anyhow::Result<Option<Finish>> {
        let slot = &mut self.slots[index];
        if slot.request.is_some() && slot.presence == Presence::Here {
            slot.presence = Presence::Away;
            return Ok(None);
        }
        self.abandon(index);
        self.count().await
    }

    /// A worker leaves, and has kept how far it came: somebody else goes on from there.
    pub(super) async fn handed_back(
        &mut self,
        index: usize,
        id: u64,
    ) -> anyhow::Result<Option<Finish>> {
        let slot = &self.slots[index];
        let is_wanted = slot.request == Some(id) && self.machine.waits_for(id);
        let host = slot.lease.as_ref().map_or_else(String::new, |lease| lease.host.clone());
        self.abandon(index);
        let number = self.trainings.remove(&id).map(|of| of.number);
        let place = self.display.place();
        self.display.line(&format!("{place} a worker on {host} leaves and hands back its work"));
        tracing::info!(host, request = id, candidate = number, "work handed back");
        self.events.push(Change::Attempt {
            kind: "handed back".to_owned(),
            number,
            failure: None,
            body: format!(
                "the time of its worker on {host} is over; somebody else goes on with it"
            ),
        });
        let finish = self.count().await?;
        if finish.is_none() && is_wanted {
            return self.tell(Event::HandedBack { id }).await;
        }
        Ok(finish)
    }

    /// Gives a worker up.
    fn abandon(&mut self, index: usize) {
        self.slots[index].abandon();
        self.display.leave(index);
    }

    /// Why somebody who would time cannot; none: it can, or trains.
    fn unfit(&self, index: usize, hello: &Hello) -> Option<String> {
        let slot = &self.slots[index];
        let lease = slot.lease.as_ref().filter(|_| slot.role == Role::Profiler)?;
        let name = lease.target.as_deref();
        let (_, target) = self.targets.iter().find(|(of, _)| of.as_deref() == name)?;
        if hello.device != target.device {
            let what = match name {
                Some(name) => format!("target `{name}` of the campaign"),
                None => "the campaign".to_owned(),
            };
            return Some(format!(
                "{what} is timed on `{}`, and this is `{}`: their latencies cannot share a front",
                target.device, hello.device
            ));
        }
        if hello.kernels != target.kernels {
            let version = |hello: &Hello| hello.kernels.clone().unwrap_or_default();
            return Some(format!(
                "the campaign is timed by kernels `{}`, and these are `{}`: build both from the same source",
                version(target),
                version(hello)
            ));
        }
        None
    }

    /// Lets those time whose device nobody else times on any more. Other devices of the same machine take turns.
    fn let_time(&mut self) {
        let gpus = Gpus::here();
        for index in 0..self.slots.len() {
            if self.slots[index].presence != Presence::Waits {
                continue;
            }
            let Some(seat) = &self.slots[index].seat else { continue };
            let has_it = |slot: &Slot| {
                slot.role == Role::Profiler
                    && matches!(slot.presence, Presence::Here | Presence::Away)
                    && slot.seat.as_ref().is_some_and(|taken| {
                        taken.device == seat.device && taken.is_shared(seat, &gpus)
                    })
            };
            if !self.slots.iter().any(has_it) {
                self.slots[index].presence = Presence::Here;
            }
        }
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
            self.abandon(index);
            let place = self.display.place();
            self.display.line(&format!("{place} a worker on {host} is lost"));
            tracing::warn!(host, request = at, "worker lost");
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
        let number = self.trainings.remove(&id).map(|of| of.number);
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
            let times = slot.role == Role::Profiler;
            slot.presence = if times { Presence::Waits } else { Presence::Here };
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
        self.abandon(index);
        tracing::warn!(host, reason, "worker refused");
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
