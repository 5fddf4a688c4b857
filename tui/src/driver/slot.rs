//! One place for a worker: keeps a process running in it, hands it one request at a time, and turns everything that can
//! go wrong with it into a failed attempt.

use std::path::{Path, PathBuf};
use std::time::Duration;

use search::failure::FailureKind;
use search::wire::{CONFIGURE_ID, Evaluate, Hello, PROTOCOL, Refusal, Reply, Request, SpaceReply};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::checkpoints;
use super::child::Process;
use super::news::{News, id_of_reply};
use super::pull::link::{Arrived, Link, Parcel};
use super::pull::listener::Arrival;
use super::pull::{FromWorker, ToWorker, Welcome};
use super::spec::{Introduction, Program, Role, WorkerSpec};

/// How long a worker may take to say hello (Python's torch alone takes seconds, a cold disk more).
const HELLO: Duration = Duration::from_mins(2);
/// How long a worker that was told to stop may take to do so.
const STOP: Duration = Duration::from_secs(10);
/// How long letting a worker go may take in all.
const CLOSE: Duration = Duration::from_secs(5);
/// Times in a row that a worker may leave or not start without having been asked anything.
const STARTS: u32 = 3;
/// Characters of a line that is no hello that are shown.
const LINE: usize = 200;
/// Characters of a reason that are kept.
const REASON: usize = 2000;
/// The least time between two reports of progress that are passed on.
const PROGRESS: Duration = Duration::from_millis(200);
/// How often a busy worker is held against its limits.
const WATCH: Duration = Duration::from_secs(1);
/// A clock that is this late was not late by load: driver and workers were stopped (Ctrl-Z, a sleeping laptop).
const ASLEEP: Duration = Duration::from_secs(1);

/// A slot as the driver holds it. Dropping it lets the worker go.
pub(crate) struct Slot {
    pub(crate) role: Role,
    /// The request that its worker is at.
    pub(crate) request: Option<u64>,
    pub(crate) presence: Presence,
    /// Of a pull worker.
    pub(crate) lease: Option<Lease>,
    /// Whether its work disturbs timings.
    pub(crate) disturbs: bool,
    way: Way,
}

/// Whether a slot's worker can be counted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is there.
    Here,
    /// It has not yet said that it can work, or is at something that nobody waits for.
    NotYet,
    /// It is at work, but the connection is gone.
    Away,
    /// It does not come back.
    Closed,
}

/// How long a pull worker is waited for.
pub(crate) struct Lease {
    /// Who it is.
    pub(crate) worker: String,
    pub(crate) host: String,
    /// Whether files go through the connection.
    pub(crate) is_apart: bool,
    /// When it is taken for lost.
    pub(crate) until: std::time::Instant,
}

/// How a slot's worker hears.
enum Way {
    /// A child of this process.
    Child { orders: mpsc::UnboundedSender<Request>, task: tokio::task::JoinHandle<()> },
    /// A pull worker.
    Pull(Link<ToWorker>),
    /// Not at all any more.
    None,
}

impl Slot {
    /// Starts a worker; news come as (index, news).
    pub(crate) fn open(
        index: usize,
        spec: WorkerSpec,
        news: mpsc::UnboundedSender<(usize, News)>,
    ) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        let role = spec.role;
        let task = tokio::spawn(async move {
            let tell = |what| {
                let _ = news.send((index, what));
            };
            if let Err((reason, log)) = keep(&spec, receiver, &tell).await {
                tell(News::Broken { reason, log });
            }
        });
        Self::new(role, Presence::Here, None, Way::Child { orders, task })
    }

    /// Lets a pull worker in; files that it sends are put in the folder, and are meant where its results name them.
    pub(crate) fn join(
        index: usize,
        arrival: Arrival,
        welcome: Welcome,
        folder: Option<PathBuf>,
        news: mpsc::UnboundedSender<(usize, News)>,
    ) -> Self {
        let Arrival { join, stream } = arrival;
        let lease = Lease {
            worker: join.worker,
            host: join.host,
            is_apart: false,
            until: std::time::Instant::now() + Duration::from_secs_f64(welcome.lease_s),
        };
        let mut files: Vec<PathBuf> = Vec::new();
        let hear = move |arrived: Arrived<FromWorker>| {
            let what = match arrived {
                Arrived::File(path) => {
                    files.push(path);
                    News::Alive
                }
                Arrived::Gone => News::Gone,
                Arrived::Message(FromWorker::Alive) => News::Alive,
                Arrived::Message(FromWorker::Ready(ready)) => News::Joined(ready),
                Arrived::Message(FromWorker::News(mut news)) => {
                    if let News::Reply(Reply::Result(result)) = &mut news {
                        let name = result.checkpoint.as_deref().and_then(Path::file_name);
                        let came = files.drain(..).find(|path| path.file_name() == name);
                        result.checkpoint = came.or(result.checkpoint.take());
                    }
                    news
                }
            };
            let _ = news.send((index, what));
        };
        let link = Link::open(stream, folder, hear);
        link.send(ToWorker::Welcome(Box::new(welcome)));
        Self::new(Role::Trainer, Presence::NotYet, Some(lease), Way::Pull(link))
    }

    fn new(role: Role, presence: Presence, lease: Option<Lease>, way: Way) -> Self {
        Self { role, request: None, presence, lease, disturbs: false, way }
    }

    /// Whether it waits for a request.
    pub(crate) fn is_idle(&self, role: Role) -> bool {
        self.role == role && self.request.is_none() && self.presence == Presence::Here
    }

    /// Says something to a pull worker; a child needs no such words.
    pub(crate) fn tell(&self, what: ToWorker) {
        if let Way::Pull(link) = &self.way {
            link.send(what);
        }
    }

    /// Gives a pull worker up.
    pub(crate) fn abandon(&mut self) {
        self.presence = Presence::Closed;
        self.request = None;
        self.way = Way::None;
    }

    /// Hands over a request, or a stop. If the slot is broken, its news says so.
    pub(crate) fn send(&self, request: Request) {
        match &self.way {
            Way::Child { orders, .. } => drop(orders.send(request)),
            Way::Pull(link) => {
                let is_apart = self.lease.as_ref().is_some_and(|lease| lease.is_apart);
                if let (true, Request::Evaluate(Evaluate { resume_from: Some(path), .. })) =
                    (is_apart, &request)
                {
                    for file in checkpoints::files_of(path) {
                        link.post(Parcel::File(file));
                    }
                }
                link.send(ToWorker::Order(request));
            }
            Way::None => {}
        }
    }

    /// Lets the worker go and waits until it is gone.
    pub(crate) async fn close(self) {
        match self.way {
            Way::Child { orders, mut task } => {
                drop(orders);
                if tokio::time::timeout(CLOSE, &mut task).await.is_err() {
                    task.abort();
                }
            }
            Way::Pull(link) => link.close().await,
            Way::None => {}
        }
    }
}

/// Why a slot came to its end: one sentence and a log.
pub(crate) type Broken = (String, String);

/// Keeps a worker running until no more orders come.
async fn keep(
    spec: &WorkerSpec,
    mut orders: mpsc::UnboundedReceiver<Request>,
    tell: &(impl Fn(News) + Sync),
) -> Result<(), Broken> {
    let mut was_ready = false;
    let mut troubles = 0;
    loop {
        let trouble = match hire(spec).await {
            // What cannot be started the first time cannot be started the next time either.
            Err(broken) if !was_ready => return Err(broken),
            Err(broken) => Some(broken),
            Ok((process, hello)) => {
                was_ready = true;
                tell(News::Ready(hello));
                match attend(spec, process, &mut orders, tell).await? {
                    Leave::Dismissed => return Ok(()),
                    Leave::LostAtWork => None,
                    Leave::LostIdle(broken) => Some(broken),
                }
            }
        };
        match trouble {
            // A failed attempt is the campaign's to count.
            None => troubles = 0,
            Some(broken) => {
                troubles += 1;
                if troubles >= STARTS {
                    return Err(broken);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Starts a worker only to hear what it says of itself.
pub(crate) async fn ask(role: Role, program: &Program) -> Result<Hello, Broken> {
    let (process, hello) = meet(role, program, None).await?;
    process.dismiss().await;
    Ok(hello)
}

/// Starts a process, hears its hello and configures it.
async fn hire(spec: &WorkerSpec) -> Result<(Process, Hello), Broken> {
    let configure = match &spec.introduction {
        Introduction::Configure(configure) => configure,
        Introduction::Space(space) => return hire_black_box(spec, space).await,
    };
    let (mut process, hello) = meet(spec.role, &spec.program, Some(&spec.log)).await?;
    if process.send(&Request::Configure((**configure).clone())).await {
        return Ok((process, hello));
    }
    let (ended, log) = process.end().await;
    Err((format!("the {} {} {ended} after its hello", spec.role.word(), spec.program), log))
}

/// Starts a black box and checks that it still optimises what the campaign does.
async fn hire_black_box(spec: &WorkerSpec, space: &SpaceReply) -> Result<(Process, Hello), Broken> {
    let (process, found) = ask_space(&spec.program, Some(&spec.log)).await?;
    if found != *space {
        let (_, log) = process.end().await;
        let reason = format!(
            "the space of {} is another one than when the campaign began: give the campaign another --name",
            spec.program
        );
        return Err((reason, log));
    }
    let hello = Hello {
        protocol: PROTOCOL,
        worker: spec.program.to_string(),
        can: vec![spec.role.duty(&spec.program).to_owned()],
        device: String::new(),
        kernels: None,
    };
    Ok((process, hello))
}

/// Starts a black box and asks what is to be optimised.
pub(crate) async fn ask_space(
    program: &Program,
    log: Option<&Path>,
) -> Result<(Process, SpaceReply), Broken> {
    let name = format!("the worker {program}");
    let mut process =
        Process::start(program, log).map_err(|error| (format!("{error:#}"), String::new()))?;
    // One that does not listen is about to end: its stdout says so next.
    process.send(&Request::Space { protocol: PROTOCOL }).await;
    let reason = match tokio::time::timeout(HELLO, process.line()).await {
        Err(_) => format!("{name} did not answer `space` within {} s", HELLO.as_secs()),
        Ok(None) => {
            let (ended, log) = process.end().await;
            return Err((format!("{name} {ended} before it answered `space`"), log));
        }
        Ok(Some(line)) => match Reply::parse(&line) {
            Ok(Reply::Space(space)) => return Ok((process, space)),
            Ok(Reply::Failed(refusal)) => format!("{name} has no space: {}", refusal.reason),
            Ok(_) => format!("{name} must answer `space` first, got `{}`", shortened(&line, LINE)),
            Err(error) => format!(
                "the first line of {name} must be its answer to `space` (its log belongs on stderr): {}",
                shortened(&error.to_string(), LINE)
            ),
        },
    };
    let (_, log) = process.end().await;
    Err((reason, log))
}

/// Starts a process and hears its hello.
pub(crate) async fn meet(
    role: Role,
    program: &Program,
    log: Option<&Path>,
) -> Result<(Process, Hello), Broken> {
    let name = format!("the {} {program}", role.word());
    let mut process =
        Process::start(program, log).map_err(|error| (format!("{error:#}"), String::new()))?;
    let reason = match tokio::time::timeout(HELLO, process.line()).await {
        Err(_) => format!("{name} did not say hello within {} s", HELLO.as_secs()),
        Ok(None) => {
            let (ended, log) = process.end().await;
            return Err((format!("{name} {ended} before it said hello"), log));
        }
        Ok(Some(line)) => match Reply::parse(&line) {
            Ok(Reply::Hello(hello)) if hello.protocol != PROTOCOL => format!(
                "{name} speaks protocol {}, this deltafront {PROTOCOL}: build both from the same source",
                hello.protocol
            ),
            Ok(Reply::Hello(hello)) if !hello.can.iter().any(|can| can == role.duty(program)) => {
                format!("{name} cannot `{}`, only {}", role.duty(program), hello.can.join(", "))
            }
            Ok(Reply::Hello(hello)) => return Ok((process, introduced(hello))),
            _ => format!(
                "the first line of {name} must be a hello (its log belongs on stderr), got `{}`",
                shortened(&line, LINE)
            ),
        },
    };
    let (_, log) = process.end().await;
    Err((reason, log))
}

/// How the time with one process ended.
enum Leave {
    /// No more orders: the worker was let go.
    Dismissed,
    /// The process is gone, and the request with it; another process is needed.
    LostAtWork,
    /// The process is gone though nothing was asked of it.
    LostIdle(Broken),
}

/// Why a process cannot be kept; of which kind where that is clear.
type Loss = (Option<FailureKind>, String);

/// The request that a worker is at.
struct Job {
    id: u64,
    /// What answers it.
    duty: &'static str,
    began: Instant,
    stopping: bool,
    /// When its silence is too long.
    deadline: Instant,
    /// When progress was passed on last.
    told: Option<Instant>,
}

/// The time with one process.
async fn attend(
    spec: &WorkerSpec,
    mut process: Process,
    orders: &mut mpsc::UnboundedReceiver<Request>,
    tell: &(impl Fn(News) + Sync),
) -> Result<Leave, Broken> {
    let mut job: Option<Job> = None;
    let mut watch = tokio::time::interval(WATCH);
    watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let deadline = job.as_ref().map_or_else(Instant::now, |job| job.deadline);
        // Why this process cannot be kept, of a kind where it is clear; none while all is well.
        let lost: Option<Loss> = tokio::select! {
            biased;
            order = orders.recv() => match order {
                None => {
                    process.dismiss().await;
                    return Ok(Leave::Dismissed);
                }
                Some(request @ Request::Stop { id }) => {
                    if let Some(job) = job.as_mut().filter(|job| job.id == id) {
                        job.stopping = true;
                        job.deadline = Instant::now() + STOP;
                        process.send(&request).await;
                    }
                    None
                }
                Some(request) => {
                    job = duty_of(&request).map(|(id, duty)| Job {
                        id,
                        duty,
                        began: Instant::now(),
                        stopping: false,
                        deadline: Instant::now() + spec.silence,
                        told: None,
                    });
                    process.clear_tail();
                    // A worker that does not listen is about to end: its stdout says so next.
                    process.send(&request).await;
                    None
                }
            },
            // Before the clock: an answer that lies ready was given in time.
            line = process.line() => match line {
                None => Some((None, String::new())),
                Some(line) => match Reply::parse(&line) {
                    Ok(Reply::Failed(Refusal { id: CONFIGURE_ID, reason, .. })) => {
                        let (_, log) = process.end().await;
                        return Err((shortened(&reason, REASON), log));
                    }
                    Ok(reply) => match hear(spec, &mut job, reply) {
                        Ok(None) => None,
                        Ok(Some(Reply::Failed(refusal))) => {
                            tell(News::Failed { refusal, log: process.tail() });
                            None
                        }
                        Ok(Some(reply)) => {
                            tell(News::Reply(reply));
                            None
                        }
                        Err(reason) => Some((Some(FailureKind::Protocol), reason)),
                    },
                    Err(error) => {
                        let reason = shortened(&format!("wrote a bad line: {error}"), REASON);
                        Some((Some(FailureKind::Protocol), reason))
                    }
                },
            },
            () = tokio::time::sleep_until(deadline), if job.is_some() => {
                match job.as_mut() {
                    Some(job) if deadline.elapsed() > ASLEEP => {
                        job.deadline = Instant::now() + if job.stopping { STOP } else { spec.silence };
                        None
                    }
                    Some(Job { stopping: true, .. }) => {
                        let reason = format!("did not stop within {} s", STOP.as_secs());
                        Some((Some(FailureKind::Timeout), reason))
                    }
                    _ => Some((Some(FailureKind::Timeout), format!("said nothing for {} s ({})", spec.silence.as_secs_f64(), match spec.role {
                        Role::Trainer | Role::Profiler => "evaluator.timeout_seconds",
                        Role::BlackBox => "--timeout",
                    }))),
                }
            }
            _ = watch.tick(), if job.is_some() => {
                let began = job.as_ref().map_or_else(Instant::now, |job| job.began);
                spec.limits.broken(began.elapsed(), process.id())
            }
        };
        if let Some((kind, mut reason)) = lost {
            let (ended, log) = process.end().await;
            if reason.is_empty() {
                reason = ended;
            }
            let reason = format!("the {} {} {reason}", spec.role.word(), spec.program);
            return Ok(match job {
                Some(Job { id, .. }) => {
                    let kind = kind.unwrap_or_else(|| FailureKind::guessed(&reason, &log));
                    tell(News::Failed { refusal: Refusal::of(kind, id, reason), log });
                    Leave::LostAtWork
                }
                None => Leave::LostIdle((reason, log)),
            });
        }
    }
}

/// What is passed on of a reply; why its worker cannot be kept when nobody asked for it.
fn hear(spec: &WorkerSpec, job: &mut Option<Job>, reply: Reply) -> Result<Option<Reply>, String> {
    let word = word_of(&reply);
    let Some(id) = id_of_reply(&reply) else {
        return Err(format!("said `{word}` again"));
    };
    let Some(now) = job.as_mut() else {
        return Err(format!("sent `{word}` for request {id} though nothing was asked"));
    };
    if id != now.id {
        return Err(format!("sent `{word}` for request {id} when asked {}", now.id));
    }
    match reply {
        Reply::Progress(progress) => {
            if !now.stopping {
                now.deadline = Instant::now() + spec.silence;
            }
            let is_due = now.told.is_none_or(|told| told.elapsed() >= PROGRESS);
            if !is_due && progress.tokens < progress.tokens_total {
                return Ok(None);
            }
            now.told = Some(Instant::now());
            Ok(Some(Reply::Progress(progress)))
        }
        Reply::Infeasible(refusal) => {
            *job = None;
            let reason = shortened(&refusal.reason, REASON);
            Ok(Some(Reply::Infeasible(Refusal { reason, ..refusal })))
        }
        Reply::Failed(refusal) => {
            *job = None;
            let reason = shortened(&refusal.reason, REASON);
            Ok(Some(Reply::Failed(Refusal { reason, ..refusal })))
        }
        reply if word == now.duty => {
            *job = None;
            Ok(Some(reply))
        }
        _ => Err(format!("answered by `{word}`, but `{}` was to come", now.duty)),
    }
}

/// The id of a request and the reply that answers it; none where none does.
fn duty_of(request: &Request) -> Option<(u64, &'static str)> {
    match request {
        Request::Configure(_) | Request::Space { .. } | Request::Stop { .. } => None,
        Request::Check(request) => Some((request.id, "checked")),
        Request::Eval(request) => Some((request.id, "values")),
        Request::Evaluate(request) => Some((request.id, "result")),
        Request::Measure(request) => Some((request.id, "timing")),
        Request::MeasureWhole(request) => Some((request.id, "timing")),
        Request::MeasureLimit(request) => Some((request.id, "timing")),
    }
}

/// As it stands in the field `type`.
fn word_of(reply: &Reply) -> &'static str {
    match reply {
        Reply::Hello(_) => "hello",
        Reply::Checked(_) => "checked",
        Reply::Space(_) => "space",
        Reply::Values(_) => "values",
        Reply::Progress(_) => "progress",
        Reply::Result(_) => "result",
        Reply::Timing(_) => "timing",
        Reply::Infeasible(_) => "infeasible",
        Reply::Failed(_) => "failed",
    }
}

/// Fit for a terminal, and no longer than that.
fn shortened(text: &str, most: usize) -> String {
    let text = tui::printable(text);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most).chain(['…']).collect()
}

/// What a worker says of itself, fit for a terminal.
fn introduced(hello: Hello) -> Hello {
    let plain = |text: String| shortened(&text, LINE);
    Hello {
        protocol: hello.protocol,
        worker: plain(hello.worker),
        can: hello.can.into_iter().map(plain).collect(),
        device: plain(hello.device),
        kernels: hello.kernels.map(plain),
    }
}
