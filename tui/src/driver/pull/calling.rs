//! How a worker reaches its coordinator, again and again, and when it gives that up.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use super::link::{self, Arrived, Link};
use super::post::Post;
use super::{FromWorker, Join, ToWorker, VERSION, Welcome};

/// Between two tries to reach a coordinator that does not answer: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long one try may take.
const TRY: Duration = Duration::from_secs(30);

/// A connection after its welcome.
pub(super) struct Line {
    pub(super) link: Link<FromWorker>,
    pub(super) arrived: mpsc::UnboundedReceiver<Arrived<ToWorker>>,
    /// Whether the coordinator knows that the worker can work.
    pub(super) is_announced: bool,
}

/// Connects, and again for as long as nobody answers.
///
/// # Errors
/// When the coordinator refuses this worker.
pub(super) async fn connect(
    post: &Post,
    me: &str,
    host: &str,
    say: &dyn Fn(&str),
) -> anyhow::Result<(Line, Welcome)> {
    let mut wait = AGAIN.0;
    let mut is_told = false;
    loop {
        let met = tokio::time::timeout(TRY, meet(post, me, host)).await;
        let met = met.context("it takes too long to answer").and_then(|met| met);
        let mut line = match met {
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
        role: post.role,
        target: post.target.clone(),
    };
    link::introduce(&mut stream, join).await?;
    let folder = post.checkpoints();
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let (sender, arrived) = mpsc::unbounded_channel();
    let link = Link::open(stream, Some(folder), move |what| {
        let _ = sender.send(what);
    });
    Ok(Line { link, arrived, is_announced: false })
}
