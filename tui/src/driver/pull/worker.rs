//! The worker's side: a child in a slot as the driver has them, whose orders come from a coordinator far away.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use db::Owner;
use search::wire::{Configure, Evaluate, Hello, Reply, Request};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::link::{self, Arrived, Link, Parcel};
use super::tls::Token;
use super::{FromWorker, Join, ToWorker, VERSION, Welcome};
use crate::driver::checkpoints;
use crate::driver::limits::Limits;
use crate::driver::news::{News, Ready};
use crate::driver::slot::Slot;
use crate::driver::spec::{Introduction, Program, Role, WorkerSpec};
use crate::driver::stop::StopSignals;

/// Between two tries to reach a coordinator that does not answer: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What a worker is told on its command line.
#[derive(Debug)]
pub(crate) struct Post {
    /// `HOST:PORT`.
    pub(crate) address: String,
    pub(crate) token: Token,
    /// Without encryption.
    pub(crate) plain: bool,
    /// The trainer of a campaign whose trainer is the user's own.
    pub(crate) command: Option<String>,
    /// Where the text and its tokenizer lie here.
    pub(crate) corpus: Option<PathBuf>,
    pub(crate) tokenizer: Option<PathBuf>,
    /// CPU threads of a training.
    pub(crate) threads: Option<u32>,
    /// Whether checkpoints go through the connection in any case.
    pub(crate) is_apart: bool,
    /// For its log, and for checkpoints where the campaign's folder is not seen.
    pub(crate) folder: PathBuf,
}

/// A worker between two messages.
struct Worker<'a> {
    post: &'a Post,
    slot: Slot,
    /// What the child was begun for.
    welcome: Welcome,
    /// Whether the campaign's checkpoints lie in a folder that is seen here.
    shares: bool,
    /// What the child said of itself.
    hello: Option<Hello>,
    held: Option<Held>,
}

/// What a worker is at.
struct Held {
    /// As the coordinator sent it.
    request: Evaluate,
    /// Once it is done, until the coordinator has it.
    answer: Option<News>,
}

/// A connection after its welcome.
struct Line {
    link: Link<FromWorker>,
    arrived: mpsc::UnboundedReceiver<Arrived<ToWorker>>,
    /// Whether the coordinator knows that the worker can work.
    is_announced: bool,
}

/// How the time with one connection ended.
enum End {
    Lost,
    Finished,
    Stopped,
}

/// Works until the campaign is finished; false when it was told to stop before.
///
/// # Errors
/// When the coordinator refuses this worker, or the trainer cannot work.
pub(crate) async fn work(post: &Post, say: &dyn Fn(&str)) -> anyhow::Result<bool> {
    let mut signals = StopSignals::listen().context("cannot listen for Ctrl-C")?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let Owner { host, pid, .. } = Owner::current();
    let me = format!("{host} {pid} {}", since.as_nanos());
    let (sender, mut news) = mpsc::unbounded_channel();
    let mut worker: Option<Worker<'_>> = None;
    loop {
        let mut connecting = Box::pin(connect(post, &me, &host, say));
        let (mut line, welcome) = loop {
            tokio::select! {
                line = &mut connecting => break line?,
                Some((_, what)) = news.recv() => {
                    if let Some(worker) = &mut worker {
                        worker.hear(what, None)?;
                    }
                }
                () = signals.next() => {
                    if let Some(worker) = worker {
                        worker.slot.close().await;
                    }
                    return Ok(false);
                }
            }
        };
        // One that goes on with other settings has no use for what was begun under those before.
        if let Some(other) = worker.take_if(|worker| worker.welcome != welcome) {
            other.slot.close().await;
            while news.try_recv().is_ok() {}
        }
        let worker_now = match &mut worker {
            Some(worker) => worker,
            none => none.insert(Worker::begin(post, welcome, sender.clone())?),
        };
        say(&format!("at the service of {}", post.address));
        let end = worker_now.attend(&mut line, &mut news, &mut signals).await?;
        line.link.close().await;
        match end {
            End::Lost => {
                say("the coordinator is gone: what was begun goes on, and it is waited for");
            }
            End::Finished | End::Stopped => {
                if let Some(worker) = worker {
                    worker.slot.close().await;
                }
                return Ok(matches!(end, End::Finished));
            }
        }
    }
}

impl<'a> Worker<'a> {
    /// Begins the child.
    fn begin(
        post: &'a Post,
        welcome: Welcome,
        news: mpsc::UnboundedSender<(usize, News)>,
    ) -> anyhow::Result<Self> {
        let (path, mark) = &welcome.mark;
        let shares =
            !post.is_apart && std::fs::read_to_string(path).is_ok_and(|found| found == *mark);
        let spec = spec(post, &welcome, shares)?;
        let slot = Slot::open(0, spec, news);
        Ok(Self { post, slot, welcome, shares, hello: None, held: None })
    }

    /// The time with one connection.
    async fn attend(
        &mut self,
        line: &mut Line,
        news: &mut mpsc::UnboundedReceiver<(usize, News)>,
        signals: &mut StopSignals,
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
                        Some(Arrived::Message(ToWorker::Farewell)) => return Ok(End::Finished),
                        Some(Arrived::Message(ToWorker::Refused { reason })) => bail!("{reason}"),
                        Some(Arrived::Message(ToWorker::Order(request))) => self.obey(request),
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
                () = signals.next() => return Ok(End::Stopped),
            }
        }
    }

    /// Says that it can work, once it can; what it is at; and what it has done meanwhile.
    fn announce(&self, line: &mut Line) {
        let Some(hello) = self.hello.clone().filter(|_| !line.is_announced) else { return };
        line.is_announced = true;
        let holds = self.held.as_ref().map(|held| held.request.clone());
        line.link.send(FromWorker::Ready(Ready { hello, shares: self.shares, holds }));
        if let Some(answer) = self.held.as_ref().and_then(|held| held.answer.clone()) {
            self.deliver(answer, line);
        }
    }

    /// Does what the coordinator asks.
    fn obey(&mut self, request: Request) {
        match request {
            Request::Evaluate(request) => {
                self.held = Some(Held { request: request.clone(), answer: None });
                let resume_from = request.resume_from.clone().map(|path| self.here(path));
                self.slot.send(Request::Evaluate(Evaluate { resume_from, ..request }));
            }
            request => self.slot.send(request),
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
            News::Joined(_) | News::Alive | News::Gone => return Ok(()),
        };
        if is_final && let Some(held) = &mut self.held {
            held.answer = Some(news.clone());
        }
        if let Some(line) = line.filter(|line| line.is_announced) {
            self.deliver(news, line);
        }
        Ok(())
    }

    /// Passes on what the child said, a checkpoint before the result that names it.
    fn deliver(&self, news: News, line: &Line) {
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
        let is_done = |held: &mut Held| held.request.id == id && held.answer.is_some();
        let Some(held) = self.held.take_if(is_done) else { return };
        let folder = self.post.folder.join("checkpoints");
        if let (false, Some(News::Reply(Reply::Result(result)))) = (self.shares, &held.answer) {
            let old = held.request.resume_from.map(|path| self.here(path));
            for path in result.checkpoint.iter().chain(&old) {
                checkpoints::remove(path, Some(&folder));
            }
        }
    }

    /// Where a checkpoint of the coordinator's lies here.
    fn here(&self, path: PathBuf) -> PathBuf {
        match path.file_name() {
            Some(name) if !self.shares => self.post.folder.join("checkpoints").join(name),
            _ => path,
        }
    }
}

/// Connects, and again for as long as nobody answers.
async fn connect(
    post: &Post,
    me: &str,
    host: &str,
    say: &dyn Fn(&str),
) -> anyhow::Result<(Line, Welcome)> {
    let mut wait = AGAIN.0;
    let mut is_told = false;
    loop {
        let mut line = match meet(post, me, host).await {
            Ok(line) => line,
            Err(error) => {
                if !is_told {
                    say(&format!("{error:#}; trying again until it does"));
                }
                is_told = true;
                tokio::time::sleep(wait).await;
                wait = (2 * wait).min(AGAIN.1);
                continue;
            }
        };
        match line.arrived.recv().await {
            Some(Arrived::Message(ToWorker::Welcome(welcome))) => return Ok((line, *welcome)),
            Some(Arrived::Message(ToWorker::Refused { reason })) => bail!("{reason}"),
            // It ended meanwhile.
            _ => tokio::time::sleep(wait).await,
        }
    }
}

/// Connects once.
async fn meet(post: &Post, me: &str, host: &str) -> anyhow::Result<Line> {
    let mut stream = post.token.connect(&post.address, post.plain).await?;
    let join = Join {
        version: VERSION,
        secret: post.token.secret.clone(),
        worker: me.to_owned(),
        host: host.to_owned(),
    };
    link::introduce(&mut stream, join).await?;
    let folder = post.folder.join("checkpoints");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let (sender, arrived) = mpsc::unbounded_channel();
    let link = Link::open(stream, Some(folder), move |what| {
        let _ = sender.send(what);
    });
    Ok(Line { link, arrived, is_announced: false })
}

/// What the child is.
fn spec(post: &Post, welcome: &Welcome, shares: bool) -> anyhow::Result<WorkerSpec> {
    let program = match (&post.command, welcome.is_own) {
        (Some(line), true) => {
            let folder = std::env::current_dir().context("where this is run is gone")?;
            Program::Shell { line: line.clone(), folder }
        }
        (None, false) => Program::built_in(Role::Trainer)?,
        (None, true) => bail!(
            "this campaign is trained by a command of its user: give it to this worker by --command"
        ),
        (Some(_), false) => bail!(
            "this campaign is trained by deltafront-train; a --command would train something else"
        ),
    };
    let mut configure = Configure::clone(&welcome.configure);
    if let Some(data) = &mut configure.data {
        let absolute = |path: &Path| std::path::absolute(path).context("a path is not absolute");
        if let Some(corpus) = &post.corpus {
            data.corpus = absolute(corpus)?;
        }
        if let Some(tokenizer) = &post.tokenizer {
            data.tokenizer = Some(absolute(tokenizer)?);
        }
    }
    if let (Some(training), Some(threads)) = (&mut configure.training, post.threads) {
        training.threads = threads;
    }
    if !shares {
        configure.checkpoints = Some(post.folder.join("checkpoints"));
    }
    let seconds = |s: f64| Duration::try_from_secs_f64(s).context("a time of the coordinator");
    Ok(WorkerSpec {
        role: Role::Trainer,
        program,
        introduction: Introduction::Configure(Box::new(configure)),
        log: post.folder.join("trainer.log"),
        silence: seconds(welcome.silence_s)?,
        limits: Limits {
            wall: welcome.wall_s.map(seconds).transpose()?,
            memory_gb: welcome.memory_gb,
        },
    })
}
