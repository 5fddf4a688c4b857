//! The setup of a campaign, looked at before anything is spent: are the devices there, does the corpus fit the vocabulary, which
//! choices of the space can be computed at all.

use std::path::Path;

use anyhow::Context;
use search::Architecture;
use search::config::CampaignFile;
use search::device::Device;
use search::references::ReferenceShape;
use search::space::{LeftOut, Space};
use search::wire::Hello;

use crate::driver::{Asked, Job, Said};

/// A setup that works.
pub(super) struct Setup {
    /// The space without what cannot be computed here.
    pub(super) space: Space,
    /// What is to be said of it, a sentence each.
    pub(super) notes: Vec<String>,
    /// Who times.
    pub(super) profiler: Option<Hello>,
}

/// The stacks that are set beside a search, by name.
pub(super) fn references(
    file: &CampaignFile,
    space: &Space,
) -> anyhow::Result<Vec<(String, Architecture)>> {
    let shape = ReferenceShape::of(space);
    file.references()
        .into_iter()
        .map(|reference| {
            let stack = reference
                .build(&shape)
                .with_context(|| format!("reference stack `{}` in this space", reference.name()))?;
            Ok((reference.name().to_owned(), stack))
        })
        .chain(file.stacks().map(|(name, stack)| Ok((name.clone(), stack))))
        .collect()
}

impl Setup {
    /// Asks the workers of the campaign in `file`, which lies at `path`.
    ///
    /// # Errors
    /// When it cannot work: one message that says what to change.
    pub(super) async fn look(
        file: &CampaignFile,
        path: &Path,
        job: &Job<Space>,
    ) -> anyhow::Result<Self> {
        let probes = job.space.probes();
        let references = references(file, &job.space)?;
        let models: Vec<Architecture> =
            probes.iter().chain(references.iter().map(|(_, stack)| stack)).cloned().collect();
        let place = path.display();
        let mut profiler = None;
        let mut timed = Said::default();
        if let Some(spec) = job.profiler.as_ref().filter(|_| !job.times_elsewhere) {
            let device = file.latency.device;
            let mut asked = Asked::start(spec).await.with_context(|| match device {
                _ if file.latency.command.is_some() => {
                    format!("{place}: latency.command cannot be used")
                }
                Device::Cpu => format!("{place}: nothing can be timed"),
                gpu @ Device::Cuda(_) => format!(
                    "{place}: latency.device = \"{gpu}\" cannot be used here; name a device that `deltafront doctor` \
                     shows, or \"cpu\""
                ),
            })?;
            let hardware = asked.hello.device.clone();
            let all =
                file.latency.latencies(&hardware).into_iter().map(|(_, conditions)| conditions);
            let batch = file.latency.throughput(&hardware).map(|throughput| throughput.conditions);
            let conditions: Vec<_> = all.chain(batch).collect();
            timed = asked
                .check(&models, &conditions)
                .await
                .with_context(|| format!("{place}: nothing of [space] can be timed on {device}"))?;
            profiler = Some(asked.hello.clone());
            asked.dismiss().await;
        }
        let mut trained = Said::default();
        // A user's own trainer need not answer; to start it for nothing could take long. What a trainer elsewhere cannot
        // compute is dropped when it says so.
        if file.evaluator.command.is_none() && job.trainers > 0 {
            let mut asked = Asked::start(&job.trainer)
                .await
                .with_context(|| format!("{place}: nothing can be trained"))?;
            trained = asked
                .check(&models, &[])
                .await
                .with_context(|| format!("{place}: nothing can be trained"))?;
            asked.dismiss().await;
        }
        let refused: Vec<(Architecture, String)> =
            timed.refused.iter().chain(&trained.refused).cloned().collect();
        let (space, left_out) = if refused.is_empty() {
            (job.space.clone(), Vec::new())
        } else {
            Space::without(&file.space, &refused).map_err(|error| {
                let device = file.latency.device;
                anyhow::anyhow!(
                    "{place}: {error}\n(asked of latency.device = \"{device}\" and of the trainer)"
                )
            })?
        };
        let mut notes = never_proposed(&left_out, &timed, file.latency.device);
        for (name, stack) in &references {
            if let Some((_, reason)) = refused.iter().find(|(model, _)| model == stack) {
                notes.push(format!("reference `{name}` cannot be evaluated: {reason}"));
            }
        }
        notes.extend(trained.slow);
        Ok(Self { space, notes, profiler })
    }
}

/// A sentence for each reason.
fn never_proposed(left_out: &[LeftOut], timed: &Said, device: Device) -> Vec<String> {
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for LeftOut { what, reason } in left_out {
        match by_reason.iter_mut().find(|(known, _)| known == reason) {
            Some((_, all)) => all.push(what),
            None => by_reason.push((reason, vec![what])),
        }
    }
    let sentence = |(reason, what): (&str, Vec<&str>)| {
        let is_timed = timed.refused.iter().any(|(_, known)| known == reason);
        let place = if is_timed { format!("on {device}") } else { "by this trainer".to_owned() };
        format!("never proposed {place}: {} ({reason})", what.join(", "))
    };
    by_reason.into_iter().map(sentence).collect()
}
