//! One place for a worker, as the driver holds it: a child of its own, or a pull worker at the other end of a connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use search::wire::{Reply, Request};
use tokio::sync::mpsc;

use super::checkpoints;
use super::gpus::Seat;
use super::keeping::keep;
use super::news::News;
use super::pull::link::{Arrived, Link, Parcel};
use super::pull::listener::Arrival;
use super::pull::{FromWorker, ToWorker, Welcome};
use super::spec::{Role, WorkerSpec};

/// How long letting a worker go may take in all.
const CLOSE: Duration = Duration::from_secs(5);

/// A slot as the driver holds it. Dropping it lets the worker go.
pub(crate) struct Slot {
    pub(crate) role: Role,
    /// The request that its worker is at.
    pub(crate) request: Option<u64>,
    pub(crate) presence: Presence,
    /// Of a pull worker.
    pub(crate) lease: Option<Lease>,
    /// Where it computes, once that is known.
    pub(crate) seat: Option<Seat>,
    /// Name and version of its worker, once they are known.
    pub(crate) who: Option<String>,
    way: Way,
}

/// Whether a slot's worker can be counted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is there.
    Here,
    /// It has not yet said that it can work, or is at something that nobody waits for.
    NotYet,
    /// It could time, but somebody else does on its device.
    Waits,
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
    /// Of who times, the target as the campaign file names it; none: `[latency]` itself.
    pub(crate) target: Option<String>,
    /// Whether files go through the connection.
    pub(crate) is_apart: bool,
    /// The coordinator's folder of checkpoints.
    folder: Option<PathBuf>,
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
            target: join.target,
            is_apart: false,
            folder: folder.clone(),
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
                Arrived::Message(FromWorker::HandsBack { id }) => News::HandedBack { id },
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
        Self::new(join.role, Presence::NotYet, Some(lease), Way::Pull(link))
    }

    fn new(role: Role, presence: Presence, lease: Option<Lease>, way: Way) -> Self {
        Self { role, request: None, presence, lease, seat: None, who: None, way }
    }

    /// Whether it waits for a request.
    pub(crate) fn is_idle(&self, role: Role) -> bool {
        self.role == role && self.request.is_none() && self.presence == Presence::Here
    }

    /// Whether it is idle and times on a device of this name.
    pub(crate) fn may_time_on(&self, device: &str) -> bool {
        self.is_idle(Role::Profiler) && self.seat.as_ref().is_some_and(|seat| seat.device == device)
    }

    /// Whether a pull worker came to time this target.
    pub(crate) fn came_to_time(&self, target: Option<&str>) -> bool {
        let lease = self.lease.as_ref().filter(|_| self.role == Role::Profiler);
        lease.is_some_and(|lease| lease.target.as_deref() == target)
    }

    /// What its worker is called in the store.
    pub(crate) fn word(&self) -> String {
        let target = self.lease.as_ref().and_then(|lease| lease.target.as_deref());
        match self.role {
            Role::Profiler => db::profiler_of(target),
            role => role.word().to_owned(),
        }
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

    /// Tells a pull worker why it cannot be used, and gives it up.
    pub(crate) fn turn_away(&mut self, reason: String) {
        self.tell(ToWorker::Refused { reason });
        if let Way::Pull(link) = std::mem::replace(&mut self.way, Way::None) {
            tokio::spawn(link.close());
        }
        self.abandon();
    }

    /// Hands over a request, or a stop. If the slot is broken, its news says so.
    pub(crate) fn send(&self, request: Request) {
        match &self.way {
            Way::Child { orders, .. } => drop(orders.send(request)),
            Way::Pull(link) => {
                let lease = self.lease.as_ref().filter(|lease| lease.is_apart);
                if let (Some(lease), Request::Evaluate(evaluate)) = (lease, &request) {
                    // What another worker has given back is the newest.
                    let begun = lease.folder.as_ref();
                    let begun = begun.map(|folder| checkpoints::unfinished(evaluate, folder));
                    let mut files = begun.unwrap_or_default();
                    if let (true, Some(path)) = (files.is_empty(), &evaluate.resume_from) {
                        files = checkpoints::files_of(path);
                    }
                    for file in files {
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
