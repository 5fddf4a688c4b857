//! Who is told how a campaign goes, beside whoever looks at it: what `run`, `compare` and `study` share.

use std::net::SocketAddr;
use std::path::PathBuf;

use search::config::NotifyConfig;

use super::notify::Notify;
use crate::driver::Endpoint;

/// Who is told.
#[derive(clap::Args)]
pub(super) struct Watching {
    /// Add what happens to this file, a JSON object a line.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// A command that the shell runs, in the folder of the campaign file, when the campaign is finished or halts: it finds
    /// DELTAFRONT_CAMPAIGN, DELTAFRONT_STATE (finished or halted) and DELTAFRONT_REASON in its environment. Default:
    /// `notify.command` of the campaign file.
    #[arg(long, value_name = "COMMAND", env = "DELTAFRONT_NOTIFY")]
    notify: Option<String>,
    /// Serve metrics for Prometheus at http://ADDRESS/metrics, an address of the loopback: 127.0.0.1:9184.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Let --metrics have an address that other machines reach: whoever does may read them.
    #[arg(long, requires = "metrics")]
    metrics_anywhere: bool,
}

impl Watching {
    /// Opens the log, for the rest of this process.
    pub(super) fn open_log(&self) -> anyhow::Result<()> {
        crate::journal::open(self.log.as_deref())
    }

    /// Where metrics are asked for.
    pub(super) async fn endpoint(&self) -> anyhow::Result<Option<Endpoint>> {
        match self.metrics {
            Some(address) => Ok(Some(Endpoint::open(address, self.metrics_anywhere).await?)),
            None => Ok(None),
        }
    }

    /// Who is told that it is over, by the flag or by the campaign file in this folder.
    pub(super) fn notify(&self, file: &NotifyConfig, folder: PathBuf) -> Option<Notify> {
        Notify::of(self.notify.as_deref(), file, folder)
    }
}
