//! A profiler outside of a campaign, asked one thing at a time.

use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};
use search::Architecture;
use search::latency::{Conditions, Limit, Timing};
use search::wire::{MeasureLimit, MeasureWhole, Reply, Request};
use tui::quantity;

use super::{Process, Program, Role, broken, meet};

/// The worker that times, asked one thing at a time.
pub(crate) struct Profiler {
    process: Process,
    device: String,
    id: u64,
}

impl Profiler {
    pub(crate) async fn start(program: &Program) -> anyhow::Result<Self> {
        let (process, hello) = meet(Role::Profiler, program, None)
            .await
            .map_err(|(reason, log)| broken(&reason, &log))?;
        Ok(Self { process, device: hello.device, id: 0 })
    }

    /// The device by name.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// Lets the worker go.
    pub(crate) async fn dismiss(self) {
        self.process.dismiss().await;
    }

    /// Sends the request that `with` makes of a fresh id, and hears the timing. `what` is shown meanwhile.
    pub(crate) async fn time(
        &mut self,
        what: &str,
        with: impl FnOnce(u64) -> Request,
    ) -> anyhow::Result<Timing> {
        self.id += 1;
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            write!(stderr, "\r\x1b[Ktiming {}", quantity::shortened(what, 70))?;
            stderr.flush()?;
        }
        let sent = self.process.send(&with(self.id)).await;
        let reply = match self.process.line().await {
            Some(line) if sent => Reply::parse(&line).context("the profiler wrote a bad line"),
            _ => Err(anyhow::anyhow!("the profiler is gone\n{}", self.process.tail().trim_end())),
        };
        if stderr.is_terminal() {
            write!(stderr, "\r\x1b[K")?;
        }
        match reply? {
            Reply::Timing(measured) if measured.id == self.id => Ok(measured.timing),
            Reply::Failed(refusal) | Reply::Infeasible(refusal) => {
                bail!("{what}: {}", refusal.reason)
            }
            other => bail!("the profiler answered out of turn: {other:?}"),
        }
    }

    /// The time of a whole model.
    pub(crate) async fn whole(
        &mut self,
        what: &str,
        architecture: &Architecture,
        conditions: &Conditions,
    ) -> anyhow::Result<Timing> {
        let (architecture, conditions) = (architecture.clone(), conditions.clone());
        let request = |id| Request::MeasureWhole(MeasureWhole { id, architecture, conditions });
        self.time(what, request).await
    }

    /// How much of a limit this machine does in a µs.
    pub(crate) async fn limit(&mut self, limit: Limit, threads: u32) -> anyhow::Result<f64> {
        let request = |id| Request::MeasureLimit(MeasureLimit { id, limit, threads });
        Ok(limit.amount() / self.time(&limit.to_string(), request).await?.median_us)
    }
}
