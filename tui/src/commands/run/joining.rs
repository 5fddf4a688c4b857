//! Who else may work for a campaign, and where they come in.

use std::time::Duration;

use anyhow::Context;

use crate::driver::{Door, Target};

/// Who else may work.
#[derive(clap::Args)]
pub(super) struct Joining {
    /// Let others train, too: `deltafront worker` connects here. An IP address of this machine, or 0.0.0.0, and a port.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Train nothing here, and ask for no trainer: all training is done by workers that connect. What is timed is timed here.
    #[arg(long, requires = "listen")]
    pub(super) only_workers: bool,
    /// Time nothing here: latencies come from `deltafront worker --times` alone, and the device of the first such worker is the
    /// campaign's. With names of [latency.targets] that is so of these targets: `--workers-time=phone,server`.
    #[arg(
        long,
        value_name = "TARGETS",
        requires = "listen",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ALL
    )]
    workers_time: Option<String>,
    /// Without encryption: on the loopback, or a network that nobody else is on.
    #[arg(long, requires = "listen")]
    without_tls: bool,
    /// Seconds without a word after which a worker is taken for lost, and its work given to another.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, requires = "listen")]
    lease: f64,
}

/// In place of the names of some targets.
const ALL: &str = "";

impl Joining {
    /// Leaves targets to workers that connect.
    pub(super) fn mark_elsewhere(&self, targets: &mut [Target]) -> anyhow::Result<()> {
        let Some(names) = &self.workers_time else { return Ok(()) };
        if names == ALL {
            for target in targets {
                target.is_elsewhere = true;
            }
            return Ok(());
        }
        for name in names.split(',') {
            let found = targets.iter_mut().find(|target| target.name() == Some(name));
            let target = found.with_context(|| {
                format!("--workers-time: there is no target [latency.targets.{name}]")
            })?;
            target.is_elsewhere = true;
        }
        Ok(())
    }

    /// Where workers may join.
    pub(super) fn door(&self) -> anyhow::Result<Option<Door>> {
        let Some(address) = self.listen.clone() else { return Ok(None) };
        let lease = Duration::try_from_secs_f64(self.lease).ok();
        let lease = lease.filter(|lease| *lease >= Duration::from_secs(1));
        let lease = lease.context("--lease must be at least 1 second")?;
        Ok(Some(Door { address, plain: self.without_tls, lease }))
    }
}
