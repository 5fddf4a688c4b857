//! The driver of a campaign: it owns the workers and the store, and does what [`search::campaign`] says.
//!
//! It decides nothing about candidates. Each event is handed to the state machine; what the machine wants saved is
//! written in one transaction before anything is sent, so that a kill at any moment loses only what was running.

mod checkpoints;
mod child;
mod desk;
mod display;
pub(crate) mod gpus;
mod hall;
mod hiring;
mod job;
mod joining;
mod keeping;
mod limits;
mod lines;
mod metrics;
mod news;
pub(crate) mod precision;
mod preflight;
mod profiler;
pub(crate) mod pull;
mod resume;
pub(crate) mod seating;
mod slot;
mod spec;
mod stop;
pub(crate) mod targets;
mod telling;
mod underway;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::{Context, bail};
use db::{Run, Store};
use search::campaign::Finish;
use search::subject::Subjects;
use search::wire::Hello;
use tokio::sync::mpsc;

pub(crate) use child::{Process, broken};
use desk::Desk;
pub(crate) use display::say;
use gpus::Gpus;
use hall::Hall;
pub(crate) use hiring::{ask, ask_space, meet};
pub(crate) use job::{Job, Show};
pub(crate) use limits::{Limits, Room};
pub(crate) use metrics::endpoint::Endpoint;
use news::{Inbox, News};
pub(crate) use precision::ask_precision;
pub(crate) use preflight::{Asked, Look, Said, conditions};
pub(crate) use profiler::Profiler;
use pull::ToWorker;
pub(crate) use pull::listener::Door;
pub(crate) use pull::post::Post;
pub(crate) use pull::tls::Token;
pub(crate) use pull::whereabouts::{Whereabouts, token};
pub(crate) use pull::worker::Outcome;
pub(crate) use resume::{full_name, is_current};
use slot::Slot;
pub(crate) use spec::{Introduction, Program, Role, WorkerSpec};
use stop::StopSignals;
pub(crate) use targets::Target;

/// How often a driver that waits says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Runs the campaign to its end, or until it is stopped.
///
/// # Errors
/// When no worker can be had, or the store cannot be written. What was saved stays.
pub(crate) async fn drive<D: Subjects + Clone>(
    store: &Store,
    run: &Run,
    mut job: Job<D>,
) -> anyhow::Result<Finish> {
    let mut signals = StopSignals::listen_with_time_limit().context("cannot listen for Ctrl-C")?;
    let (sender, mut news) = mpsc::unbounded_channel();
    let mut slots = Vec::new();
    let (gpus, trained) = (Gpus::here(), job.trainer.introduction.device());
    let plan = gpus.plan(&job.timed_devices(), trained, job.trainers);
    for (index, gpu) in plan.into_iter().enumerate() {
        let mut trainer = job.trainer.clone();
        trainer.program = trainer.program.seeing(gpu);
        slots.push(Slot::open(index, trainer, sender.clone()));
    }
    for target in targets::here(&job.targets) {
        slots.push(Slot::open(slots.len(), target.profiler.clone(), sender.clone()));
    }

    let hellos = tokio::select! {
        hellos = greet(&mut news, slots.len()) => hellos,
        () = signals.next() => Ok(None),
    };
    let hellos = match hellos {
        Ok(Some(hellos)) => hellos,
        Ok(None) => {
            close(slots, false).await;
            return Ok(Finish::Stopped);
        }
        Err(error) => {
            close(slots, false).await;
            return Err(error);
        }
    };
    let (trainers, children) = hellos.split_at(job.trainers as usize);
    let mut hall = match Hall::open(&job, sender).await {
        Ok(hall) => hall,
        Err(error) => {
            close(slots, false).await;
            return Err(error);
        }
    };
    let mut inbox = Inbox { before: VecDeque::new(), news };
    // Who times each target, those elsewhere once they have come.
    let here = targets::here(&job.targets);
    let child = |target| targets::timed_by(target, &here).and_then(|child| children.get(child));
    let mut profilers: Vec<Option<Hello>> =
        job.targets.iter().map(|target| child(target).cloned()).collect();
    let is_awaited = profilers.iter().any(Option::is_none);
    if let Some(hall) = &mut hall
        && is_awaited
    {
        // There is no display yet.
        if job.show != Show::Nothing {
            say(&format!("others join by: {}", hall.invitation()));
            for target in job.targets.iter().filter(|target| target.is_elsewhere) {
                let flag =
                    target.name().map_or_else(String::new, |name| format!(" --target {name}"));
                say(&format!(
                    "waiting for one of them that times: the same line with --times{flag}"
                ));
            }
        }
        let waited = {
            // A number that no request of the campaign has.
            let id = run.first_request() - 1;
            let look = job.look.as_ref();
            let waiting = hall.first_profilers(id, &job.targets, look, &mut slots, &mut inbox);
            let mut waiting = std::pin::pin!(waiting);
            let mut beat = tokio::time::interval(HEARTBEAT);
            loop {
                tokio::select! {
                    found = &mut waiting => break found.map(Some),
                    () = signals.next() => break Ok(None),
                    _ = beat.tick() => if let Err(error) = store.heartbeat(run).await {
                        break Err(error.into());
                    }
                }
            }
        };
        let narrowed = waited.and_then(|found| {
            let Some((hellos, said)) = found else { return Ok(None) };
            let look = job.look.take();
            let left = look.map(|look| (look.narrow)(said)).transpose()?;
            Ok(Some((hellos, left)))
        });
        match narrowed {
            Ok(Some((hellos, left))) => {
                for (place, hello) in hellos {
                    profilers[place] = Some(hello);
                }
                if let Some((space, notes)) = left {
                    job.space = space;
                    notes.iter().filter(|_| job.show != Show::Nothing).for_each(|note| say(note));
                }
            }
            Ok(None) => {
                close(slots, false).await;
                return Ok(Finish::Stopped);
            }
            Err(error) => {
                close(slots, false).await;
                return Err(error);
            }
        }
    }
    let profilers: Vec<Hello> = profilers.into_iter().flatten().collect();
    let opened = Desk::open(store, run, &mut job, trainers, &profilers, slots).await;
    let mut desk = match opened {
        Ok(desk) => desk,
        Err((error, slots)) => {
            close(slots, false).await;
            return Err(error);
        }
    };
    if let Some(hall) = hall.as_ref().filter(|_| !is_awaited) {
        desk.display.line(&format!("others join by: {}", hall.invitation()));
    }
    desk.hall = hall;
    let ended = desk.work(&mut inbox, &mut signals).await;
    desk.display.close();
    if let Ok((Finish::Complete | Finish::Exhausted { .. }, _)) = ended {
        desk.slots.iter().for_each(|slot| slot.tell(ToWorker::Farewell));
    }
    let in_order = !matches!(ended, Ok((_, true)));
    close(desk.slots, in_order).await;
    ended.map(|(finish, _)| finish)
}

/// Waits for the first hello of every slot.
async fn greet(
    news: &mut mpsc::UnboundedReceiver<(usize, News)>,
    count: usize,
) -> anyhow::Result<Option<Vec<Hello>>> {
    let mut hellos: BTreeMap<usize, Hello> = BTreeMap::new();
    while hellos.len() < count {
        match news.recv().await {
            Some((index, News::Ready(hello))) => {
                hellos.insert(index, hello);
            }
            Some((_, News::Broken { reason, log })) => return Err(broken(&reason, &log)),
            Some((_, _)) => {}
            None => bail!("the workers are gone"),
        }
    }
    Ok(Some(hellos.into_values().collect()))
}

/// Lets the workers go; in order, each finishes its goodbye, else they are killed.
async fn close(slots: Vec<Slot>, in_order: bool) {
    if in_order {
        let closing: Vec<_> = slots.into_iter().map(|slot| tokio::spawn(slot.close())).collect();
        for slot in closing {
            let _ = slot.await;
        }
    }
    // Dropped slots are aborted, and their processes killed with them.
}
