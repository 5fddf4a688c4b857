//! The worker's side: a child in a slot as the driver has them, whose orders come from a coordinator far away.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use db::Owner;
use search::wire::{Evaluate, Hello, Reply, Request};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::calling::{Line, connect};
use super::link::{Arrived, Parcel};
use super::outfit::Outfit;
use super::post::Post;
use super::{FromWorker, ToWorker, Welcome};
use crate::driver::checkpoints;
use crate::driver::news::{News, Ready, id_of_request};
use crate::driver::slot::Slot;
use crate::driver::stop::{HandBack, StopSignals};

/// How a worker came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The campaign is finished.
    Finished,
    /// It was told to stop.
    Stopped,
    /// It was told to give back what it was at, and has.
    HandedBack,
}

/// What a worker is told by signals.
struct Calls {
    stop: StopSignals,
    hand_back: HandBack,
}

/// A worker between two messages.
struct Worker<'a> {
    post: &'a Post,
    slot: Slot,
    /// What the child was begun for.
    welcome: Welcome,
    outfit: Outfit,
    /// Whether the campaign's checkpoints lie in a folder that is seen here.
    shares: bool,
    /// What the child said of itself.
    hello: Option<Hello>,
    held: Option<Held>,
    /// Whether it leaves as soon as what it is at is in other hands.
    is_leaving: bool,
}

/// What a worker is at.
struct Held {
    /// As the coordinator sent it.
    request: Request,
    /// Once it is done, until the coordinator has it.
    answer: Option<News>,
}

/// How the time with one connection ended.
enum End {
    Lost,
    Over(Outcome),
}

/// Works until the campaign is finished, or it is told to leave.
///
/// # Errors
/// When the coordinator refuses this worker or is away for too long, or the child cannot work.
pub(crate) async fn work(post: &Post, say: &dyn Fn(&str)) -> anyhow::Result<Outcome> {
    let mut calls = Calls {
        stop: StopSignals::listen().context("cannot listen for Ctrl-C")?,
        hand_back: HandBack::listen().context("cannot listen for USR1")?,
    };
    let (host, me) = (Owner::current().host, &post.home.worker);
    let (sender, mut news) = mpsc::unbounded_channel();
    let mut worker: Option<Worker<'_>> = None;
    let outcome = loop {
        let connecting = connect(post, me, &host, say);
        let (mut line, welcome) =
            match wait(post, connecting, &mut worker, &mut news, &mut calls).await? {
                Ok(connected) => connected,
                Err(outcome) => break outcome,
            };
        // One that goes on with other settings has no use for what was begun under those before.
        let is_other = |worker: &mut Worker<'_>| {
            welcome.clone().settled(worker.outfit.precision) != worker.welcome
        };
        if let Some(other) = worker.take_if(is_other) {
            other.slot.close().await;
            while news.try_recv().is_ok() {}
        }
        let worker_now = match &mut worker {
            Some(worker) => worker,
            none => none.insert(Worker::begin(post, welcome, sender.clone()).await?),
        };
        say(&format!("at the service of {}", post.address));
        tracing::info!(address = post.address, "connected");
        let end = worker_now.attend(&mut line, &mut news, &mut calls).await?;
        line.link.close().await;
        match end {
            End::Lost => {
                tracing::warn!(address = post.address, "connection lost");
                say("the coordinator is gone: what was begun goes on, and it is waited for");
            }
            End::Over(outcome) => break outcome,
        }
    };
    if let Some(worker) = worker {
        worker.slot.close().await;
    }
    tracing::info!(outcome = ?outcome, "worker leaves");
    if outcome != Outcome::Stopped {
        // Nobody goes on from them here. What cannot be removed costs room, nothing else.
        let _ = std::fs::remove_dir_all(post.checkpoints());
    }
    Ok(outcome)
}

/// Waits for a connection, as long as that is worth it; a child works on meanwhile.
async fn wait(
    post: &Post,
    connecting: impl Future<Output = anyhow::Result<(Line, Welcome)>>,
    worker: &mut Option<Worker<'_>>,
    news: &mut mpsc::UnboundedReceiver<(usize, News)>,
    calls: &mut Calls,
) -> anyhow::Result<Result<(Line, Welcome), Outcome>> {
    let mut connecting = std::pin::pin!(connecting);
    let mut idle_since = Instant::now();
    loop {
        let is_busy = worker.as_ref().is_some_and(Worker::is_busy);
        tokio::select! {
            line = &mut connecting => return line.map(Ok),
            Some((_, what)) = news.recv() => {
                idle_since = Instant::now();
                if let Some(worker) = worker {
                    worker.hear(what, None)?;
                }
            }
            () = tokio::time::sleep_until(idle_since + post.patience), if !is_busy => bail!(
                "no coordinator at {} for {} s (--patience)",
                post.address,
                post.patience.as_secs_f64()
            ),
            () = calls.hand_back.next() => match worker {
                Some(worker) => worker.begin_to_leave(),
                None => return Ok(Err(Outcome::HandedBack)),
            },
            () = calls.stop.next() => return Ok(Err(Outcome::Stopped)),
        }
        if worker.as_ref().is_some_and(|worker| worker.is_leaving && !worker.is_busy()) {
            return Ok(Err(Outcome::HandedBack));
        }
    }
}

impl<'a> Worker<'a> {
    /// Begins the child.
    async fn begin(
        post: &'a Post,
        welcome: Welcome,
        news: mpsc::UnboundedSender<(usize, News)>,
    ) -> anyhow::Result<Self> {
        let (path, mark) = &welcome.mark;
        let shares =
            !post.is_apart && std::fs::read_to_string(path).is_ok_and(|found| found == *mark);
        let outfit = Outfit::of(post, &welcome, shares).await?;
        let slot = Slot::open(0, outfit.spec.clone(), news);
        let welcome = welcome.settled(outfit.precision);
        let (hello, held, is_leaving) = (None, None, false);
        Ok(Self { post, slot, welcome, outfit, shares, hello, held, is_leaving })
    }

    /// Whether the child is at something.
    fn is_busy(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.answer.is_none())
    }

    /// The time with one connection.
    async fn attend(
        &mut self,
        line: &mut Line,
        news: &mut mpsc::UnboundedReceiver<(usize, News)>,
        calls: &mut Calls,
    ) -> anyhow::Result<End> {
        let lease = Duration::from_secs_f64(self.welcome.lease_s);
        let mut beat = tokio::time::interval(lease / 4);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        self.announce(line);
        loop {
            tokio::select! {
                arrived = line.arrived.recv() => {
                    heard = Instant::now();
                    match arrived {
                        None | Some(Arrived::Gone) => return Ok(End::Lost),
                        Some(Arrived::Message(ToWorker::Farewell)) => {
                            return Ok(End::Over(Outcome::Finished));
                        }
                        Some(Arrived::Message(ToWorker::Refused { reason })) => bail!("{reason}"),
                        Some(Arrived::Message(ToWorker::Order(request))) => self.obey(request, line),
                        Some(Arrived::Message(ToWorker::Heard { id })) => self.forget(id),
                        Some(
                            Arrived::File(_)
                            | Arrived::Message(ToWorker::Alive | ToWorker::Welcome(_)),
                        ) => {}
                    }
                }
                Some((_, what)) = news.recv() => self.hear(what, Some(line))?,
                _ = beat.tick() => {
                    if heard.elapsed() > lease {
                        return Ok(End::Lost);
                    }
                    line.link.send(FromWorker::Alive);
                }
                () = calls.hand_back.next() => self.begin_to_leave(),
                () = calls.stop.next() => return Ok(End::Over(Outcome::Stopped)),
            }
            if self.is_leaving && self.held.is_none() {
                return Ok(End::Over(Outcome::HandedBack));
            }
        }
    }

    /// Says that it can work, once it can; what it is at; and what it has done meanwhile.
    fn announce(&mut self, line: &mut Line) {
        let Some(hello) = self.hello.clone().filter(|_| !line.is_announced) else { return };
        line.is_announced = true;
        line.link.send(FromWorker::Ready(Box::new(Ready {
            hello,
            shares: self.shares,
            gpu: self.outfit.gpu.clone(),
            precision: self.outfit.precision,
            holds: self.held.as_ref().map(|held| held.request.clone()),
        })));
        if let Some(answer) = self.held.as_ref().and_then(|held| held.answer.clone()) {
            self.deliver(answer, line);
        }
    }

    /// Does what the coordinator asks.
    fn obey(&mut self, request: Request, line: &Line) {
        let Some(id) = id_of_request(&request) else { return self.slot.send(request) };
        if self.is_leaving {
            line.link.send(FromWorker::HandsBack { id });
            return;
        }
        tracing::info!(request = id, "asked");
        self.held = Some(Held { request: request.clone(), answer: None });
        let request = match request {
            Request::Evaluate(request) => {
                let resume_from = request.resume_from.clone().map(|path| self.here(path));
                Request::Evaluate(Evaluate { resume_from, ..request })
            }
            request => request,
        };
        self.slot.send(request);
    }

    /// Has the child keep where it stands; what it is at is then given back.
    fn begin_to_leave(&mut self) {
        self.is_leaving = true;
        if let Some(Held { request: Request::Evaluate(request), answer: None }) = &self.held {
            self.slot.send(Request::Stop { id: request.id });
        }
    }

    /// News of the child.
    fn hear(&mut self, news: News, line: Option<&mut Line>) -> anyhow::Result<()> {
        let is_final = match &news {
            News::Ready(hello) => {
                self.hello = Some(hello.clone());
                if let Some(line) = line {
                    self.announce(line);
                }
                return Ok(());
            }
            News::Broken { reason, log } => {
                let error = crate::driver::broken(reason, log);
                if let Some(line) = line {
                    line.link.send(FromWorker::News(news));
                }
                return Err(error);
            }
            News::Reply(reply) => !matches!(reply, Reply::Progress(_)),
            News::Failed { .. } => true,
            News::Joined(_) | News::Alive | News::HandedBack { .. } | News::Gone => return Ok(()),
        };
        if is_final && let Some(held) = &mut self.held {
            tracing::info!(request = id_of_request(&held.request), "answered");
            held.answer = Some(news.clone());
        }
        if let Some(line) = line.filter(|line| line.is_announced) {
            self.deliver(news, line);
        }
        Ok(())
    }

    /// Passes on what the child said, a checkpoint before the result that names it; or gives back what was not brought to its
    /// end because this worker leaves.
    fn deliver(&mut self, news: News, line: &Line) {
        let is_result = matches!(news, News::Reply(Reply::Result(_) | Reply::Progress(_)));
        if let (true, false, Some(id)) = (self.is_leaving, is_result, news.ends())
            && let Some(Held { request: Request::Evaluate(request), .. }) = &self.held
        {
            if !self.shares {
                let folder = self.post.checkpoints();
                for file in checkpoints::unfinished(request, &folder) {
                    line.link.post(Parcel::File(file));
                }
            }
            self.held = None;
            line.link.send(FromWorker::HandsBack { id });
            return;
        }
        if let News::Reply(Reply::Result(result)) = &news
            && let Some(path) = result.checkpoint.as_ref().filter(|_| !self.shares)
        {
            for file in checkpoints::files_of(path) {
                line.link.post(Parcel::File(file));
            }
        }
        line.link.send(FromWorker::News(news));
    }

    /// The coordinator has an answer: it need not be kept.
    fn forget(&mut self, id: u64) {
        let is_done =
            |held: &mut Held| id_of_request(&held.request) == Some(id) && held.answer.is_some();
        let Some(held) = self.held.take_if(is_done) else { return };
        let Request::Evaluate(request) = held.request else { return };
        let folder = self.post.checkpoints();
        if let (false, Some(News::Reply(Reply::Result(result)))) = (self.shares, &held.answer) {
            let old = request.resume_from.map(|path| self.here(path));
            for path in result.checkpoint.iter().chain(&old) {
                checkpoints::remove(path, Some(&folder));
            }
        }
    }

    /// Where a checkpoint of the coordinator's lies here.
    fn here(&self, path: PathBuf) -> PathBuf {
        match path.file_name() {
            Some(name) if !self.shares => self.post.checkpoints().join(name),
            _ => path,
        }
    }
}
