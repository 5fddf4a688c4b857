//! Where pull workers come in: the door of a campaign, and what is said to whoever comes.

use std::time::{Duration, Instant};

use anyhow::Context;
use search::subject::Subjects;
use tokio::sync::mpsc;

use super::job::Job;
use super::news::News;
use super::pull::Welcome;
use super::pull::listener::{Arrival, Listener};
use super::spec::{Introduction, Program};

/// Where pull workers come in.
pub(super) struct Hall {
    listener: Listener,
    pub(super) welcome: Welcome,
    pub(super) news: mpsc::UnboundedSender<(usize, News)>,
    pub(super) lease: Duration,
    /// When workers were last told that somebody is there.
    pub(super) told_at: Instant,
    /// What is timed, by name, on this machine.
    pub(super) timed: Option<String>,
}

impl Hall {
    /// Opens the door of a campaign; none where nobody is to come.
    pub(super) async fn open<D: Subjects>(
        job: &Job<D>,
        timed: Option<String>,
        news: mpsc::UnboundedSender<(usize, News)>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(door) = &job.door else { return Ok(None) };
        let Introduction::Configure(configure) = &job.trainer.introduction else {
            return Ok(None);
        };
        let folder = configure.checkpoints.clone().context("a campaign has a folder")?;
        let listener = Listener::open(door, &folder.with_file_name("coordinator.pem")).await?;
        // Who sees this file shares the folder.
        let mark = (folder.join("campaign"), listener.token.mark());
        std::fs::write(&mark.0, &mark.1)
            .with_context(|| format!("cannot write {}", mark.0.display()))?;
        let trainer = &job.trainer;
        let welcome = Welcome {
            configure: (**configure).clone(),
            is_own: matches!(trainer.program, Program::Shell { .. }),
            silence_s: trainer.silence.as_secs_f64(),
            wall_s: trainer.limits.wall.map(|wall| wall.as_secs_f64()),
            memory_gb: trainer.limits.memory_gb,
            lease_s: door.lease.as_secs_f64(),
            mark,
        };
        let (lease, told_at) = (door.lease, Instant::now());
        Ok(Some(Self { listener, welcome, news, lease, told_at, timed }))
    }

    /// The command by which a worker joins.
    pub(super) fn invitation(&self) -> String {
        let Listener { address, token, .. } = &self.listener;
        format!("{} worker --connect {address} --token {token}", crate::words::program())
    }
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
