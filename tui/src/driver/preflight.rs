//! What this machine could not do of a campaign, asked of its workers before anything is spent.

use std::time::Duration;

use search::Architecture;
use search::config::Target;
use search::latency::Conditions;
use search::wire::{CONFIGURE_ID, Check, Checked, Hello, Remark, Reply, Request};

use super::child::{Process, broken};
use super::hiring::meet;
use super::spec::{Introduction, Role, WorkerSpec};

/// A worker that has said hello and was configured.
pub(crate) struct Asked {
    role: Role,
    process: Process,
    pub(crate) hello: Hello,
    silence: Duration,
}

/// What a worker says of some models.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Models that it cannot compute, with the reason.
    pub(crate) refused: Vec<(Architecture, String)>,
    /// What it computes by a slower way.
    pub(crate) slow: Vec<String>,
}

impl Said {
    /// Adds what was said of these models.
    pub(super) fn add(&mut self, models: &[Architecture], Checked { refused, slow, .. }: Checked) {
        for Remark { of, reason } in refused {
            let of = of.into_iter().filter_map(|place| models.get(place));
            self.refused.extend(of.map(|model| (model.clone(), reason.clone())));
        }
        for Remark { reason, .. } in slow {
            if !self.slow.contains(&reason) {
                self.slow.push(reason);
            }
        }
    }
}

/// What the first workers that time are asked where nobody here does, before anything is spent.
pub(crate) struct Look<D> {
    pub(crate) models: Vec<Architecture>,
    /// What is left to search of what they do not refuse, and what is to be said of that.
    pub(crate) narrow: Narrow<D>,
}

/// Of what is refused, by the places of the targets among those of the campaign, what is left to search, and a sentence for
/// each thing that is not.
pub(crate) type Narrow<D> = Box<dyn FnOnce(Vec<(usize, Said)>) -> anyhow::Result<(D, Vec<String>)>>;

/// Everything that is timed on a target whose device has this name.
pub(crate) fn conditions(target: &Target, device: &str) -> Vec<Conditions> {
    let all = target.latencies(device).into_iter().map(|(_, conditions)| conditions);
    let batch = target.latency.throughput(device).map(|throughput| throughput.conditions);
    all.chain(batch).collect()
}

/// The id of a check: it is the first request.
const ID: u64 = 1;
/// Models that are asked about at once.
pub(super) const AT_ONCE: usize = 500;

impl Asked {
    /// Starts the worker of a campaign.
    ///
    /// # Errors
    /// When it cannot be had; the reason is its own.
    pub(crate) async fn start(spec: &WorkerSpec) -> anyhow::Result<Self> {
        let (mut process, hello) = meet(spec.role, &spec.program, None)
            .await
            .map_err(|(reason, log)| broken(&reason, &log))?;
        if let Introduction::Configure(configure) = &spec.introduction {
            // One that does not listen is about to end: its stdout says so next.
            process.send(&Request::Configure((**configure).clone())).await;
        }
        Ok(Self { role: spec.role, process, hello, silence: spec.silence })
    }

    /// Which of these models it cannot compute; nothing where it does not tell.
    ///
    /// # Errors
    /// When it could compute none of them; the reason is its own.
    pub(crate) async fn check(
        &mut self,
        models: &[Architecture],
        conditions: &[Conditions],
    ) -> anyhow::Result<Said> {
        let mut said = Said::default();
        if !self.hello.can.iter().any(|can| can == "check") {
            return Ok(said);
        }
        for models in models.chunks(AT_ONCE) {
            let (architectures, conditions) = (models.to_vec(), conditions.to_vec());
            self.process.send(&Request::Check(Check { id: ID, architectures, conditions })).await;
            said.add(models, self.checked().await?);
        }
        Ok(said)
    }

    async fn checked(&mut self) -> anyhow::Result<Checked> {
        let role = self.role.word();
        let Ok(line) = tokio::time::timeout(self.silence, self.process.line()).await else {
            anyhow::bail!("the {role} said nothing for {} s", self.silence.as_secs_f64());
        };
        match line.as_deref().map(Reply::parse) {
            Some(Ok(Reply::Checked(checked))) => Ok(checked),
            Some(Ok(Reply::Failed(refusal))) if [CONFIGURE_ID, ID].contains(&refusal.id) => {
                Err(anyhow::anyhow!("{}", tui::printable(&refusal.reason)))
            }
            Some(_) => Err(anyhow::anyhow!("the {role} answered out of turn")),
            None => Err(broken(&format!("the {role} has ended"), &self.process.tail())),
        }
    }

    /// The final answer to a request of this id.
    ///
    /// # Errors
    /// When there is none: the worker refused, failed or has ended.
    pub(crate) async fn answer(&mut self, id: u64, request: &Request) -> anyhow::Result<Reply> {
        let role = self.role.word();
        self.process.send(request).await;
        loop {
            let line = tokio::time::timeout(self.silence, self.process.line()).await;
            let Ok(line) = line else {
                anyhow::bail!("the {role} said nothing for {} s", self.silence.as_secs_f64());
            };
            let Some(line) = line else {
                return Err(broken(&format!("the {role} has ended"), &self.process.tail()));
            };
            match Reply::parse(&line)? {
                Reply::Progress(_) => {}
                Reply::Failed(refusal) | Reply::Infeasible(refusal)
                    if [CONFIGURE_ID, id].contains(&refusal.id) =>
                {
                    anyhow::bail!("{}", tui::printable(&refusal.reason));
                }
                reply => return Ok(reply),
            }
        }
    }

    /// Lets the worker go.
    pub(crate) async fn dismiss(self) {
        self.process.dismiss().await;
    }
}
