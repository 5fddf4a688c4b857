//! Where pull workers come in: the door of a campaign, and what is said to whoever comes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use search::config::{Precision, TRAINING_RULE};
use search::subject::Subjects;
use search::wire::{Check, Hello, Reply, Request};
use tokio::sync::mpsc;

use super::job::Job;
use super::news::{Inbox, News};
use super::preflight::{AT_ONCE, Look, Said, conditions};
use super::pull::listener::{Arrival, Listener};
use super::pull::whereabouts::{Whereabouts, identity};
use super::pull::{ToWorker, Welcome};
use super::slot::Slot;
use super::spec::{Introduction, Program, Role, WorkerSpec};
use super::targets::Target;

/// A beat is sent so many times in a lease.
pub(super) const BEATS: u32 = 4;

/// Where pull workers come in.
pub(super) struct Hall {
    listener: Listener,
    /// For trainers, and for those who time.
    trainers: Welcome,
    /// By the names of the targets.
    profilers: BTreeMap<Option<String>, Welcome>,
    /// Where the campaign's checkpoints lie.
    folder: PathBuf,
    news: mpsc::UnboundedSender<(usize, News)>,
    pub(super) lease: Duration,
    /// When workers were last told that somebody is there.
    pub(super) told_at: Instant,
}

impl Hall {
    /// Opens the door of a campaign; none where nobody is to come.
    pub(super) async fn open<D: Subjects>(
        job: &Job<D>,
        news: mpsc::UnboundedSender<(usize, News)>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(door) = &job.door else { return Ok(None) };
        let Introduction::Configure(configure) = &job.trainer.introduction else {
            return Ok(None);
        };
        let folder = configure.checkpoints.clone().context("a campaign has a folder")?;
        let files = folder.parent().context("checkpoints lie in the folder of a campaign")?;
        let listener = Listener::open(door, &identity(files)).await?;
        Whereabouts::of(listener.address, door.plain).keep(files)?;
        // Who sees this file shares the folder.
        let mark = (folder.join("campaign"), listener.token.mark());
        std::fs::write(&mark.0, &mark.1)
            .with_context(|| format!("cannot write {}", mark.0.display()))?;
        let welcome = |worker: &WorkerSpec| {
            let Introduction::Configure(configure) = &worker.introduction else { return None };
            Some(Welcome {
                configure: (**configure).clone(),
                is_own: matches!(worker.program, Program::Shell { .. }),
                rule: TRAINING_RULE,
                silence_s: worker.silence.as_secs_f64(),
                wall_s: worker.limits.wall.map(|wall| wall.as_secs_f64()),
                memory_gb: worker.limits.memory_gb,
                lease_s: door.lease.as_secs_f64(),
                mark: mark.clone(),
            })
        };
        let trainers = welcome(&job.trainer).context("a trainer is configured")?;
        let of_target =
            |target: &Target| Some((target.of.name.clone(), welcome(&target.profiler)?));
        let profilers = job.targets.iter().filter_map(of_target).collect();
        let (lease, told_at) = (door.lease, Instant::now());
        Ok(Some(Self { listener, trainers, profilers, folder, news, lease, told_at }))
    }

    /// Lets a worker in, as the slot of this number. It counts once it says that it can work.
    pub(super) fn admit(&self, index: usize, arrival: Arrival) -> Option<Slot> {
        let welcome = match arrival.join.role {
            Role::Trainer => Some(&self.trainers),
            Role::Profiler => self.profilers.get(&arrival.join.target),
            Role::BlackBox => None,
        };
        let Some(welcome) = welcome.cloned() else {
            let reason = match &arrival.join.target {
                Some(target) => {
                    let names = self.profilers.keys().flatten().map(String::as_str);
                    let names = names.collect::<Vec<_>>().join(", ");
                    let there_are =
                        if names.is_empty() { "none".to_owned() } else { format!("only {names}") };
                    format!(
                        "the campaign has no target `{target}` to time (--target); there are {there_are} in [latency.targets]"
                    )
                }
                None => "this campaign has no work of that kind".to_owned(),
            };
            tokio::spawn(arrival.refuse(reason));
            return None;
        };
        let (folder, news) = (Some(self.folder.clone()), self.news.clone());
        Some(Slot::join(index, arrival, welcome, folder, news))
    }

    /// Lets workers in until each target that is timed elsewhere has one: of its device and kernels the latencies there are then.
    /// Each is asked, by requests of this id, which of the models it refuses. What workers say meanwhile is kept. All by the
    /// places of the targets.
    ///
    /// # Errors
    /// When one could time none of the models; the reason is its own.
    pub(super) async fn first_profilers<D>(
        &mut self,
        id: u64,
        targets: &[Target],
        look: Option<&Look<D>>,
        slots: &mut Vec<Slot>,
        inbox: &mut Inbox,
    ) -> anyhow::Result<(Vec<(usize, Hello)>, Vec<(usize, Said)>)> {
        let (mut hellos, mut all_said) = (Vec::new(), Vec::new());
        for (place, target) in targets.iter().enumerate() {
            if target.is_elsewhere {
                let (hello, said) = self.first_profiler(id, target, look, slots, inbox).await?;
                hellos.push((place, hello));
                all_said.push((place, said));
            }
        }
        // Nobody is lost who waited.
        for lease in slots.iter_mut().filter_map(|slot| slot.lease.as_mut()) {
            lease.until = Instant::now() + self.lease;
        }
        Ok((hellos, all_said))
    }

    async fn first_profiler<D>(
        &mut self,
        id: u64,
        target: &Target,
        look: Option<&Look<D>>,
        slots: &mut Vec<Slot>,
        inbox: &mut Inbox,
    ) -> anyhow::Result<(Hello, Said)> {
        let comes = |slots: &[Slot], index: usize, news: &News| match news {
            News::Joined(ready) if slots[index].came_to_time(target.name()) => {
                Some((index, (**ready).clone()))
            }
            _ => None,
        };
        // It may have come while another was waited for.
        let is_gone = |index: usize| {
            inbox
                .before
                .iter()
                .any(|(of, news)| *of == index && matches!(news, News::Gone | News::Broken { .. }))
        };
        let mut before = inbox.before.iter().filter(|(index, _)| !is_gone(*index));
        let (index, ready) = match before.find_map(|(index, news)| comes(slots, *index, news)) {
            Some(found) => found,
            None => self.until(slots, inbox, comes).await,
        };
        let hello = ready.hello;
        let mut said = Said::default();
        // One that is at something for a coordinator before this one is not disturbed.
        let look =
            look.filter(|_| ready.holds.is_none() && hello.can.iter().any(|can| can == "check"));
        for models in look.iter().flat_map(|look| look.models.chunks(AT_ONCE)) {
            let conditions = conditions(&target.of, &hello.device);
            let check = Check { id, architectures: models.to_vec(), conditions };
            slots[index].send(Request::Check(check));
            let answer = self
                .until(slots, inbox, |_, of, news| match news {
                    News::Reply(Reply::Checked(checked)) if of == index && checked.id == id => {
                        Some(Ok(Some(checked.clone())))
                    }
                    News::Reply(Reply::Failed(refusal)) | News::Failed { refusal, .. }
                        if of == index && refusal.id == id =>
                    {
                        Some(Err(refusal.reason.clone()))
                    }
                    News::Gone | News::Broken { .. } if of == index => Some(Ok(None)),
                    _ => None,
                })
                .await;
            slots[index].tell(ToWorker::Heard { id });
            match answer {
                Ok(Some(checked)) => said.add(models, checked),
                // What it refuses is found out when it is asked to time it.
                Ok(None) => break,
                Err(reason) => anyhow::bail!(
                    "nothing of [space] can be timed on {}{}: {}",
                    hello.device,
                    target.suffix(),
                    tui::printable(&reason)
                ),
            }
        }
        Ok((hello, said))
    }

    /// Lets workers in until something is found in what they say, all of which is kept.
    async fn until<T>(
        &mut self,
        slots: &mut Vec<Slot>,
        inbox: &mut Inbox,
        found: impl Fn(&[Slot], usize, &News) -> Option<T>,
    ) -> T {
        let mut beat = tokio::time::interval(self.lease / BEATS);
        loop {
            tokio::select! {
                arrival = self.listener.next() => if let Some(arrival) = arrival {
                    slots.extend(self.admit(slots.len(), arrival));
                },
                Some((index, news)) = inbox.news.recv() => {
                    let what = found(slots, index, &news);
                    inbox.before.push_back((index, news));
                    if let Some(what) = what {
                        return what;
                    }
                }
                _ = beat.tick() => slots.iter().for_each(|slot| slot.tell(ToWorker::Alive)),
            }
        }
    }

    /// Whether what a worker trains in is what all train in, the first to say so for all of them: as it is to be remembered.
    pub(super) fn settle(&mut self, precision: Option<Precision>) -> Settled {
        let Some(training) = &mut self.trainers.configure.training else { return Settled::Agrees };
        match precision {
            Some(precision) if training.precision == Precision::Auto => {
                training.precision = precision;
                Settled::First(precision)
            }
            Some(precision) if training.precision != precision => Settled::Differs,
            _ => Settled::Agrees,
        }
    }

    /// The command by which a worker joins.
    pub(super) fn invitation(&self) -> String {
        let Listener { address, token, .. } = &self.listener;
        format!("{} worker --connect {address} --token {token}", crate::words::program())
    }
}

/// What a worker's precision is to a campaign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Settled {
    /// The campaign's, or none that matters.
    Agrees,
    /// The campaign's from now on.
    First(Precision),
    /// Another one.
    Differs,
}

/// The next worker that comes; never where there is no door.
pub(super) async fn next(hall: &mut Option<Hall>) -> Arrival {
    match hall {
        Some(hall) => match hall.listener.next().await {
            Some(arrival) => arrival,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
