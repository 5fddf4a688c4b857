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

use crate::driver::{Asked, Job, Look, Said, conditions};

/// A setup that works.
pub(super) struct Setup {
    /// The space without what cannot be computed here.
    pub(super) space: Space,
    /// What is to be said of it, a sentence each.
    pub(super) notes: Vec<String>,
    /// Who times.
    pub(super) profiler: Option<Hello>,
    /// What is asked of whoever times, where that is nobody here.
    pub(super) look: Option<Look<Space>>,
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
            let conditions = conditions(&file.latency, &hardware);
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
        let asker = Narrowing {
            file: file.clone(),
            place: path.display().to_string(),
            space: job.space.clone(),
            references,
            trained,
        };
        if job.times_elsewhere {
            let look = Look {
                models,
                latency: file.latency.clone(),
                narrow: Box::new(move |timed| asker.narrow(&timed)),
            };
            // Nothing is known yet of what is refused there.
            let (space, notes) = (job.space.clone(), Vec::new());
            return Ok(Self { space, notes, profiler, look: Some(look) });
        }
        let (space, notes) = asker.narrow(&timed)?;
        Ok(Self { space, notes, profiler, look: None })
    }
}

/// What it takes to say what is left of a space once it is known what is refused.
struct Narrowing {
    file: CampaignFile,
    /// Where that lies.
    place: String,
    space: Space,
    references: Vec<(String, Architecture)>,
    /// What the trainer says.
    trained: Said,
}

impl Narrowing {
    /// The space without what whoever times refuses, and what is to be said of it.
    fn narrow(self, timed: &Said) -> anyhow::Result<(Space, Vec<String>)> {
        let Self { file, place, space: all, references, trained } = self;
        let refused: Vec<(Architecture, String)> =
            timed.refused.iter().chain(&trained.refused).cloned().collect();
        let device = file.latency.device;
        let (space, left_out) = if refused.is_empty() {
            (all.clone(), Vec::new())
        } else {
            Space::without(&file.space, &refused).map_err(|error| {
                anyhow::anyhow!(
                    "{place}: {error}\n(asked of latency.device = \"{device}\" and of the trainer)"
                )
            })?
        };
        let targets: Vec<&str> = file.space.loads_in.iter().map(|target| target.name()).collect();
        let in_them = format!("as it does not load in {}", targets.join(" and "));
        let mut notes = never_proposed(all.left_out(), |_| in_them.clone());
        notes.extend(never_proposed(&left_out, |reason| {
            let is_timed = timed.refused.iter().any(|(_, known)| known == reason);
            if is_timed { format!("on {device}") } else { "by this trainer".to_owned() }
        }));
        for (name, stack) in &references {
            if let Some((_, reason)) = refused.iter().find(|(model, _)| model == stack) {
                notes.push(format!("reference `{name}` cannot be evaluated: {reason}"));
            }
        }
        notes.extend(trained.slow);
        Ok((space, notes))
    }
}

/// A sentence for each reason; `place` says where that is one.
fn never_proposed(left_out: &[LeftOut], place: impl Fn(&str) -> String) -> Vec<String> {
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for LeftOut { what, reason } in left_out {
        match by_reason.iter_mut().find(|(known, _)| known == reason) {
            Some((_, all)) => all.push(what),
            None => by_reason.push((reason, vec![what])),
        }
    }
    let sentence = |(reason, what): (&str, Vec<&str>)| {
        format!("never proposed {}: {} ({reason})", place(reason), what.join(", "))
    };
    by_reason.into_iter().map(sentence).collect()
}
