//! The coordinator's door: who comes with the token is let in.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::link::{self, Stream};
use super::tls::{Identity, Token};
use super::{Join, ToWorker, VERSION};

/// How long a stranger may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// Workers that wait to be let in.
const WAITING: usize = 64;

/// Where workers may join.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Door {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// Without encryption.
    pub(crate) plain: bool,
    /// After so long without a word a worker is taken for lost.
    pub(crate) lease: Duration,
}

/// A worker with the right token.
pub(crate) struct Arrival {
    pub(crate) join: Join,
    pub(crate) stream: Box<dyn Stream>,
}

impl Arrival {
    /// Tells it why it cannot be used, and lets it go.
    pub(crate) async fn refuse(mut self, reason: String) {
        let _ = link::introduce(&mut self.stream, ToWorker::Refused { reason }).await;
    }
}

/// An open door; closed when it is dropped.
pub(crate) struct Listener {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// What workers must bring.
    pub(crate) token: Token,
    arrivals: mpsc::Receiver<Arrival>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Opens the door; `key` is the file of the coordinator's identity.
    pub(crate) async fn open(door: &Door, key: &Path) -> anyhow::Result<Self> {
        let identity = Identity::keep(key)?;
        let token = identity.token();
        let listener = TcpListener::bind(&door.address)
            .await
            .with_context(|| format!("cannot listen on {}", door.address))?;
        let address = listener.local_addr()?;
        let acceptor = if door.plain { None } else { Some(identity.acceptor()?) };
        let (sender, arrivals) = mpsc::channel(WAITING);
        let expected = token.clone();
        let task = tokio::spawn(async move {
            loop {
                // Too many open files, say: that passes.
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (acceptor, expected, sender) =
                    (acceptor.clone(), expected.clone(), sender.clone());
                tokio::spawn(async move {
                    let met = meet(stream, acceptor, &expected);
                    if let Ok(Ok(Some(arrival))) = tokio::time::timeout(INTRODUCTION, met).await {
                        let _ = sender.send(arrival).await;
                    }
                });
            }
        });
        Ok(Self { address, token, arrivals, task })
    }

    /// The next worker.
    pub(crate) async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hears who somebody is; none: not one of ours.
async fn meet(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    expected: &Token,
) -> anyhow::Result<Option<Arrival>> {
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Stream> = match acceptor {
        Some(acceptor) => Box::new(acceptor.accept(stream).await?),
        None => Box::new(stream),
    };
    let join: Join = link::first(&mut stream).await?;
    let refused = if !expected.admits(&join.secret) {
        Some("the token is not this campaign's; `deltafront run --listen` says which is".to_owned())
    } else if join.version != VERSION {
        let found = join.version;
        Some(format!(
            "it speaks version {found}, the coordinator {VERSION}: build both from the same source"
        ))
    } else {
        None
    };
    match refused {
        Some(reason) => {
            link::introduce(&mut stream, ToWorker::Refused { reason }).await?;
            Ok(None)
        }
        None => Ok(Some(Arrival { join, stream })),
    }
}
